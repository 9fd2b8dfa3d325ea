"""The stage train on a small cube of samples: what it tells, keeps, goes on from and refuses."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fault_support import threads
from rich.console import Console

from deepprofile import grid
from deepprofile.benchmark import committed_writer, make_cube
from deepprofile.model.io import load_model, read_description
from deepprofile.products import PRODUCTS
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, StageError
from deepprofile.stages import train as stage
from deepprofile.stages.sample import target_layers
from deepprofile.stages.training_material import training_cells
from deepprofile.store import samples_template
from deepprofile.store.kinds import FEATURES

N_DAYS, WINDOW, START = 76, 40, 4
VARIABLES = {"surface_pressure": "Pa", "surface_temp": "K", "rain": "kg m-2 s-1"}
CELLS = {
    "row": np.array([267, 268, 269, 270, 271, 272]),
    "column": np.array([2169, 2170, 2171, 2172, 2173, 2174]),
    "cell_class": np.array(["other"] * 6),
    "split": np.array(["train", "train", "train", "train", "validation", "candidate"]),
}
EMPTY, HOLED, FEATURELESS = 1, 2, 3
"""Cells without any target, with gaps of the forcing, without a static feature."""
RECIPE = {
    "name": "small",
    "period": {"start": "2015-04-04", "end": "2015-06-14"},
    "region": {"west": 22.7, "south": 40.4, "east": 23.6, "north": 41.4},
    "products": {name: {"url": "nowhere"} for name in PRODUCTS},
    "terrain": {"urls": ["nowhere"]},
    "collocation": {"min_samples": 30},
    "sample": {"max_gap_days": 2},
    "training": {"window": WINDOW, "epochs": 3, "average_last": 1, "batch_size": 16},
}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    layers = sum(len(product.layers) for product in PRODUCTS.values())
    made = {
        "series": rng.random((6, 3, N_DAYS), np.float32),
        "auxiliary": rng.random((6, 6), np.float32),
        "target": rng.random((6, layers, N_DAYS), np.float32),
        "weight": np.full((6, layers), 0.1, np.float32),
    }
    made["series"][:, 0] = 95_000  # constant
    made["series"][HOLED, 1, 30:33] = np.nan  # longer than what is filled
    made["series"][HOLED, 1, 60:63] = np.nan
    made["series"][0, 2, 60:62] = np.nan  # filled
    made["series"][:, :, :START] = np.nan
    made["target"][:, :, :START] = np.nan
    made["target"][EMPTY] = np.nan
    made["target"][0, :, 70] = np.nan
    made["auxiliary"][FEATURELESS, 1] = np.nan
    return made


def context_of(folder: Path, client, content=None, **training) -> Context:
    """A recipe and, unless it is there, its cube of samples."""
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    options = {**RECIPE, "training": {**RECIPE["training"], **training}}
    path.write_text(yaml.safe_dump({**options, "root": str(folder / "root")}))
    context = Context(load_recipe(path), client, Console(record=True, width=2000))
    if not Path(context.paths.samples).exists():
        layers = target_layers(context.recipe)
        repository = make_cube(
            context.paths.samples, samples_template(CELLS, VARIABLES, layers), N_DAYS
        )
        with committed_writer(repository) as writer:
            for name, values in (content or arrays()).items():
                writer.write(name, {"cell": slice(0, 6)}, values)
    return context


@pytest.fixture(scope="module")
def driver():
    """A worker in this process, which trains with one thread as others share its cores."""
    with pytest.MonkeyPatch.context() as patch, threads() as client:
        patch.setattr(stage, "cores", lambda: 1)
        yield client


@pytest.fixture(scope="module")
def trained(tmp_path_factory, driver) -> Context:
    context = context_of(tmp_path_factory.mktemp("trained"), driver)
    context.console.print(stage.run(context), markup=False)
    return context


@pytest.fixture
def fresh(trained, tmp_path):
    """The same samples without a model."""
    shutil.copytree(Path(trained.paths.samples), tmp_path / "root" / "cubes" / "samples")
    return tmp_path


def fate_of(content: dict[str, np.ndarray], cell: int, day: int) -> str:
    """What becomes of a cell-day, said once more in plain words."""
    series = content["series"][cell].copy()
    if cell == 0:
        series[2, 60:62] = 0.0  # a gap that is filled
    if day < START + WINDOW - 1:
        return "before_first_window"
    if np.isnan(content["auxiliary"][cell]).any():
        return "missing_features"
    if np.isnan(series[:, day - WINDOW + 1 : day + 1]).any():
        return "gap_in_forcing"
    if np.isnan(content["target"][cell, :, day]).all():
        return "no_target"
    return "sample"


def test_every_cell_day_is_a_sample_or_is_counted_with_its_reason(trained):
    content = arrays()
    metadata = read_description(trained.paths.model)["metadata"]
    for split, cells in (("train", range(4)), ("validation", [4])):
        expected = [fate_of(content, c, day) for c in cells for day in range(START, N_DAYS)]
        counts = pd.Series(expected).value_counts().to_dict()
        found = metadata["cell_days"][split]
        assert {name: count for name, count in found.items() if count} == counts
    assert metadata["training_samples"] == metadata["cell_days"]["train"]["sample"]
    assert metadata["filled_cell_days"] == 2


def test_cells_without_samples_and_constant_inputs_are_named(trained):
    printed = trained.console.export_text(clear=False)
    latitude, longitude = grid.latitudes()[268], grid.longitudes()[2170]
    empty = f"row 268 column 2170 ({latitude:.2f}, {longitude:.2f})"
    assert f"1 of 4 cells give no sample, no target on any day: {empty}" in printed
    assert "1 of 4 cells give no sample, days without all static features: row 270" in printed
    assert "constant in training, so the network ignores them: surface_pressure" in printed
    metadata = read_description(trained.paths.model)["metadata"]
    named = metadata["cells_without_samples"]
    assert [(cell["row"], cell["reason"]) for cell in named] == [
        (268, "no target on any day"),
        (269, "days with a gap of the forcing in the window"),
        (270, "days without all static features"),
    ]
    assert metadata["constant_inputs"] == ["surface_pressure", *FEATURES]  # one cell trains


def test_the_model_carries_losses_and_fingerprints_and_no_checkpoint_is_left(trained):
    folder = Path(trained.paths.model)
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "model.json",
        "model.safetensors",
    ]
    history = stage.read_history(str(folder))
    metadata = read_description(str(folder))["metadata"]
    last = history[history["split"] == "train"].iloc[-1]
    assert metadata["metrics"]["train"]["surface"] == last["surface"]
    assert metadata["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert set(metadata["data"]) == {
        f"samples.{name}"
        for name in ("series", "auxiliary", "target", "weight", "training", "validation")
    }
    assert all(torch.isfinite(x).all() for x in load_model(str(folder)).parameters())


def test_a_finished_model_is_not_trained_anew_and_what_a_killed_run_left_is_removed(
    trained, driver
):
    left = Path(trained.paths.model) / "checkpoint"
    left.mkdir()
    (left / "epoch-0003.json").write_text("{}")
    before = (Path(trained.paths.model) / "model.safetensors").stat().st_mtime_ns
    elsewhere = context_of(Path(trained.recipe.root).parent, driver, device="cpu")
    assert "already" in stage.run(elsewhere)  # another device makes no other model
    assert (Path(trained.paths.model) / "model.safetensors").stat().st_mtime_ns == before
    assert not left.exists()


def test_a_run_that_was_stopped_goes_on_and_makes_the_same_model(
    trained, fresh, driver, monkeypatch
):
    context = context_of(fresh, driver)

    def lost(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_model", lost)
        with pytest.raises(OSError, match="no space left"):
            stage.run(context)
    log = pd.read_csv(Path(context.paths.model) / "checkpoint" / "history.csv")
    assert log["epoch"].max() == 3
    other = context_of(fresh, driver, learning_rate=0.5)
    with pytest.raises(
        StageError, match=r"training\.learning_rate: 0\.001 in the checkpoint, 0\.5"
    ):
        stage.run(other)
    stage.run(context)
    assert "went on after epoch 3 of 3" in context.console.export_text()
    one, two = (read_description(c.paths.model) for c in (trained, context))
    assert one["fingerprint"] == two["fingerprint"]


def test_a_loss_that_is_not_finite_names_places_and_dates(tmp_path, driver):
    content = arrays()
    content["target"][0] *= np.float32(1e30)
    context = context_of(tmp_path, driver, content)
    with pytest.raises(StageError) as error:
        stage.run(context)
    folder = Path(context.paths.model) / "checkpoint"
    table = pd.read_csv(folder / "diverged.csv")
    assert set(table["row"]) == {267} and len(table) == 16
    first = table.iloc[0]
    place = f"row 267 column 2169 ({first.latitude:.2f}, {first.longitude:.2f})"
    for words in (
        "epoch 1, step 1",
        "no checkpoint yet",
        f"{place} on {first.last_day}",
        f"{folder}/diverged.csv",
    ):
        assert words in str(error.value)
    assert pd.Timestamp("2015-05-13") <= pd.Timestamp(first.last_day) <= pd.Timestamp("2015-06-14")
    assert not (Path(context.paths.model) / "model.json").exists()


def test_a_variable_that_is_missing_everywhere_is_named(tmp_path, driver):
    content = arrays()
    content["series"][:, 2] = np.nan
    context = context_of(tmp_path, driver, content)
    with pytest.raises(StageError) as error:
        stage.run(context)
    text = str(error.value)
    assert "no training sample" in text
    assert "Without any value in the period: rain." in text
    assert "99 with a gap of the forcing in the window" in text  # 3 cells of 33 days


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_no_worker_has_is_refused_before_anything_is_read(tmp_path, driver):
    with pytest.raises(StageError, match=r"training\.device cuda: none of 1 workers can, such as"):
        stage.run(context_of(tmp_path, driver, device="cuda"))


def test_candidates_train_when_they_are_asked_for(fresh, driver):
    context = context_of(fresh, driver, candidates=1.0)
    stage.run(context)
    found = read_description(context.paths.model)["metadata"]
    content = arrays()
    days = range(START, N_DAYS)
    expected = [fate_of(content, cell, day) for cell in (0, 1, 2, 3, 5) for day in days]
    assert found["training_cells"] == 5
    assert found["cell_days"]["train"]["sample"] == expected.count("sample")
    assert found["training_samples"] == expected.count("sample")


def test_cells_of_a_smaller_share_of_candidates_are_among_those_of_a_larger_one():
    split = np.array(["train"] * 5 + ["candidate"] * 30 + ["validation"] * 10)
    before = split == "train"
    for share in (0.0, 1 / 3, 2 / 3, 1.0):
        cells = training_cells(split, share, seed=3)
        assert cells[before].all()
        assert not cells[split == "validation"].any()
        assert np.count_nonzero(cells[split == "candidate"]) == round(30 * share)
        before = cells
