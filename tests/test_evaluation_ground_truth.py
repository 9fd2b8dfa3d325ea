"""Daily means per sensor become ground truth per cell and depth."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from station_support import SensorFile, hourly, records, series_of, write_folder

from deepprofile import grid
from deepprofile.evaluation.reference.depths import column_weights
from deepprofile.evaluation.reference.ground_truth import fixed_set, ground_truth, not_grouped
from deepprofile.evaluation.reference.series import cell_table, label_cells
from deepprofile.evaluation.stations import read_archive


def test_sensors_depths_and_stations_are_averaged_in_turn():
    n = 200
    reference = ground_truth(
        records(
            [
                {"station": "A", "depth": 0.05, "values": 0.10},
                {"station": "A", "depth": 0.0508, "values": 0.20},  # same depth: 0.15
                {"station": "A", "depth": 0.02, "values": 0.25},  # station A, 0-5 cm: 0.20
                {"station": "B", "depth": 0.05, "values": 0.40},  # cell, 0-5 cm: 0.30
                {"station": "B", "depth": 0.2032, "values": 0.33},
            ],
            n,
        )
    )
    assert sorted(reference["group"].to_numpy()) == ["0-5 cm", "20 cm"]
    surface, deep = series_of(reference, "0-5 cm"), series_of(reference, "20 cm")
    np.testing.assert_allclose(surface["soil_moisture"], 0.30, rtol=1e-6)
    assert (surface["top"].item(), surface["bottom"].item()) == (0.0, 0.05)
    assert (surface["n_stations"] == 2).all()
    assert (deep["top"].item(), deep["bottom"].item()) == (0.20, 0.20)
    assert (deep["n_stations"] == 1).all()


def test_a_replaced_sensor_continues_the_series():
    old = np.where(np.arange(200) < 120, 0.2, np.nan)
    new = np.where(np.arange(200) >= 110, 0.3, np.nan)
    reference = ground_truth(
        records(
            [
                {"station": "A", "depth": 0.2, "values": old},
                {"station": "A", "depth": 0.2, "values": new},
            ],
            200,
        )
    )
    expected = np.concatenate([np.full(110, 0.2), np.full(10, 0.25), np.full(80, 0.3)])
    np.testing.assert_allclose(reference["soil_moisture"][0], expected, rtol=1e-6)
    assert (reference["n_stations"] == 1).all()


def test_stations_of_different_cells_stay_apart():
    reference = ground_truth(
        records(
            [
                {"station": "A", "depth": 0.2, "values": 0.1},
                {"station": "B", "depth": 0.2, "values": 0.3, "place": (-98.6, 30.4)},
            ],
            200,
        )
    )
    assert sorted(np.round(reference["soil_moisture"][:, 0].to_numpy(), 3)) == [0.1, 0.3]
    assert len(cell_table(reference)) == 2


@pytest.mark.parametrize(
    ("stations", "days", "depth", "expected"),
    [
        (3, 180, 0.2, "core"),
        (2, 180, 0.2, "extra"),
        (1, 180, 0.2, "extra"),
        (3, 179, 0.2, "unqualified"),
        (3, 180, 0.1016, "unqualified"),
    ],
)
def test_cell_classes(stations, days, depth, expected):
    values = np.where(np.arange(200) < days, 0.2, np.nan)
    series = [{"station": f"S{i}", "depth": depth, "values": values} for i in range(stations)]
    table = cell_table(ground_truth(records(series, 200)))
    assert list(table["cell_class"]) == [expected]
    assert table["n_working"].item() == (stations if days >= 180 else 0)


def test_the_networks_of_a_cell_are_those_of_its_stations():
    series = [
        {"network": network, "station": f"S{i}", "depth": depth, "values": 0.2}
        for i, (network, depth) in enumerate([("USCRN", 0.2), ("SCAN", 0.05), ("USCRN", 0.2)])
    ]
    assert list(cell_table(ground_truth(records(series, 200)))["network"]) == ["SCAN, USCRN"]


def test_a_station_that_hardly_works_does_not_make_a_core_cell():
    short = np.where(np.arange(200) < 20, 0.2, np.nan)
    series = [{"station": f"S{i}", "depth": 0.2, "values": 0.2} for i in range(2)]
    series.append({"station": "S2", "depth": 0.2, "values": short})
    reference = ground_truth(records(series, 200))
    assert list(cell_table(reference)["cell_class"]) == ["extra"]
    assert list(np.unique(reference["n_stations"])) == [2, 3]  # it still counts while it works


def test_depths_outside_the_groups_are_reported_but_serve_the_column():
    series = [
        {"station": "A", "depth": z, "values": v}
        for z, v in [(0.05, 0.1), (0.35, 0.2), (0.5, 0.3), (1.2, 0.9)]
    ]
    given_records = records(series, 200)
    assert list(not_grouped(given_records)["bottom"]) == [0.35, 1.2]
    reference = ground_truth(given_records)
    assert sorted(reference["group"].to_numpy()) == ["0-100 cm", "0-5 cm", "50 cm"]
    column = series_of(reference, "0-100 cm")
    expected = column_weights([0.05, 0.35, 0.5]) @ [0.1, 0.2, 0.3]
    np.testing.assert_allclose(column["soil_moisture"], expected, rtol=1e-6)


def test_sensors_at_one_metre_are_also_compared_with_the_deepest_layer():
    reference = ground_truth(records([{"station": "A", "depth": 1.016, "values": 0.3}], 200))
    bounds = {
        group: (top, bottom)
        for group, top, bottom in zip(
            reference["group"].to_numpy(),
            reference["top"].to_numpy(),
            reference["bottom"].to_numpy(),
            strict=True,
        )
    }
    assert bounds == {"100 cm": (1.0, 1.0), "90-100 cm": (0.9, 1.0)}


def test_a_layer_reading_is_compared_over_its_layer():
    series = {"station": "A", "top": 0.0, "depth": 0.17, "values": 0.3}
    reference = ground_truth(records([series], 200))
    assert list(reference["group"].to_numpy()) == ["5-10 cm"]
    assert (reference["top"].item(), reference["bottom"].item()) == (0.0, 0.17)


def test_the_column_never_changes_its_sensors():
    n = 400
    gap = np.where(np.arange(n) % 3 == 0, np.nan, 0.2)  # a third of the days
    short = np.where(np.arange(n) < 60, 0.9, np.nan)  # would leave 60 days
    reference = ground_truth(
        records(
            [
                {"station": "A", "depth": 0.05, "values": 0.1},
                {"station": "A", "depth": 0.2, "values": gap},
                {"station": "A", "depth": 0.3, "values": short},
                {"station": "A", "depth": 0.5, "values": 0.4},
            ],
            n,
        )
    )
    column = series_of(reference, "0-100 cm")["soil_moisture"].to_numpy()[0]
    expected = column_weights([0.05, 0.2, 0.5]) @ [0.1, 0.2, 0.4]
    np.testing.assert_allclose(column[np.isfinite(column)], expected, rtol=1e-6)
    np.testing.assert_array_equal(np.isfinite(column), np.isfinite(gap))


@pytest.mark.parametrize("found", [(0.15, 0.5), (0.05, 0.4), (0.2,)])
def test_no_column_without_a_shallow_and_a_deep_sensor(found):
    series = [{"station": "A", "depth": z, "values": 0.2} for z in found]
    reference = ground_truth(records(series, 200))
    assert "0-100 cm" not in reference["group"].to_numpy()


def test_column_of_a_cell_is_the_mean_of_a_fixed_set_of_stations():
    series = [
        {"station": name, "depth": z, "values": value}
        for name, value in [("A", 0.2), ("B", 0.4)]
        for z in (0.05, 0.5)
    ]
    series[-1]["values"] = np.where(np.arange(400) < 300, 0.4, np.nan)
    reference = ground_truth(records(series, 400))
    column = series_of(reference, "0-100 cm")
    known = np.isfinite(column["soil_moisture"].to_numpy()[0])
    assert known.sum() == 300
    np.testing.assert_allclose(column["soil_moisture"].to_numpy()[0][known], 0.3, rtol=1e-6)
    np.testing.assert_array_equal(column["n_stations"][0], np.where(known, 2, 0))


@settings(deadline=None)
@given(seed=st.integers(0, 500), members=st.integers(1, 6), share=st.floats(0, 1))
def test_fixed_set_keeps_the_share_of_the_best_member(seed, members, share):
    rng = np.random.default_rng(seed)
    valid = rng.random((members, 50)) < rng.random((members, 1))
    chosen = fixed_set(valid, share)
    most = valid.sum(axis=1).max()
    if most == 0:
        assert not chosen.any()
        return
    assert chosen[np.argmax(valid.sum(axis=1))]
    assert valid[chosen].all(axis=0).sum() >= share * most


def test_labels_of_cells_reach_their_series():
    place = (-98.6, 30.4)
    reference = ground_truth(
        records(
            [
                {"station": "A", "depth": 0.2, "values": 0.1},
                {"station": "B", "depth": 0.2, "values": 0.3, "place": place},
            ],
            200,
        )
    )
    row, column = grid.cell_index(*place)
    cells = pd.DataFrame({"row": [int(row)], "column": [int(column)], "split": ["validation"]})
    labelled = label_cells(reference, cells)
    dry = labelled["soil_moisture"][:, 0].to_numpy() < 0.2
    assert list(labelled["split"].to_numpy()[dry]) == [""]
    assert list(labelled["split"].to_numpy()[~dry]) == ["validation"]
    assert set(labelled["cell_class"].to_numpy()) == {"extra"}
    with pytest.raises(ValueError, match="names a cell twice"):
        label_cells(reference, pd.concat([cells, cells]))


def test_an_archive_without_good_readings_gives_an_empty_reference(tmp_path):
    flags = ["M"] * 48
    result = read_archive(write_folder(tmp_path, [SensorFile(hourly(2), flags=flags)]))
    reference = ground_truth(result)
    assert reference.sizes["series"] == 0
    assert cell_table(reference).empty and not_grouped(result).empty


def test_each_series_says_what_it_is_compared_with():
    series = [
        {"station": "A", "depth": z, "values": 0.2, "top": top}
        for top, z in [(0.02, 0.02), (0.0, 0.17), (0.2032, 0.2032), (1.016, 1.016)]
    ]
    reference = ground_truth(records(series, 200))
    rules = dict(zip(reference["group"].to_numpy(), reference["compared"].to_numpy(), strict=True))
    assert rules == {
        "0-5 cm": "mean of 0 to 0.05 m",
        "5-10 cm": "mean of 0 to 0.17 m",
        "20 cm": "at 0.2 m",
        "100 cm": "at 1 m",
        "90-100 cm": "mean of 0.9 to 1 m",
        "0-100 cm": "mean of 0 to 1 m",
    }
    assert "estimate at that depth" in reference.attrs["comparison"]
    assert reference.attrs["min_days"] == 180


def test_the_column_says_how_much_of_it_is_observed_and_by_how_many_sensors():
    depths = {"A": [0.05, 0.05, 0.2, 0.5], "B": [0.1, 1.0], "C": [0.05, 0.2]}
    series = [{"station": s, "depth": z, "values": 0.2} for s, zs in depths.items() for z in zs]
    series.append({"station": "A", "depth": 0.2, "values": np.nan})  # never works
    reference = ground_truth(records(series, 200))
    column = series_of(reference, "0-100 cm")
    # stations A and B: 0.45 and 0.9 m of the metre; C ends too early
    assert column["observed_share"].item() == pytest.approx((0.45 + 0.9) / 2)
    assert column["n_sensors"].item() == 4 + 2
    others = reference.sel(series=(reference["group"] != "0-100 cm").to_numpy())
    assert np.isnan(others["observed_share"]).all()
    counts = dict(zip(others["group"].to_numpy(), others["n_sensors"].to_numpy(), strict=True))
    assert counts == {
        "0-5 cm": 3,
        "5-10 cm": 1,
        "20 cm": 2,
        "50 cm": 1,
        "100 cm": 1,
        "90-100 cm": 1,
    }


def test_a_sensor_outside_the_fixed_set_is_not_counted_as_observing():
    short = np.where(np.arange(400) < 60, 0.9, np.nan)
    series = [{"station": "A", "depth": z, "values": 0.2} for z in (0.05, 0.5)]
    series.append({"station": "A", "depth": 1.0, "values": short})
    column = series_of(ground_truth(records(series, 400)), "0-100 cm")
    assert column["observed_share"].item() == pytest.approx(0.45)
    assert column["n_sensors"].item() == 2
