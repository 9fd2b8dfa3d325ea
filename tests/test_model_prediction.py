"""Prediction on arrays, and models on disk."""

import json
import threading

import numpy as np
import pytest
import torch
from model_support import N_DAYS, WINDOW, make_auxiliary, make_forcing, make_model

from deepprofile.model import io
from deepprofile.model.flags import Flag
from deepprofile.model.io import fingerprint, load_model, read_description, resident, save_model
from deepprofile.model.prediction import margins, predict_days, predict_windows


@pytest.fixture(scope="module")
def model():
    return make_model()


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
    with pytest.raises(ValueError, match="holds a list, not an object"):
        load_model(saved)
    (folder / "model.json").write_text('{"format": "another"}')
    with pytest.raises(ValueError, match="has format and version"):
        load_model(saved)
    for change in ({"network": None}, {"network": {"window": "360"}}, {"fingerprint": None}):
        (folder / "model.json").write_text(json.dumps({**description, **change}))
        with pytest.raises(ValueError, match="save the model again"):
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


def test_one_model_stays_for_each_device(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(io, "_resident", {})
    other = save_model(make_model(seed=1), str(tmp_path / "other"))
    mine = read_description(saved)["fingerprint"]
    first = resident(saved, mine)
    assert resident(saved, mine) is first
    resident(saved, mine, "meta")
    assert fingerprint(resident(str(tmp_path / "other"), other)) == other
    assert set(io._resident) == {"cpu", "meta"}
    again = resident(saved, mine)
    assert again is not first
    assert fingerprint(again) == mine
