"""Nothing of a validation cell reaches the network: not its place, not its values, not its weights.

Each test changes what only validation may see. That the weights of validation cells reach no other
cell is tested in test_sample_stage.py.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fault_support import threads
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train_stage import CELLS, WINDOW, arrays
from test_train_stage import context_of as training_context

from deepprofile import grid
from deepprofile.model.samples import Samples
from deepprofile.recipe import Split
from deepprofile.stages import train
from deepprofile.stages.cells import select_cells
from deepprofile.stages.training_material import read_material, training_cells

ROWS, COLUMNS, TOP = 12, grid.N_COLUMNS, 800
"""A band around the globe: its first and last column are neighbours."""


@pytest.fixture(scope="module")
def driver():
    with threads() as client:
        yield client


def touches(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two cells are the same or touch, on a globe that is closed in longitude."""
    across = abs(one[1] - other[1])
    return abs(one[0] - other[0]) <= 1 and min(across, COLUMNS - across) <= 1


def chosen(stations: pd.DataFrame, complete: np.ndarray, left: int = 0, **options) -> pd.DataFrame:
    wanted = {"other_cells": 150, "other_outside": None, "split": Split(), "seed": 2, **options}
    return select_cells(stations, complete, (TOP, left), **wanted)


def places(cells: pd.DataFrame) -> list[tuple[int, int]]:
    return list(zip(cells["row"].tolist(), cells["column"].tolist(), strict=True))


# Columns near the date line as often as elsewhere, and dense enough that cells touch.
near_the_date_line = st.sampled_from(
    [0, 1, 2, 3, COLUMNS - 3, COLUMNS - 2, COLUMNS - 1, 1000, 1001]
)
layouts = st.dictionaries(
    st.tuples(st.integers(TOP - 1, TOP + ROWS), near_the_date_line),
    st.sampled_from(["core", "extra", "unqualified"]),
    max_size=25,
)


@settings(max_examples=30)
@given(layout=layouts, seed=st.integers(0, 2**16), train=st.floats(0.05, 0.6))
def test_no_cell_that_may_train_is_or_touches_a_core_cell(layout, seed, train):
    known = [(row, column, kind) for (row, column), kind in layout.items()]
    stations = pd.DataFrame(known, columns=["row", "column", "cell_class"]).astype(
        {"row": int, "column": int}
    )
    complete = np.random.default_rng(seed).random((ROWS, COLUMNS)) < 0.7
    complete[:, 5 : COLUMNS - 5] &= np.random.default_rng(seed).random(ROWS)[:, None] < 0.01
    core = [place for place, kind in layout.items() if kind == "core"]
    split = Split(train=train, candidate=0.3)
    cells = chosen(stations, complete, split=split, seed=seed)
    free = cells[cells["cell_class"] != "core"]
    used = free[free["split"].isin(["train", "candidate"])]
    assert not any(touches(place, other) for place in places(used) for other in core)
    assert set(cells.loc[cells["cell_class"] == "core", "split"]) <= {"validation"}
    # The shares are those of all free cells, as long as there are enough that may train.
    possible = sum(not any(touches(place, other) for other in core) for place in places(free))
    n_train = min(round(train * len(free)), possible)
    assert (free["split"] == "train").sum() == n_train
    n_candidates = min(round(0.3 * len(free)), possible - n_train)
    assert (free["split"] == "candidate").sum() == n_candidates
    # The rule changes who trains, not who is drawn; and the order in which they are taken stays.
    allowed = chosen(stations, complete, split=split, seed=seed, allow_core_neighbours=True)
    assert places(allowed) == places(cells)
    trained = {
        place
        for place in places(allowed[allowed["split"] == "train"])
        if not any(touches(place, other) for other in core)
    }
    assert trained <= set(places(free[free["split"] == "train"]))
    if not core:
        pd.testing.assert_frame_equal(allowed, cells)


@pytest.mark.parametrize("column", [0, 700, COLUMNS - 1])
def test_neighbours_of_a_core_cell_train_only_where_that_is_allowed(column):
    complete = np.zeros((ROWS, COLUMNS), bool)
    around = np.arange(column - 1, column + 2) % COLUMNS
    complete[4:7, around] = True
    core = pd.DataFrame({"row": [TOP + 5], "column": [column], "cell_class": ["core"]})
    found, allowed = (
        chosen(core, complete, allow_core_neighbours=allow)["split"].value_counts().to_dict()
        for allow in (False, True)
    )
    assert found == {"validation": 9}
    assert allowed == {"train": 4, "candidate": 2, "validation": 3}


def test_a_core_cell_outside_the_region_keeps_its_neighbours_from_training_too():
    complete = np.ones((3, 1), bool)
    core = pd.DataFrame({"row": [TOP + 1], "column": [99], "cell_class": ["core"]})
    assert (chosen(core, complete, left=100)["split"] == "validation").all()
    assert (chosen(core, complete, left=101)["split"] == "train").sum() == 2


def disturbed(content: dict[str, np.ndarray], cells: np.ndarray) -> dict[str, np.ndarray]:
    """The same with wild values in some cells."""
    wild = {name: values.copy() for name, values in content.items()}
    for name, factor in (("series", -900), ("auxiliary", 5000), ("target", 40), ("weight", 30)):
        wild[name][cells] = wild[name][cells] * np.float32(factor) + np.float32(factor)
    wild["weight"] = np.abs(wild["weight"])
    return wild


def test_values_of_validation_cells_change_nothing_of_the_model(tmp_path, driver, monkeypatch):
    monkeypatch.setattr(train, "cores", lambda: 1)
    calm = arrays()
    split = CELLS["split"]
    wild = disturbed(calm, split != "train")  # candidates don't train here either
    models, losses, limits = [], [], []
    for name, content in (("calm", calm), ("wild", wild)):
        context = training_context(tmp_path / name, driver, content, epochs=1)
        train.run(context)
        folder = Path(context.paths.model)
        models.append((folder / "model.safetensors").read_bytes())
        losses.append(train.read_history(str(folder)).drop(columns="steps_per_second"))
        limits.append(context.console.export_text().count("constant in training"))
    assert models[0] == models[1]  # parameters, limits, batch-norm statistics: the same bits
    assert limits == [1, 1]
    of_training, of_validation = (
        [table[(table["split"] == "train") == mine].reset_index(drop=True) for table in losses]
        for mine in (True, False)
    )
    pd.testing.assert_frame_equal(*of_training)
    assert not np.allclose(of_validation[0]["total"], of_validation[1]["total"])


def test_limits_and_the_start_of_the_heads_are_those_of_the_training_cells(tmp_path, driver):
    wild = disturbed(arrays(), CELLS["split"] != "train")
    context = training_context(tmp_path, driver, wild)
    material = read_material(context.recipe, context.paths.samples)
    samples, index = material.samples, material.index
    assert set(CELLS["split"][np.unique(index[:, 0])]) == {"train"}
    alone = Samples.from_arrays(*(values[CELLS["split"] == "train"] for values in wild.values()), 2)
    alone_index = alone.sample_index(WINDOW)
    for found, expected in zip(
        samples.limits(index, WINDOW), alone.limits(alone_index, WINDOW), strict=True
    ):
        assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
    assert samples.mean_target(index) == alone.mean_target(alone_index)


@settings(max_examples=15)
@given(n=st.integers(1, 150), train_share=st.floats(0, 0.6), seed=st.integers(0, 99))
def test_splits_are_disjoint_and_have_their_shares(n, train_share, seed):
    complete = np.zeros((ROWS, COLUMNS), bool)
    complete.reshape(-1)[np.random.default_rng(seed).permutation(complete.size)[:n]] = True
    none = pd.DataFrame({"row": [], "column": [], "cell_class": []}).astype(
        {"row": int, "column": int}
    )
    cells = chosen(none, complete, split=Split(train=train_share, candidate=0.3), seed=seed)
    assert len(set(places(cells))) == len(cells) == n
    counts = cells["split"].value_counts()
    assert counts.get("train", 0) == round(train_share * n)
    assert counts.get("candidate", 0) == round(0.3 * n)
    split = cells["split"].to_numpy()
    for share in (0.0, 0.5, 1.0):
        trains = training_cells(split, share, seed)
        assert not (trains & (split == "validation")).any()
