"""The sliding engine equals the network run window by window."""

import sys
import threading

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepprofile.model import engine, kernels_device, sliding
from deepprofile.model.feature_map import MapLayout
from deepprofile.model.network import DeepProfile
from deepprofile.model.precision import PRECISIONS, check_precision, fixed, has_bfloat16
from deepprofile.model.prediction import predict_windows
from deepprofile.model.sliding import sliding_coefficients

CUDA = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
)
DEPTHS = np.linspace(0, 1, 21)[:, None] ** np.arange(10)
"""Powers of 21 depths: coefficients @ DEPTHS.T is soil moisture there."""


def make_model(seed, **options):
    """A model whose limits and batch-norm statistics are far from their defaults."""
    torch.manual_seed(seed)
    model = DeepProfile(**options).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.3, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, 0.0, 0.5)
    model.series_minimum.uniform_(-2, -1)
    model.series_maximum.uniform_(1, 2)
    return model


def inputs(model, n_cells, n_windows, seed=0):
    rng = np.random.default_rng(seed)
    config = model.config
    shape = (n_cells, config.n_variables, config.window + n_windows - 1)
    return (
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=(n_cells, config.n_auxiliary)).astype(np.float32),
    )


def assert_equal(model, series, auxiliary):
    direct = predict_windows(model, series, auxiliary)
    got = sliding_coefficients(model, series, auxiliary)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(got), np.isnan(direct))
    np.testing.assert_allclose(got, direct, rtol=1e-4, atol=2e-6)


def test_the_papers_network():
    model = make_model(0)
    series, auxiliary = inputs(model, n_cells=3, n_windows=50)
    assert_equal(model, series, auxiliary)
    got = sliding_coefficients(model, series, auxiliary)
    assert got.shape == (3, 50, 10)
    assert got.std(axis=1).min() > 1e-5  # days differ: the comparison is not trivial


@st.composite
def networks(draw):
    """Any small network."""
    stage = st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3, 5]))
    filters, pooling = zip(*draw(st.lists(stage, min_size=1, max_size=4)), strict=True)
    window = draw(st.integers(1, 6)) * int(np.prod(pooling))
    assume(window <= 200)
    return make_model(
        draw(st.integers(0, 1000)),
        n_variables=2,
        n_auxiliary=draw(st.integers(0, 2)),
        window=window,
        filters=filters,
        pooling=pooling,
        kernel_size=draw(st.sampled_from([1, 3, 5, 7])),
        n_coefficients=3,
        width=8,
        head_width=4,
    )


@settings(max_examples=60, deadline=None)
@given(model=networks(), n_windows=st.integers(1, 12), n_cells=st.integers(1, 3))
def test_any_network(model, n_windows, n_cells):
    assert_equal(model, *inputs(model, n_cells, n_windows))


@settings(max_examples=30, deadline=None)
@given(model=networks(), n_windows=st.integers(1, 12), n_cells=st.integers(1, 5))
def test_any_network_the_way_it_runs_on_a_gpu(model, n_windows, n_cells):
    with pytest.MonkeyPatch.context() as patch:
        as_on_a_gpu(patch)
        assert_equal(model, *inputs(model, n_cells, n_windows))


def as_on_a_gpu(patch):
    """Take the operations and the staging of a GPU, on the CPU, few cells at a time."""
    patch.setattr(engine, "kernels_cpu", kernels_device)
    patch.setattr(sliding, "_run_on_cpu", sliding._run_on_device)
    patch.setattr(engine, "CPU", engine.Portions(20_000, 50))


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_the_papers_network_on_every_device(device):
    model = make_model(8)
    series, auxiliary = inputs(model, n_cells=70, n_windows=20, seed=8)
    series[3, 2, 200] = np.nan
    direct = predict_windows(model, series, auxiliary)
    got = sliding_coefficients(model.to(device), series, auxiliary)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(direct))
    np.testing.assert_allclose(got @ DEPTHS.T, direct @ DEPTHS.T, rtol=0, atol=1e-5)


def test_the_edges_of_the_papers_network():
    layout, edges = MapLayout.of_series(1, 400, 360), []
    for size in (2, 2, 2, 5):
        between = layout.convolved(5)
        layout = between.pooled(size)
        edges.append((between.left, between.right, layout.left, layout.right))
    assert edges == [(2, 2, 1, 1), (3, 3, 2, 2), (4, 4, 2, 2), (4, 4, 1, 1)]
    assert (layout.length, layout.stride, layout.windows) == (9, 40, 41)


def test_missing_values_reach_the_same_windows_and_no_other():
    model = make_model(1, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=4, n_windows=100)
    series[0, 1, 70] = np.nan
    series[2, :, :5] = np.nan
    auxiliary[3, 0] = np.nan
    assert_equal(model, series, auxiliary)
    missing = np.isnan(sliding_coefficients(model, series, auxiliary)).any(2).sum(1)
    assert missing.tolist() == [40, 0, 5, 100]


@pytest.mark.parametrize("portions", [(1, 7), (40_000, 1), (150_000, 1000)])
def test_portions_do_not_matter(monkeypatch, portions):
    model = make_model(2, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=5, n_windows=20)
    whole = sliding_coefficients(model, series, auxiliary)
    monkeypatch.setattr(engine, "CPU", engine.Portions(*portions))
    parts = sliding_coefficients(model, series, auxiliary)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    kernel_size=st.sampled_from([1, 3, 5]),
    gap=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
def test_chunks_of_the_time_axis_do_not_matter(lengths, kernel_size, gap, seed):
    model = make_model(seed, n_variables=2, n_auxiliary=1, window=40, kernel_size=kernel_size)
    series, auxiliary = inputs(model, 2, sum(lengths), seed)
    series[0, 1, gap : gap + 1] = np.nan
    whole = sliding_coefficients(model, series, auxiliary)
    stops = np.cumsum(lengths)
    chunks = [
        sliding_coefficients(model, series[:, :, stop - length : stop + 39], auxiliary)
        for stop, length in zip(stops, lengths, strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), whole, rtol=1e-4, atol=2e-6)


def test_soil_moisture_is_exact_at_all_depths():
    model = make_model(4)
    series, auxiliary = inputs(model, n_cells=2, n_windows=30, seed=4)
    direct = predict_windows(model, series, auxiliary)
    got = sliding_coefficients(model, series, auxiliary)
    np.testing.assert_allclose(got @ DEPTHS.T, direct @ DEPTHS.T, rtol=0, atol=1e-5)


def test_the_engine_rounds_no_worse_than_the_network():
    """Large biases, as training makes them, against the network in double precision."""
    model = make_model(10, n_variables=3, n_auxiliary=2, window=40)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.bias, -4.0, 6.0)
    series, auxiliary = inputs(model, n_cells=3, n_windows=50)
    windows = torch.from_numpy(series).double().unfold(2, 40, 1).transpose(1, 2).flatten(0, 1)
    constant = torch.from_numpy(auxiliary).double().repeat_interleave(50, 0)
    direct = predict_windows(model, series, auxiliary)
    got = sliding_coefficients(model, series, auxiliary)
    with torch.no_grad():
        exact = model.double()(windows, constant).view(3, 50, -1).numpy()
    error, usual = np.abs(got - exact), np.abs(direct - exact)
    assert np.sqrt(np.mean(error**2)) < 2 * np.sqrt(np.mean(usual**2))


def test_a_changed_model_gives_changed_values():
    model = make_model(5, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=1, n_windows=5)
    before = sliding_coefficients(model, series, auxiliary)
    with torch.no_grad():
        model.extractor[0][1].running_mean.add_(0.5)
        model.heads.bias_out.add_(1.0)
    after = sliding_coefficients(model, series, auxiliary)
    assert (np.abs(after - before) > 0.1).all()
    assert_equal(model, series, auxiliary)


def test_a_variable_without_a_range_is_ignored():
    model = make_model(6, n_variables=3, n_auxiliary=2, window=40)
    model.series_maximum[1] = model.series_minimum[1]
    assert_equal(model, *inputs(model, n_cells=2, n_windows=5))


def test_series_far_from_zero_lose_no_digits():
    model = make_model(7, n_variables=3, n_auxiliary=2, window=40)
    model.series_minimum.copy_(torch.tensor([5e4, 250.0, 0.0]))
    model.series_maximum.copy_(torch.tensor([1e5, 320.0, 1e-3]))
    series, auxiliary = inputs(model, n_cells=2, n_windows=20)
    series = np.float32([7e4, 280.0, 5e-4])[:, None] + series * np.float32([1e4, 10, 2e-4])[:, None]
    assert_equal(model, series, auxiliary)


def test_tensors_do_as_well_and_the_model_is_left_alone():
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40).train()
    series, auxiliary = inputs(model, n_cells=2, n_windows=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    got = sliding_coefficients(model, torch.from_numpy(series), torch.from_numpy(auxiliary))
    np.testing.assert_allclose(got, predict_windows(model, series, auxiliary), rtol=1e-4, atol=2e-6)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_wrong_shapes_are_named():
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40)
    with pytest.raises(ValueError, match="at least the 40"):
        sliding_coefficients(model, np.zeros((1, 3, 39)), np.zeros((1, 2)))


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_do_not_matter(n_threads):
    model = make_model(9, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=30, n_windows=64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = sliding_coefficients(model, series, auxiliary)
        torch.set_num_threads(n_threads)
        np.testing.assert_array_equal(sliding_coefficients(model, series, auxiliary), alone)
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


def test_threads_of_the_engine_start_no_others():
    """A thread that is new to torch takes the default number, unless told after it was asked."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with sliding._single_threads(4) as pool:
            together = threading.Barrier(4)

            def count():
                together.wait()
                torch.rand(20, 20) @ torch.rand(20, 20)
                return torch.get_num_threads()

            assert [found.result() for found in [pool.submit(count) for _ in range(4)]] == [1] * 4
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_masked_and_read_only_arrays_are_taken_as_they_are_meant():
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=2, n_windows=10)
    masked = np.ma.masked_array(series, np.zeros_like(series, bool))
    masked[0, 1, 44] = np.ma.masked
    series[0, 1, 44] = np.nan
    series.flags.writeable = False
    got = sliding_coefficients(model, series, auxiliary)
    assert np.isnan(got).any()
    np.testing.assert_array_equal(sliding_coefficients(model, masked, auxiliary), got)


@settings(max_examples=30, deadline=None)
@given(model=networks(), day=st.integers(0, 5), sign=st.sampled_from([-1, 1]))
def test_infinite_values_are_missing(model, day, sign):
    series, auxiliary = inputs(model, 2, 6)
    series[1, 0, day] = sign * np.inf
    got = sliding_coefficients(model, series, auxiliary)
    series[1, 0, day] = np.nan
    np.testing.assert_array_equal(got, sliding_coefficients(model, series, auxiliary))
    assert np.isnan(got[1]).any()
    assert not np.isnan(got[0]).any()


def test_series_that_run_backwards_are_taken():
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=2, n_windows=10)
    backwards = np.ascontiguousarray(series[..., ::-1])[..., ::-1]
    got = sliding_coefficients(model, backwards, auxiliary)
    np.testing.assert_array_equal(got, sliding_coefficients(model, series, auxiliary))


def test_many_threads_share_many_parts(monkeypatch):
    """Threads ask for the next part at the same time: none is lost, taken twice or refused."""
    model = make_model(3, n_variables=2, n_auxiliary=1, window=40, width=8, head_width=4)
    series, auxiliary = inputs(model, n_cells=600, n_windows=2)
    monkeypatch.setattr(engine, "CPU", engine.Portions(1, 48))
    before, interval = torch.get_num_threads(), sys.getswitchinterval()
    try:
        torch.set_num_threads(1)
        alone = sliding_coefficients(model, series, auxiliary)
        torch.set_num_threads(8)
        sys.setswitchinterval(1e-6)
        np.testing.assert_array_equal(sliding_coefficients(model, series, auxiliary), alone)
    finally:
        sys.setswitchinterval(interval)
        torch.set_num_threads(before)


def test_other_threads_keep_their_default():
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40)
    before, found = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        sliding_coefficients(model, *inputs(model, n_cells=20, n_windows=50))
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [3]


def test_what_the_engine_cannot_judge_is_refused():
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=2, n_windows=10)
    labelled = xr.DataArray(series, dims=("cell", "variable", "time"))
    with pytest.raises(TypeError, match=r"dp\.predict"):
        sliding_coefficients(model, labelled, auxiliary)
    with pytest.raises(TypeError, match="expected a DeepProfile"):
        sliding_coefficients("model", series, auxiliary)
    model.series_maximum[1] = np.nan
    with pytest.raises(ValueError, match="set_limits"):
        sliding_coefficients(model, series, auxiliary)


def test_no_cells_give_no_profiles():
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40)
    assert sliding_coefficients(model, *inputs(model, 0, 5)).shape == (0, 5, 10)


# --- precision ---


def test_settings_of_the_process_do_not_reach_the_engine():
    model = make_model(4)
    series, auxiliary = inputs(model, n_cells=2, n_windows=40)
    exact = sliding_coefficients(model, series, auxiliary)
    settings_of_torch = torch.backends.mkldnn.matmul
    before = settings_of_torch.fp32_precision
    try:
        settings_of_torch.fp32_precision = "bf16"
        np.testing.assert_array_equal(sliding_coefficients(model, series, auxiliary), exact)
        assert settings_of_torch.fp32_precision == "bf16"
    finally:
        settings_of_torch.fp32_precision = before


@pytest.mark.skipif(not has_bfloat16(), reason="no products of bfloat16 here")
def test_bfloat16_rounds_each_factor_and_no_more():
    model = make_model(4)
    series, auxiliary = inputs(model, n_cells=4, n_windows=100)
    exact = sliding_coefficients(model, series, auxiliary) @ DEPTHS.T
    rough = sliding_coefficients(model, series, auxiliary, precision="bfloat16") @ DEPTHS.T
    # A factor is off by 2^-9 at most; eight layers of averaging weights add these up.
    assert np.abs(rough - exact).max() < 8 * 2**-9 * np.abs(exact).max()


@pytest.mark.skipif(not has_bfloat16(), reason="no products of bfloat16 here")
def test_devices_and_threads_with_other_precisions_do_not_disturb_each_other():
    settings = {"cpu": torch.backends.mkldnn.matmul, "cuda": torch.backends.cuda.matmul}

    def now():
        return {name: setting.fp32_precision for name, setting in settings.items()}

    before, seen = now(), []

    def other():
        with fixed("bfloat16", torch.device("cpu")):
            seen.append(now()["cpu"])

    thread = threading.Thread(target=other)
    outer = fixed("float32", torch.device("cpu"))
    outer.__enter__()
    thread.start()
    with fixed("tf32", torch.device("cuda")):
        assert now() == {"cpu": "ieee", "cuda": "tf32"}
        outer.__exit__(None, None, None)
        thread.join()
        assert now()["cuda"] == "tf32"
    assert seen == ["bf16"]
    assert now() == before


@pytest.mark.parametrize("precision", ["float16", "tf32"])
def test_a_precision_that_is_not_there_is_refused(precision):
    model = make_model(3, n_variables=3, n_auxiliary=2, window=40)
    with pytest.raises(ValueError, match="expected one of float32, "):
        sliding_coefficients(model, *inputs(model, 1, 1), precision=precision)


def test_gpus_have_tf32_and_no_bfloat16():
    for precision in PRECISIONS:
        if precision == "bfloat16":
            with pytest.raises(ValueError, match="expected one of float32, tf32"):
                check_precision(precision, torch.device("cuda"))
        else:
            check_precision(precision, torch.device("cuda"))
