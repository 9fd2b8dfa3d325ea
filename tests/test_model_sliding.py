"""The sliding engine equals the network run window by window."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepprofile.model import sliding
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import predict_windows
from deepprofile.model.sliding import sliding_coefficients


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


@settings(max_examples=60, deadline=None)
@given(
    stages=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3, 5])), min_size=1, max_size=4
    ),
    positions=st.integers(1, 6),
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    n_windows=st.integers(1, 12),
    n_cells=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_any_network(stages, positions, kernel_size, n_windows, n_cells, seed):
    filters, pooling = zip(*stages, strict=True)
    window = positions * int(np.prod(pooling))
    assume(window <= 200)
    model = make_model(
        seed,
        n_variables=2,
        n_auxiliary=1,
        window=window,
        filters=filters,
        pooling=pooling,
        kernel_size=kernel_size,
        n_coefficients=3,
        width=8,
        head_width=4,
    )
    assert_equal(model, *inputs(model, n_cells, n_windows, seed))


def test_missing_values_reach_the_same_windows_and_no_other():
    model = make_model(1, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=4, n_windows=100)
    series[0, 1, 70] = np.nan
    series[2, :, :5] = np.nan
    auxiliary[3, 0] = np.nan
    assert_equal(model, series, auxiliary)
    missing = np.isnan(sliding_coefficients(model, series, auxiliary)).any(2).sum(1)
    assert missing.tolist() == [40, 0, 5, 100]


@pytest.mark.parametrize(("values_at_once", "rows_at_once"), [(1, 7), (150, 1), (60, 30)])
def test_parts_of_cells_and_rows_do_not_matter(monkeypatch, values_at_once, rows_at_once):
    model = make_model(2, n_variables=3, n_auxiliary=2, window=40)
    series, auxiliary = inputs(model, n_cells=5, n_windows=20)
    whole = sliding_coefficients(model, series, auxiliary)
    monkeypatch.setattr(sliding, "VALUES_AT_ONCE", values_at_once)
    monkeypatch.setattr(sliding, "ROWS_AT_ONCE", rows_at_once)
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
    powers = np.linspace(0, 1, 21)[:, None] ** np.arange(10)
    np.testing.assert_allclose(got @ powers.T, direct @ powers.T, rtol=0, atol=1e-5)


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
