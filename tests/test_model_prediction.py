"""Models on disk, and prediction on arrays and on labelled, lazy arrays."""

import json
import pickle
import threading

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from deepprofile.model import io
from deepprofile.model.flags import Flag
from deepprofile.model.io import fingerprint, load_model, read_description, resident, save_model
from deepprofile.model.labelled import predict
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import margins, predict_days, predict_windows
from deepprofile.profile import Layer

WINDOW = 20
N_DAYS = 70


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    settings = {
        "n_variables": 3,
        "n_auxiliary": 2,
        "window": WINDOW,
        "filters": (6, 4),
        "pooling": (2, 5),
        "width": 16,
        "head_width": 8,
        "variables": ("rain", "heat", "snow"),
        "features": ("elevation", "slope"),
        "layers": (Layer("smap_l4", 0.0, 0.05),),
        **options,
    }
    model = DeepProfile(**settings)
    for name, buffer in model.named_buffers():
        if "running_mean" in name:
            buffer.uniform_(-0.5, 0.5)
    model.series_maximum.mul_(3)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return make_model()


def make_forcing(n_rows=4, n_columns=5, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(N_DAYS, 3, n_rows, n_columns)).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("time", "variable", "y", "x"),
        coords={
            "time": pd.date_range("2020-01-01", periods=N_DAYS),
            "variable": ["rain", "heat", "snow"],
            "y": np.arange(n_rows) * -9.0,
            "x": np.arange(n_columns) * 9.0,
            "latitude": ("y", np.arange(n_rows) * -0.1),
        },
    )


def make_auxiliary(n_rows=4, n_columns=5):
    values = np.random.default_rng(9).normal(size=(2, n_rows, n_columns)).astype(np.float32)
    return xr.DataArray(
        values,
        dims=("feature", "y", "x"),
        coords={
            "feature": ["elevation", "slope"],
            "y": np.arange(n_rows) * -9.0,
            "x": np.arange(n_columns) * 9.0,
        },
    )


def plain_predict(model, series, auxiliary):
    """One window at a time."""
    n_windows = series.shape[2] - model.config.window + 1
    out = np.zeros((len(series), n_windows, model.config.n_coefficients), np.float32)
    for cell in range(len(series)):
        for start in range(n_windows):
            window = torch.from_numpy(series[cell : cell + 1, :, start : start + WINDOW])
            with torch.no_grad():
                out[cell, start] = model(window, torch.from_numpy(auxiliary[cell : cell + 1]))[0]
    return out


# --- windows ---


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_windows_equal_one_at_a_time(model, batch_size):
    rng = np.random.default_rng(1)
    series = rng.normal(size=(70, 3, 24)).astype(np.float32)  # more cells than go at once
    auxiliary = rng.normal(size=(70, 2)).astype(np.float32)
    expected = plain_predict(model, series, auxiliary)
    got = predict_windows(model, series, auxiliary, batch_size)
    assert got.shape == (70, 5, 10)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_missing_value_reaches_exactly_the_windows_that_hold_it(model):
    rng = np.random.default_rng(1)
    series = rng.normal(size=(3, 3, 60)).astype(np.float32)
    auxiliary = rng.normal(size=(3, 2)).astype(np.float32)
    whole = predict_windows(model, series, auxiliary)
    series[1, 2, 30] = np.nan
    auxiliary[2, 0] = np.nan
    got = predict_windows(model, series, auxiliary)
    missing = np.isnan(got).all(2)
    expected = np.zeros((3, 41), bool)
    expected[1, 11:31] = True
    expected[2] = True
    np.testing.assert_array_equal(missing, expected)
    np.testing.assert_allclose(got[~missing], whole[~missing], rtol=1e-4, atol=1e-6)


def test_a_model_in_training_mode_predicts_the_same_and_is_left_alone(model):
    rng = np.random.default_rng(1)
    series = rng.normal(size=(2, 3, 30)).astype(np.float32)
    auxiliary = rng.normal(size=(2, 2)).astype(np.float32)
    expected = predict_windows(model, series, auxiliary)
    training = make_model().train()
    np.testing.assert_array_equal(predict_windows(training, series, auxiliary), expected)
    assert training.training
    assert fingerprint(training) == fingerprint(model)


@pytest.mark.parametrize(
    ("series", "auxiliary", "message"),
    [
        ((2, 4, 30), (2, 2), "3 variables"),
        ((2, 3, 19), (2, 2), "at least the 20"),
        ((2, 3, 30), (3, 2), r"\(2, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(model, series, auxiliary, message):
    with pytest.raises(ValueError, match=message):
        predict_windows(model, np.zeros(series, np.float32), np.zeros(auxiliary, np.float32))


# --- labelled ---


def test_flags_say_why(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    forcing[40, 1, 0, 0] = np.nan  # a short gap
    forcing[40:45, 1, 0, 1] = np.nan  # a long one
    auxiliary[0, 1, 1] = np.nan
    land = xr.ones_like(auxiliary[0], dtype=np.uint8).drop_vars("feature")
    land[3, 4] = 0
    result = predict(model, forcing, auxiliary, land=land, max_gap=3)
    flag = result["flag"].to_numpy()
    assert (flag[: WINDOW - 1, 0, 0] == Flag.NO_FULL_WINDOW).all()
    assert (flag[WINDOW - 1 : 40, 0, 0] == Flag.VALID).all()
    assert (flag[40:60, 0, 0] == Flag.GAP_FILLED).all()
    assert (flag[60:, 0, 0] == Flag.VALID).all()
    assert (flag[40:64, 0, 1] == Flag.MISSING_FORCING).all()
    assert (flag[64:, 0, 1] == Flag.VALID).all()
    assert (flag[:, 1, 1] == Flag.NOT_LAND).all()
    assert (flag[:, 3, 4] == Flag.NOT_LAND).all()
    there = result["coefficients"].notnull().all("degree").to_numpy()
    np.testing.assert_array_equal(there, flag <= Flag.GAP_FILLED)
    assert not (result["coefficients"].notnull().any("degree").to_numpy() & ~there).any()
    assert result["flag"].attrs["flag_meanings"].split()[2] == "missing_forcing"


def test_labelled_prediction_is_that_of_the_windows(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    result = predict(model, forcing, auxiliary)
    series = forcing.to_numpy().reshape(N_DAYS, 3, -1).transpose(2, 1, 0).copy()
    expected = predict_windows(model, series, auxiliary.to_numpy().reshape(2, -1).T.copy())
    got = result["coefficients"].to_numpy()[WINDOW - 1 :].reshape(-1, 10, 20)
    np.testing.assert_allclose(got.transpose(2, 0, 1), expected, rtol=1e-4, atol=1e-6)
    assert result["coefficients"].dims == ("time", "degree", "y", "x")
    assert result["coefficients"].dtype == np.float32
    assert result["flag"].dtype == np.uint8
    assert result.attrs["model_fingerprint"] == fingerprint(model)
    assert "latitude" in result.coords
    assert "variable" not in result.coords
    assert result.profile.layer(0, 1).dims == ("time", "y", "x")


@pytest.mark.parametrize("chunks", [(32, 3, 2, 3), (10, 2, 4, 5), (70, 3, 1, 1), (1, 3, 4, 5)])
def test_lazy_equals_direct_for_any_chunks(model, chunks):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    holes = np.random.default_rng(4).random(forcing.shape) < 0.003
    forcing = forcing.where(~holes)
    forcing[30:36, 0, 1, 3] = np.nan
    auxiliary[0, 2, 2] = np.nan
    direct = predict(model, forcing, auxiliary)
    lazy = predict(model, forcing.chunk(dict(zip(forcing.dims, chunks, strict=True))), auxiliary)
    assert isinstance(lazy["coefficients"].data, da.Array)
    assert lazy["coefficients"].data.numblocks[0] == -(-N_DAYS // chunks[0])
    assert lazy["coefficients"].data.numblocks[2:] == (-(-4 // chunks[2]), -(-5 // chunks[3]))
    np.testing.assert_array_equal(lazy["flag"].to_numpy(), direct["flag"].to_numpy())
    assert set(np.unique(direct["flag"])) >= {0, 1, 2, 3, 4}
    xr.testing.assert_allclose(lazy.compute(), direct, rtol=1e-4, atol=1e-6)


def test_order_of_dimensions_does_not_matter(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    turned = predict(model, forcing.transpose("x", "variable", "time", "y"), auxiliary.T)
    xr.testing.assert_allclose(turned, predict(model, forcing, auxiliary), rtol=1e-5, atol=1e-6)


def counting_scheduler(counter):
    def get(graph, keys, **kwargs):
        counter.append(graph)
        return dask.get(graph, keys, **kwargs)

    return get


def test_building_the_graph_computes_nothing(model):
    computes = []
    with dask.config.set(scheduler=counting_scheduler(computes)):
        lazy = predict(model, make_forcing().chunk(time=16, y=2), make_auxiliary().chunk(y=2))
        assert computes == []
        lazy["flag"].compute()
    assert len(computes) == 1


def test_later_training_does_not_change_a_lazy_result():
    model = make_model()
    forcing, auxiliary = make_forcing(), make_auxiliary()
    lazy = predict(model, forcing.chunk(time=16), auxiliary)
    direct = predict(model, forcing, auxiliary)
    with torch.no_grad():
        model.heads.bias_out.add_(1)
    xr.testing.assert_allclose(lazy.compute(), direct, rtol=1e-4, atol=1e-6)


def test_the_model_is_in_the_graph_once_and_tasks_are_small():
    model = make_model(n_coefficients=40, width=64)  # about 0.7 MB
    forcing = make_forcing()
    source = da.zeros(forcing.shape, chunks=(10, 3, 2, 5), dtype=np.float32)
    lazy = predict(model, forcing.copy(data=source), make_auxiliary().chunk(y=2))
    (optimised,) = dask.optimize(lazy)
    graph = dict(optimised.__dask_graph__())
    sizes = {key: len(pickle.dumps(task)) for key, task in graph.items()}
    large = {key: size for key, size in sizes.items() if size > 8_000}
    assert list(large) == [f"model-{fingerprint(model)}"]
    assert sum("predict_days" in str(key) for key in graph) >= 14


def test_names_and_days_are_checked(model):
    forcing, auxiliary = make_forcing(), make_auxiliary()
    swapped = forcing.isel(variable=[1, 0, 2])
    with pytest.raises(ValueError, match="'heat': the model was trained with 'rain'"):
        predict(model, swapped, auxiliary)
    with pytest.raises(ValueError, match="feature number 0 is 'slope'"):
        predict(model, forcing, auxiliary.isel(feature=[1, 0]))
    with pytest.raises(ValueError, match="there are 2 along 'variable'"):
        predict(model, forcing.isel(variable=[0, 1]), auxiliary)
    with pytest.raises(ValueError, match="from 2020-01-10 to 2020-01-12"):
        predict(model, forcing.drop_isel(time=10), auxiliary)
    with pytest.raises(ValueError, match="don't lie on the same cells"):
        predict(model, forcing.assign_coords(y=forcing["y"] + 1), auxiliary)
    with pytest.raises(ValueError, match="forcing has dimensions"):
        predict(model, forcing.isel(time=0), auxiliary)


def test_margins_are_enough_and_needed(model):
    forcing, auxiliary = make_forcing(1, 1), make_auxiliary(1, 1)
    values = forcing.to_numpy().copy()
    values[29:32] = np.nan  # filled from days 28 and 32
    land = np.ones((1, 1), bool)
    whole = predict_days(model, values, auxiliary.to_numpy(), land, slice(0, N_DAYS), 3)
    before, after = margins(WINDOW, 3)
    for day in (31 - 1, 31, 45, 50):
        part = values[max(0, day - before) : day + 1 + after]
        days = slice(min(day, before), min(day, before) + 1)
        got = predict_days(model, part, auxiliary.to_numpy(), land, days, 3)
        assert got.flag[0, 0, 0] == Flag.GAP_FILLED
        np.testing.assert_allclose(
            got.coefficients[0], whole.coefficients[day], rtol=1e-4, atol=1e-6
        )


# --- on disk ---


@pytest.fixture
def saved(model, tmp_path):
    save_model(model, str(tmp_path / "models" / "first"), {"recipe": "demo"})
    return str(tmp_path / "models" / "first")


def test_a_model_comes_back_as_it_was(model, saved):
    loaded = load_model(saved)
    assert loaded.config == model.config
    assert not loaded.training
    assert fingerprint(loaded) == fingerprint(model)
    series, auxiliary = torch.rand(4, 3, WINDOW), torch.rand(4, 2)
    with torch.no_grad():
        assert torch.equal(loaded(series, auxiliary), model(series, auxiliary))
    assert read_description(saved)["metadata"] == {"recipe": "demo"}


def test_any_fsspec_url_does(model):
    url = "memory://models/second"
    assert save_model(model, url) == fingerprint(load_model(url))


def test_fingerprint_sees_weights_and_configuration(model):
    assert fingerprint(make_model()) == fingerprint(model)
    assert fingerprint(make_model(seed=1)) != fingerprint(model)
    assert fingerprint(make_model(variables=("rain", "heat", "hail"))) != fingerprint(model)


def test_absent_damaged_and_foreign_files_are_named(model, saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model\.json in .*nowhere"):
        load_model(str(tmp_path / "nowhere"))
    folder = tmp_path / "models" / "first"
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="don't belong together"):
        load_model(saved)
    weights.write_bytes(content[:200])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(saved)
    weights.write_bytes(content)
    description = json.loads((folder / "model.json").read_text())
    description["network"]["width"] = 8
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="doesn't fit the network"):
        load_model(saved)
    (folder / "model.json").write_text("[]")
    with pytest.raises(ValueError, match="has format and version"):
        load_model(saved)
    (folder / "model.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_model(saved)
    weights.unlink()
    save_model(model, saved)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_model(saved)


def test_another_model_than_the_expected_is_refused(saved):
    with pytest.raises(ValueError, match="expected 123"):
        load_model(saved, expected="123")
    with pytest.raises(ValueError, match="expected 123"):
        resident(saved, "123")


def test_a_resident_model_is_loaded_once_by_many_threads(model, saved, monkeypatch):
    loads = []

    def counted(url, expected):
        loads.append(url)
        return load_model(url, expected)

    monkeypatch.setattr(io, "load_model", counted)
    monkeypatch.setattr(io, "_resident", {})
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(resident(saved, fingerprint(model))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len({id(result) for result in results}) == 1
    assert len(results) == 8
