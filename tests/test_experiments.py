"""Experiments: what a file may say, what runs leave, and what their comparison says."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fault_support import threads
from test_train_stage import CELLS, N_DAYS, WINDOW, arrays, context_of

from deepprofile.documents import RecipeError
from deepprofile.evaluation.figures.style import image
from deepprofile.evaluation.reference.series import build_reference
from deepprofile.experiments import work
from deepprofile.experiments.definition import load_experiment
from deepprofile.experiments.figures import FIGURES
from deepprofile.experiments.measure import held_out_coefficients, skill, spread
from deepprofile.experiments.results import TERMS, Results, findings, gather
from deepprofile.experiments.run import compare_runs
from deepprofile.model.io import load_model
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import predict_windows
from deepprofile.profile import depth_matrix, layer_matrix
from deepprofile.stages import train
from deepprofile.stages.context import FailedJobsError
from deepprofile.store import open_cube

EXPERIMENTS = Path(__file__).parent.parent / "pipelines" / "experiments"
SMOOTHNESS = {
    "name": "small",
    "recipe": "recipe.yaml",
    "figure": "smoothness",
    "training": {"epochs": 2},
    "vary": {"smoothness": [0.0, 2e-4], "n_coefficients": [4, 7]},
    "also": [{"smoothness": 0.0, "n_coefficients": 7, "small_heads": False}],
}


@pytest.fixture(scope="module")
def driver():
    with threads() as client:
        yield client


def written(folder: Path, **changes) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**SMOOTHNESS, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, driver):
    folder = tmp_path_factory.mktemp("experiment")
    context = context_of(folder, driver)
    experiment = load_experiment(written(folder))
    return experiment, context, compare_runs(experiment, context)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.name)
def test_committed_experiments_are_valid(path):
    experiment = load_experiment(path)
    values = {"training_size": "candidates", "smoothness": "smoothness"}
    varied = values[experiment.definition.figure]
    found = {getattr(run.recipe.training, varied) for run in experiment.runs}
    assert {"candidates": 1.0, "smoothness": 2e-4}[varied] in found
    assert 0.0 in found


def test_runs_are_all_combinations_and_the_further_ones(tmp_path, driver):
    context_of(tmp_path, driver)
    runs = load_experiment(written(tmp_path)).runs
    found = [
        (t.smoothness, t.n_coefficients, t.small_heads) for t in (r.recipe.training for r in runs)
    ]
    assert found == [
        (0.0, 4, True),
        (0.0, 7, True),
        (2e-4, 4, True),
        (2e-4, 7, True),
        (0.0, 7, False),
    ]
    assert all(run.recipe.training.epochs == 2 for run in runs)
    assert len({run.folder for run in runs}) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"vary": {"smoothnes": [0.0]}},
            "smoothnes: only these keys of the recipe's section training",
        ),
        ({"vary": {"seed": [1, 2]}}, "figure smoothness needs several values of smoothness"),
        ({"training": {"smoothness": 0.1}}, "stand under training and under vary"),
        ({"also": [{"smoothness": 0.0, "n_coefficients": 4}]}, "stands twice"),
        ({"vary": {"smoothness": [-1.0]}}, "run smoothness--1.0: smoothness: .* found -1.0"),
        ({"training": {"device": "cuda"}}, "device: only these keys of the recipe's section"),
        ({"name": "../elsewhere"}, "name"),
        ({"figure": "pie"}, "figure: found 'pie'"),
        ({"colour": "red"}, "colour: unknown key. Allowed here: also, figure, name"),
        ({"recipe": "other.yaml"}, "other.yaml: can't be read"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, driver, changes, words):
    context_of(tmp_path, driver)
    with pytest.raises(RecipeError, match=words):
        load_experiment(written(tmp_path, **changes))


def test_every_run_leaves_its_model_and_results(done):
    experiment, context, figure = done
    samples = open_cube(context.paths.samples, chunks=None)
    for run in experiment.runs:
        model = load_model(f"{run.folder}/model")
        assert model.config.n_coefficients == run.settings["n_coefficients"]
        _, coefficients = held_out_coefficients(model, samples, 2)
        expected = spread(coefficients)
        found = pd.read_csv(f"{run.folder}/coefficients.csv")
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert Path(figure).read_bytes()[:4] == b"\x89PNG"
    runs = pd.read_csv(f"{experiment.folder}/runs.csv")
    assert runs["training_cells"].tolist() == [4] * 5
    history = pd.read_csv(f"{experiment.runs[1].folder}/model/history.csv")
    assert runs["root"][1] == history["root"].iloc[-1]
    assert (pd.read_csv(f"{experiment.folder}/losses.csv").groupby("run").size() == 5).all()


def test_a_run_that_is_done_is_not_done_again_and_a_lost_result_is_made_again(done):
    experiment, context, _ = done
    models = [Path(f"{run.folder}/model/model.json") for run in experiment.runs]
    before = [model.stat().st_mtime_ns for model in models]
    lost = Path(f"{experiment.runs[2].folder}/{work.RESULT}")
    content = lost.read_bytes()
    lost.unlink()
    compare_runs(experiment, context)
    text = context.console.export_text()
    assert "1 of 5 runs to do, 4 done" in text
    assert lost.read_bytes() == content
    assert [model.stat().st_mtime_ns for model in models] == before


def test_a_run_that_fails_is_named_and_stops_no_other(tmp_path, driver):
    context = context_of(tmp_path, driver)
    experiment = load_experiment(
        written(tmp_path, vary={"smoothness": [0.0, 1e-4], "learning_rate": [1e-3, 1e30]}, also=[])
    )
    with pytest.raises(FailedJobsError, match="of 4 runs failed") as error:
        compare_runs(experiment, context)
    text = context.console.export_text()
    assert "failed smoothness-0.0_learning_rate-1e+30: StageError" in text
    assert "not finite" in text
    runs = pd.read_csv(f"{experiment.folder}/runs.csv")
    assert runs["run"].tolist() == [
        f"smoothness-{value}_learning_rate-0.001" for value in (0.0, 0.0001)
    ]
    assert "figure.png" in str(error.value)


def test_coefficients_of_held_out_cells_are_those_of_the_network_window_by_window(done):
    experiment, context, _ = done
    model = load_model(f"{experiment.runs[0].folder}/model")
    samples = open_cube(context.paths.samples, chunks=None)
    held, found = held_out_coefficients(model, samples, 2)
    assert held.tolist() == np.flatnonzero(CELLS["split"] == "validation").tolist()
    content = arrays()
    expected = predict_windows(model, content["series"][held], content["auxiliary"][held])
    assert found.shape == (1, N_DAYS - WINDOW + 1, 4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_skill_is_that_of_the_profiles_at_each_depth(done):
    _, context, _ = done
    samples = open_cube(context.paths.samples, chunks=None)
    rng = np.random.default_rng(0)
    held = np.array([1, 4])
    coefficients = rng.normal(0.0, 0.1, (2, 30, 4)).astype(np.float32)
    time = samples["time"].values[-30:]
    table = pd.DataFrame(
        {
            "row": CELLS["row"][[4, 1]],
            "column": CELLS["column"][[4, 1]],
            "group": ["20 cm", "0-5 cm"],
            "top": [0.2, 0.0],
            "bottom": [0.2, 0.05],
        }
    )
    truth = rng.normal(0.2, 0.1, (2, 30)).astype(np.float32)
    reference = build_reference(time, table, truth, np.ones((2, 30), np.uint16))
    found = skill(samples, held, coefficients, {"stations": reference}, 10).set_index("group")
    estimates = {
        "20 cm": coefficients[1] @ depth_matrix(0.2, 4)[:, 0],
        "0-5 cm": coefficients[0] @ layer_matrix([(0.0, 0.05)], 4)[:, 0],
    }
    for position, (group, estimate) in enumerate(estimates.items()):
        line = found.loc[group]
        assert line["r"] == pytest.approx(np.corrcoef(estimate, truth[position])[0, 1], abs=1e-6)
        assert line["bias"] == pytest.approx(np.mean(estimate - truth[position]), abs=1e-6)
        assert line["n"] == 30


def test_the_spread_leaves_out_days_without_a_profile():
    coefficients = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    coefficients[0, 1, 2] = np.nan
    table = spread(coefficients)
    kept = np.delete(coefficients.reshape(8, 3), 1, axis=0)
    np.testing.assert_allclose(table["rms"], np.sqrt((kept**2).mean(0)))
    np.testing.assert_allclose(table["q50"], np.median(kept, axis=0))
    np.testing.assert_allclose(table["q05"], np.quantile(kept, 0.05, axis=0))
    assert spread(np.full((1, 2, 3), np.nan, np.float32))["rms"].isna().all()


def test_findings_say_what_the_tables_hold(done):
    experiment, _, _ = done
    results = gather(experiment.runs)
    lines = findings("smoothness", results)
    runs = results.runs.set_index("run")
    ratio = runs["root"]["smoothness-0.0002_n_coefficients-7"]
    ratio /= runs["root"]["smoothness-0.0_n_coefficients-7"]
    (line,) = [line for line in lines if line.startswith("n = 7, λ = 0.0002 against 0")]
    assert f"L_root {ratio - 1:+.1%}" in line
    table = results.coefficients[results.coefficients["degree"] >= 5]
    by_run = table.groupby("run")["rms"].apply(lambda rms: np.sqrt(np.mean(rms**2)))
    both = by_run[["smoothness-0.0_n_coefficients-7", "smoothness-0.0002_n_coefficients-7"]]
    assert f"{both.iloc[0]:.3g} to {both.iloc[1]:.3g}" in line
    assert any("from small heads" in line and "PyTorch" in line for line in lines)
    assert (Path(experiment.folder) / "findings.txt").read_text().splitlines() == lines


def test_torch_keeps_its_threads_after_a_run(done):
    assert torch.get_num_threads() >= 1
    experiment, _, _ = done
    described = json.loads(Path(f"{experiment.runs[0].folder}/model/model.json").read_text())
    assert described["metadata"]["recipe"]["training"]["smoothness"] == 0.0
    assert described["metadata"]["inputs"] == train.trained_on(f"{experiment.runs[0].folder}/model")
    assert isinstance(load_model(f"{experiment.runs[0].folder}/model"), DeepProfile)


def made_up(lines: list[dict], n: int = 4) -> Results:
    """Results of runs with some settings and losses; all else is 0, and n degrees."""
    runs, coefficients, skills, losses = [], [], [], []
    for number, line in enumerate(lines):
        settings = {"candidates": 0.0, "n_coefficients": n, "small_heads": True, "seed": 1}
        own = {"run": f"run {number}", **settings, "lambda": 0.0, **line}
        labels = {key: own[key] for key in ("run", *settings, "lambda")}
        terms = dict.fromkeys(TERMS, 1.0) | {"training_cells": 10, "training_samples": 1}
        runs.append(terms | own)
        for degree in range(own["n_coefficients"]):
            quantiles = {f"q{q:02d}": 0.1 * degree for q in (1, 5, 25, 50, 75, 95, 99)}
            coefficients.append({**labels, "degree": degree, "rms": own["total"], **quantiles})
        change = 100 * own["lambda"]
        losses += [
            {**labels, "epoch": epoch, "split": split, "total": 1 / epoch}
            for epoch in range(1, 11)
            for split in ("train", "validation")
        ]
        skills += [
            {**labels, "reference": "truth", "group": group, "n_cells": 3, "r": r}
            for group, r in (("20 cm", 0.5 - change), ("100 cm", 0.5 + change))
        ]
    return Results(*(pd.DataFrame(part) for part in (runs, losses, coefficients, skills)))


def test_what_the_number_of_cells_does_is_told_beside_what_chance_does():
    runs = [
        {"training_cells": cells, "seed": seed, "total": total}
        for cells, seed, total in ((10, 1, 0.4), (10, 2, 0.6), (20, 1, 0.2), (20, 2, 0.4))
    ]
    results = made_up(runs)
    first, second, _ = findings("training_size", results)
    assert "0.50000 with 10, 0.30000 with 20 (-40.0% from first to last)" in first
    assert f"{np.std([0.4, 0.6], ddof=1):.5f}" in second
    alone = findings("training_size", made_up(runs[::2]))
    assert not any("nan" in line or "seed" in line for line in alone)
    assert image(FIGURES["training_size"](results), "png")


def test_what_smoothness_does_is_told_for_the_papers_number_of_coefficients():
    runs = [
        {"n_coefficients": n, "lambda": value, "total": 1.0 + value}
        for n in (4, 10, 12)
        for value in (0.0, 2e-4)
    ]
    runs.append({"n_coefficients": 10, "small_heads": False, "total": 3.0})
    results = made_up(runs)
    lines = findings("smoothness", results)
    assert not any("nan" in line for line in lines)
    assert any(
        line.startswith("n = 10, λ = 0: size of β_i for i ≥ 5 1 from small") for line in lines
    )
    (line,) = [line for line in lines if "highest median R" in line]
    assert line.startswith("n = 10: against truth")
    assert "20 cm 0 (0.500; lowest 0.480), 100 cm 0.0002 (0.520; lowest 0.500)" in line
    figure = FIGURES["smoothness"](results)
    texts = [text.get_text() for axes in figure.axes for text in axes.get_xticklabels()]
    assert {"0", "0\nPyTorch\nheads", "2·10⁻⁴"} <= set(texts)
    assert image(figure, "png")
