"""Estimates taken from a reference, means of unlike estimates, and tables of estimates."""

import numpy as np
import pandas as pd
import pytest

from deepprofile import grid
from deepprofile.evaluation.estimates.base import LayerEstimate, cell_keys
from deepprofile.evaluation.estimates.climatology import Climatology
from deepprofile.evaluation.estimates.neighbour import NeighbourEstimate
from deepprofile.evaluation.estimates.restricted import Restricted, mean_of
from deepprofile.evaluation.estimates.sensor import SensorEstimate
from deepprofile.evaluation.estimates.table import read_table_estimate
from deepprofile.evaluation.estimates.table_rows import TableError
from deepprofile.evaluation.reference.depths import compared_bounds, depth_group
from deepprofile.evaluation.reference.series import build_reference

TIME = np.datetime64("2019-01-01") + np.arange(6)
LATITUDES, LONGITUDES = grid.latitudes(), grid.longitudes()


def reference_of(series, n_days=6):
    """A reference from (row, column, top, bottom, level); a value is level + day / 100."""
    table = pd.DataFrame(series, columns=["row", "column", "top", "bottom", "level"])
    table["group"] = [
        depth_group(*pair) for pair in zip(table["top"], table["bottom"], strict=True)
    ]
    values = table["level"].to_numpy()[:, None] + np.arange(n_days) / 100
    made = values.astype(np.float32)
    return build_reference(TIME[:n_days], table, made, np.ones(made.shape, "u2"))


def days(level):
    return level + np.arange(6) / 100


def layered(name, layers, level, cells=((10, 5), (10, 6)), time=TIME):
    row, column = np.array(cells).T
    values = np.full((len(cells), len(time), len(layers)), level, np.float32)
    return LayerEstimate(name, row, column, time, layers, values)


def haversine(one, other):
    (y1, x1), (y2, x2) = (
        (np.radians(LATITUDES[row]), np.radians(LONGITUDES[column])) for row, column in (one, other)
    )
    part = np.sin((y2 - y1) / 2) ** 2 + np.cos(y1) * np.cos(y2) * np.sin((x2 - x1) / 2) ** 2
    return 2 * 6371.0088 * np.arcsin(np.sqrt(part))


def test_a_reading_answers_for_every_depth_but_its_own():
    reference = reference_of(
        [
            (10, 5, 0.1, 0.1, 0.1),
            (10, 5, 0.5, 0.5, 0.5),
            (10, 6, 0.5, 0.5, 0.4),
            (9, 7, 0.1, 0.1, 0.3),
        ]
    )
    sensor = SensorEstimate.of(reference)
    assert list(zip(sensor.row, sensor.column, strict=True)) == [(9, 7), (10, 5)]
    for request in ((0.5, 0.5), (0.0, 0.05), (0.0, 1.0), (1.0, 1.0)):
        assert sensor.covers(*request)
        found = sensor.values(np.array([1, 0]), *request)
        np.testing.assert_allclose(found, [days(0.1), days(0.3)], atol=1e-7)
    assert not sensor.covers(0.1, 0.1)
    with pytest.raises(ValueError, match="never answers for those"):
        sensor.values(np.array([0]), 0.1, 0.1)
    assert sensor.answered_by(0.5, 0.5) == "reading at 0.1 m"


def test_a_reading_at_one_metre_is_also_that_of_the_deepest_layer():
    reference = reference_of([(10, 5, 1.0, 1.0, 0.3), (10, 5, 0.0, 0.05, 0.2)])
    deep, surface = SensorEstimate.of(reference, 1.0), SensorEstimate.of(reference, 0.03)
    assert not deep.covers(1.0, 1.0) and not deep.covers(0.9, 1.0) and deep.covers(0.0, 0.05)
    assert surface.bounds == compared_bounds("0-5 cm", 0.03, 0.03) == (0.0, 0.05)
    assert not surface.covers(0.0, 0.05) and surface.covers(0.9, 1.0)


def test_a_depth_without_readings_covers_nothing_and_one_of_no_group_is_refused():
    reference = reference_of([(10, 5, 0.5, 0.5, 0.5)])
    assert not SensorEstimate.of(reference, 0.1).covers(0.5, 0.5)
    with pytest.raises(ValueError, match=r"depth 0\.35 m .* no depth group"):
        SensorEstimate.of(reference, 0.35)


def test_the_neighbour_is_the_nearest_other_cell_that_has_the_depth():
    rng = np.random.default_rng(3)
    cells = np.unique(rng.integers([200, 700], [260, 800], size=(60, 2)), axis=0)
    deep = rng.random(len(cells)) < 0.4
    series = [(*cell, 0.1, 0.1, i / 100) for i, cell in enumerate(cells.tolist())]
    series += [(*cells[i].tolist(), 0.5, 0.5, i / 100) for i in np.flatnonzero(deep)]
    neighbour = NeighbourEstimate.of(reference_of(series))
    at = np.arange(len(cells))
    for depth, has in ((0.1, np.ones(len(cells), bool)), (0.5, deep)):
        keys, distance = neighbour.neighbours(at, depth, depth)
        values = neighbour.values(at, depth, depth)
        for i, cell in enumerate(cells):
            others = [j for j in np.flatnonzero(has) if j != i]
            lengths = [haversine(cell, cells[j]) for j in others]
            best = others[int(np.argmin(lengths))]
            assert distance[i] == pytest.approx(min(lengths), abs=1e-5)
            assert haversine(cell, np.divmod(keys[i], grid.N_COLUMNS)) < min(lengths) + 1e-5
            if np.sum(np.isclose(lengths, min(lengths), atol=1e-5)) == 1:
                np.testing.assert_allclose(values[i], days(best / 100), atol=1e-6)


def test_of_cells_at_one_distance_the_first_by_row_and_column_counts():
    """West and east of a cell lie equally far."""
    series = [(300, c, 0.1, 0.1, c / 1000) for c in (799, 800, 801)]
    neighbour = NeighbourEstimate.of(reference_of(series[::-1]))
    assert neighbour.neighbours(np.array([1]), 0.1, 0.1)[0] == cell_keys(300, 799)
    found = neighbour.values(np.arange(3), 0.1, 0.1)[:, 0]
    np.testing.assert_allclose(found, [0.8, 0.799, 0.8], atol=1e-6)


def test_neighbours_too_far_or_missing_are_none():
    reference = reference_of(
        [(300, 800, 0.1, 0.1, 0.1), (300, 801, 0.1, 0.1, 0.2), (300, 900, 0.1, 0.1, 0.3)]
    )
    near = NeighbourEstimate.of(reference, 20.0)
    found = near.values(np.arange(3), 0.1, 0.1)
    np.testing.assert_allclose(found[:2, 0], [0.2, 0.1], atol=1e-6)
    assert np.isnan(found[2]).all() and near.neighbours(np.array([2]), 0.1, 0.1)[0] == -1
    assert "no other cell within 20 km has this depth" in near.absence
    assert not NeighbourEstimate.of(reference, 1.0).covers(0.1, 0.1)
    alone = NeighbourEstimate.of(reference_of([(300, 800, 0.1, 0.1, 0.1)]))
    assert not alone.covers(0.1, 0.1) and not alone.covers(0.5, 0.5)
    with pytest.raises(ValueError, match="no cell of the reference has a neighbour"):
        alone.values(np.array([0]), 0.1, 0.1)


def test_two_series_of_equal_bounds_are_averaged():
    """The column's mean and a probe of 0 to 1 m are compared over the same layer."""
    reference = reference_of([(10, 5, 0.0, 1.0, 0.1), (10, 5, 0.0, 1.0, 0.3), (10, 6, 0, 1, 0.7)])
    found = NeighbourEstimate.of(reference).values(np.array([1]), 0.0, 1.0)
    np.testing.assert_allclose(found[0], days(0.2), atol=1e-6)
    assert Climatology.of(reference).covers(0.0, 1.0)


def test_a_mean_is_made_of_what_its_members_share():
    one = layered("one", [(0.0, 1.0)], 0.2, [(10, 5), (10, 6), (11, 5)])
    other = layered("other", [(0.0, 0.5), (0.5, 1.0)], 0.4, [(11, 5), (10, 6)], TIME[2:])
    mean = mean_of("mean", [one, other])
    assert mean.keys.tolist() == cell_keys([10, 11], [6, 5]).tolist()
    np.testing.assert_array_equal(mean.days, other.days)
    np.testing.assert_allclose(mean.values(np.array([0, 1]), 0.0, 1.0), 0.3, atol=1e-7)
    shallow = layered("shallow", [(0.0, 0.1)], 0.3)
    assert mean.covers(0.8, 0.8) and not mean_of("m", [one, shallow]).covers(0.8, 0.8)
    with pytest.raises(ValueError, match="lacks some of the cells or days"):
        Restricted("part", one.row, one.column, one.time, other)


def table_of(**changes):
    """Two cells, two days; 0-10 and 10-40 cm, and a value at 20 cm."""
    bounds = [(0.0, 0.1), (0.1, 0.4), (0.2, 0.2)]
    rows = [
        (-98.8 + 0.5 * cell, 30.4, f"2019-01-0{day}", top, bottom, 0.1 * (1 + cell) + bottom)
        for cell in range(2)
        for day in (1, 2)
        for top, bottom in bounds
    ]
    names = ["longitude", "latitude", "time", "top", "bottom", "soil_moisture"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(**changes)


def written(folder, frame, name="table.csv"):
    path = folder / name
    frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
    return path


def test_a_table_answers_with_its_layers_and_depths(tmp_path):
    frame = table_of()
    row, column = grid.cell_index(frame["longitude"], frame["latitude"])
    cells = frame.assign(row=row, column=column, time=pd.to_datetime(frame["time"], utc=True))
    cells = cells.drop(columns=["longitude", "latitude"]).sample(frac=1, random_state=1)
    by_place, _ = read_table_estimate(written(tmp_path, frame), "t")
    by_cell, notes = read_table_estimate(written(tmp_path, cells, "t.parquet"), "t")
    assert notes == []
    for made in (by_place, by_cell):
        assert made.days.tolist() == [17897, 17898] and len(made.row) == 2
        both = np.arange(2)
        expected = {
            (0.2, 0.2): 0.2,  # the value at the depth, not the layer that holds it
            (0.3, 0.3): 0.4,
            (0.05, 0.05): 0.1,
            (0.0, 0.1): 0.1,
            (0.0, 0.4): 0.25 * 0.1 + 0.75 * 0.4,
        }
        for request, value in expected.items():
            assert made.covers(*request)
            found = made.values(both, *request)
            np.testing.assert_allclose(found, np.array([[0.1] * 2, [0.2] * 2]) + value, atol=1e-6)
        assert not made.covers(0.5, 0.5) and not made.covers(0.0, 1.0)
        assert made.answered_by(0.2, 0.2) == "at 0.2 m"
        assert made.answered_by(0.3, 0.3) == "10-40 cm"


def test_a_table_gives_the_cells_asked_for_and_names_layers_below_one_metre(tmp_path):
    frame = table_of()
    deep = frame[frame["top"] == 0.1].assign(top=0.7, bottom=1.5)
    gap = frame.iloc[[0]].assign(time="2019-01-05T13:00-06:00", soil_moisture=np.nan)
    path = written(tmp_path, pd.concat([frame, deep, gap]))
    wanted = cell_keys(*grid.cell_index([-98.8, 0.0], [30.4, 0.0]))
    made, notes = read_table_estimate(path, "t", wanted)
    assert made.keys.tolist() == [wanted[0]]
    assert made.layers == [(0.0, 0.1), (0.1, 0.4)] and made.depths == [0.2]
    assert len(notes) == 1 and "reach below 1 m are not used: 0.7 to 1.5 m" in notes[0]
    assert made.days.tolist() == [17897, 17898, 17901]
    assert np.isnan(made.values(np.array([0]), 0.0, 0.1)[0, 2])
    none, _ = read_table_estimate(path, "t", wanted[1:])
    assert not none.keys.size and none.covers(0.0, 0.4) and none.days.size == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"soil_moisture": 23.0}, "median of soil_moisture is 23: .* percent"),
        (
            {"bottom": 20.0},
            r"metres, at most 3, as bottom \(they look like centimetres.* row 1: 20",
        ),
        ({"top": 0.3}, "expected 0 <= top <= bottom; found row 1: 0.3"),
        ({"latitude": 89.0}, r"where the grid ends; found row 1: \(-98.8, 89.0\)"),
        ({"longitude": np.nan}, "expected a number as longitude; found row 1: nan.* 7 more"),
        ({"longitude": 30.4, "latitude": -98.8}, "latitude within 85.04"),
        ({"time": "yesterday"}, "expected a time as ISO 8601; found row 1: yesterday"),
        ({"soil_moisture": "wet"}, "expected a number as soil_moisture; found row 1: wet"),
        ({"time": "2019-01-01"}, r"6 rows give a cell, day and layer that another row gives"),
        ({"row": 5000, "column": 3}, r"rows from 0 to 1623.* found row 1: \(5000.0, 3.0\)"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, changes, words):
    with pytest.raises(TableError, match=words):
        read_table_estimate(written(tmp_path, table_of(**changes)), "t")


def test_what_is_no_table_is_named(tmp_path):
    with pytest.raises(TableError, match=r"lacks time, row and column \(or longitude"):
        read_table_estimate(written(tmp_path, table_of()[["top", "bottom", "soil_moisture"]]), "t")
    with pytest.raises(TableError, match="has no rows"):
        read_table_estimate(written(tmp_path, table_of().iloc[:0]), "t")
    with pytest.raises(TableError, match=r"expected a file \*\.csv or \*\.parquet"):
        read_table_estimate(tmp_path / "table.nc", "t")
    with pytest.raises(FileNotFoundError, match="no such table"):
        read_table_estimate(tmp_path / "none.csv", "t")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(TableError, match="can't be read as Parquet"):
        read_table_estimate(tmp_path / "bad.parquet", "t")
