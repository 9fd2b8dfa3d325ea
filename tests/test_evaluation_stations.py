"""Station archives become daily ground truth per cell and depth; bad files are reported."""

import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile import grid
from deepprofile.evaluation.depths import column_weights
from deepprofile.evaluation.ground_truth import fixed_set, ground_truth, not_grouped
from deepprofile.evaluation.reference import cell_table, label_cells
from deepprofile.evaluation.stations import StationRecords, daily_means, read_archive

LONGITUDE, LATITUDE = -98.8, 30.4


@dataclass
class SensorFile:
    """One sensor of a made-up archive; readings are (value, flag) by hour."""

    values: np.ndarray
    station: str = "A"
    depth: float = 0.05
    bottom: float | None = None
    instrument: str = "Probe"
    flags: list[str] | None = None
    start: str = "2019-01-01"
    longitude: float = LONGITUDE
    latitude: float = LATITUDE
    step: str = "h"
    variable: str = "sm"
    ceop: bool = False

    @property
    def name(self) -> str:
        bottom = self.depth if self.bottom is None else self.bottom
        depths = f"{self.depth:.6f}_{bottom:.6f}"
        ending = f"{self.variable}_{depths}_{self.instrument}_20190101_20200101.stm"
        return f"NET/{self.station}/NET_NET_{self.station}_{ending}"

    @property
    def text(self) -> str:
        bottom = self.depth if self.bottom is None else self.bottom
        head = (
            f"NET NET {self.station} {self.latitude:.5f} {self.longitude:.5f} 100.00 "
            f"{self.depth:.4f} {bottom:.4f}"
        )
        times = pd.date_range(self.start, periods=len(self.values), freq=self.step)
        stamps = times.strftime("%Y/%m/%d %H:%M")
        flags = self.flags or ["G"] * len(self.values)
        readings = [f"{v:.4f} {f} M" for v, f in zip(self.values, flags, strict=True)]
        if self.ceop:
            lines = [f"{t} {t} {head} {r}" for t, r in zip(stamps, readings, strict=True)]
        else:
            lines = [f"{head} {self.instrument}"]
            lines += [f"{t} {r}" for t, r in zip(stamps, readings, strict=True)]
        return "\n".join(lines) + "\n"


def write_folder(folder: Path, sensors: list[SensorFile]) -> Path:
    for sensor in sensors:
        path = folder / sensor.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sensor.text)
    return folder


def write_zip(path: Path, sensors: list[SensorFile]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for sensor in sensors:
            archive.writestr(sensor.name, sensor.text)
    return path


def hourly(n_days: int, level: float = 0.2, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.01, n_days * 24)
    return np.round(np.clip(level + noise, 0.01, 0.9), 4)


def daily(n_days: int, level: float = 0.2) -> np.ndarray:
    """One reading a day, to keep long archives small."""
    return level + 0.05 * np.sin(np.arange(n_days) / 20)


def records(series: list[dict], n_days: int) -> StationRecords:
    """Records straight from daily values; every series is ``station``, ``depth``, ``values``."""
    rows = []
    for s in series:
        longitude, latitude = s.get("place", (LONGITUDE, LATITUDE))
        row, column = grid.cell_index(longitude, latitude)
        rows.append(
            {
                "network": s.get("network", "NET"),
                "station": s["station"],
                "row": int(row),
                "column": int(column),
                "top": s.get("top", s["depth"]),
                "bottom": s["depth"],
            }
        )
    time = np.datetime64("2019-01-01", "D") + np.arange(n_days)
    values = np.stack([np.broadcast_to(s["values"], n_days) for s in series])
    return StationRecords(pd.DataFrame(rows), time, values.astype(np.float32))


def series_of(reference, group: str):
    return reference.sel(series=reference["group"].to_numpy() == group)


# -- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize("ceop", [False, True])
def test_both_formats_in_both_containers_give_plain_daily_means(tmp_path, write, ceop):
    sensors = [
        SensorFile(hourly(5), ceop=ceop),
        SensorFile(hourly(3, 0.3, 1), depth=1.0, ceop=ceop),
    ]
    path = write(tmp_path / "archive", sensors)
    result = read_archive(path)
    assert list(result.sensors["bottom"]) == [0.05, 1.0]
    assert result.time[0] == np.datetime64("2019-01-01") and len(result.time) == 5
    for line, sensor in zip(result.values, sensors, strict=True):
        expected = sensor.values.reshape(-1, 24).mean(axis=1)
        np.testing.assert_allclose(line[: len(expected)], expected, rtol=1e-6)
        assert np.isnan(line[len(expected) :]).all()
    row, column = grid.cell_index(LONGITUDE, LATITUDE)
    assert set(result.sensors["row"]) == {int(row)}
    assert set(result.sensors["column"]) == {int(column)}
    assert result.rejected == []


def test_nothing_is_written_beside_the_archive(tmp_path):
    folder = tmp_path / "read_only"
    write_folder(folder, [SensorFile(hourly(2))])
    before = sorted(folder.rglob("*"))
    read_archive(folder)
    assert sorted(folder.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_only_soil_moisture_is_read(tmp_path):
    temperature = SensorFile(hourly(2) + 15, variable="ts")
    path = write_folder(tmp_path, [SensorFile(hourly(2)), temperature])
    result = read_archive(path)
    assert len(result.sensors) == 1 and result.rejected == []


def test_a_reading_is_good_only_if_all_its_flags_are(tmp_path):
    values = np.tile([0.1, 0.2, 0.3, 0.9], 6)
    flags = ["G", "D05", "D05,D04", "C03"] * 6
    path = write_folder(tmp_path, [SensorFile(values, flags=flags)])
    for accepted, expected in [
        (("G",), 0.1),
        (("G", "D05"), 0.15),
        (("G", "D04", "D05"), 0.2),
        (("D04",), None),
    ]:
        result = read_archive(path, flags=accepted, min_fraction=0.2)
        if expected is None:
            assert len(result.values) == 0
            assert "no possible reading with a good flag (D04)" in result.rejected[0].reason
            assert "D05,D04 6" in result.rejected[0].reason
        else:
            np.testing.assert_allclose(result.values, [[expected]], rtol=1e-6)


def test_impossible_values_are_never_used(tmp_path):
    values = np.array([0.2] * 20 + [-9999.0, -0.1, 1.5, 2.0])
    result = read_archive(write_folder(tmp_path, [SensorFile(values)]))
    np.testing.assert_allclose(result.values, [[0.2]], rtol=1e-6)


@pytest.mark.parametrize(("good", "kept"), [(17, False), (18, True)])
def test_a_day_needs_three_quarters_of_the_usual_readings(tmp_path, good, kept):
    flags = ["G"] * 24 + ["G"] * good + ["M"] * (24 - good)
    result = read_archive(write_folder(tmp_path, [SensorFile(hourly(2), flags=flags)]))
    assert list(np.isfinite(result.values[0])) == [True, kept]


@pytest.mark.parametrize(("step", "usual"), [("20min", 72), ("h", 24), ("3h", 8), ("D", 1)])
def test_the_usual_number_of_readings_is_the_sensors_own(tmp_path, step, usual):
    values = np.full(usual * 3, 0.25)
    result = read_archive(write_folder(tmp_path, [SensorFile(values, step=step)]))
    assert result.sensors["usual_readings"].item() == usual
    np.testing.assert_allclose(result.values, [[0.25] * 3])


def test_period_and_stations_can_be_chosen(tmp_path):
    path = write_folder(
        tmp_path, [SensorFile(hourly(4), station="A"), SensorFile(hourly(4), station="B")]
    )
    seen = []
    result = read_archive(
        path,
        stations=["B"],
        start=date(2019, 1, 2),
        stop=date(2019, 1, 7),
        on_progress=lambda share, name: seen.append((share, name)),
    )
    assert list(result.sensors["station"]) == ["B"]
    assert [str(day) for day in result.time[[0, -1]]] == ["2019-01-02", "2019-01-06"]
    assert list(np.isfinite(result.values[0])) == [True] * 3 + [False] * 2
    assert len(seen) == 1 and seen[0][0] == 1.0
    with pytest.raises(ValueError, match="no soil-moisture file of the stations asked for"):
        read_archive(path, stations=["nobody"])


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no station archive"):
        read_archive(tmp_path / "nothing.zip")
    text = tmp_path / "notes.zip"
    text.write_text("not a zip")
    with pytest.raises(ValueError, match="expected a zip file or a folder"):
        read_archive(text)


BAD = {
    "empty": b"",
    "header only": b"NET NET X 30.4 -98.8 100.0 0.05 0.05 Probe\n",
    "binary": bytes(range(256)) * 8,
    "words in the middle": b"NET NET X 30.4 -98.8 100.0 0.05 0.05 Probe\n"
    b"2019/01/01 00:00 0.2 G M\n2019/01/01 01:00 wet G M\n2019/01/01 02:00 0.2 G M\n",
    "impossible date": b"NET NET X 30.4 -98.8 100.0 0.05 0.05 Probe\n"
    b"2019/01/01 00:00 0.2 G M\n2019/13/41 01:00 0.2 G M\n2019/01/01 02:00 0.2 G M\n",
    "no place": b"NET NET X nowhere -98.8 100.0 0.05 0.05 Probe\n2019/01/01 00:00 0.2 G M\n",
    "place beyond the grid": b"NET NET X 89.9 -98.8 100.0 0.05 0.05 Probe\n"
    b"2019/01/01 00:00 0.2 G M\n",
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_file_is_reported_and_the_rest_is_read(tmp_path, case, zipped):
    good = SensorFile(hourly(2))
    bad = "NET/X/NET_NET_X_sm_0.050000_0.050000_Probe_20190101_20200101.stm"
    if zipped:
        path = write_zip(tmp_path / "archive.zip", [good])
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(bad, BAD[case])
    else:
        path = write_folder(tmp_path, [good])
        (path / bad).parent.mkdir()
        (path / bad).write_bytes(BAD[case])
    result = read_archive(path)
    assert list(result.sensors["path"]) == [good.name]
    assert [r.path for r in result.rejected] == [bad]
    assert len(result.rejected[0].reason) > 10


def test_a_damaged_member_of_a_zip_file_is_reported(tmp_path):
    sensors = [SensorFile(hourly(2), station=name) for name in "AB"]
    path = write_zip(tmp_path / "archive.zip", sensors)
    content = bytearray(path.read_bytes())
    position = content.index(sensors[0].text.encode()[200:220])
    content[position : position + 4] = b"8888"
    path.write_bytes(bytes(content))
    result = read_archive(path)
    assert list(result.sensors["station"]) == ["B"]
    assert "BadZipFile" in result.rejected[0].reason


def test_a_strange_file_and_an_odd_name_are_reported(tmp_path):
    path = write_folder(tmp_path, [SensorFile(hourly(2))])
    (path / "Readme.txt").write_text("known and ignored")
    (path / "NET" / "A" / "NET_NET_A_static_variables.csv").write_text("known and ignored")
    (path / "NET" / "notes.txt").write_text("what is this")
    (path / "NET" / "A" / "sensor.stm").write_text("1 2 3\n4 5 6\n")
    result = read_archive(path)
    assert sorted(r.path for r in result.rejected) == ["NET/A/sensor.stm", "NET/notes.txt"]


@settings(deadline=None)
@given(
    n=st.integers(1, 200),
    seed=st.integers(0, 1000),
    fraction=st.floats(0, 1),
)
def test_daily_means_equal_a_plain_loop(n, seed, fraction):
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.choice(24 * 12, size=min(n, 24 * 12), replace=False))
    time = np.datetime64("2019-03-01T00", "h") + hours
    values, good = rng.uniform(0, 0.6, hours.size), rng.random(hours.size) < 0.8
    days, means, usual = daily_means(time, values, good, fraction)
    gaps = np.diff(hours)
    assert usual == (max(round(24 / np.median(gaps)), 1) if gaps.size else 1)
    for day, mean in zip(days, means, strict=True):
        inside = (time.astype("datetime64[D]") == day) & good
        if inside.sum() >= max(fraction * usual, 1):
            np.testing.assert_allclose(mean, values[inside].mean(), rtol=1e-5)
        else:
            assert np.isnan(mean)


# -- ground truth ----------------------------------------------------------------------------


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


# -- real archives ---------------------------------------------------------------------------


def test_real_uscrn_gives_daily_values_at_five_depths(real_data):
    """The whole archive of 494 files takes 13 s; four stations stand for it."""
    stations = ["Austin-33-NW", "Asheville-13-S", "Asheville-8-SSW", "Arco-17-SW"]
    path = real_data("ismn/ISMN_USCRN_2019_2021.zip")
    result = read_archive(path, stations=stations)
    assert result.rejected == []
    assert set(result.sensors["bottom"]) == {0.05, 0.10, 0.20, 0.50, 1.0}
    assert set(result.sensors["usual_readings"]) == {24}
    assert np.nanmin(result.values) >= 0 and np.nanmax(result.values) <= 1
    reference = ground_truth(result)
    table = cell_table(reference)
    assert len(table) == 4 and set(table["cell_class"]) == {"extra", "unqualified"}
    groups = set(reference["group"].to_numpy())
    assert groups >= {"0-5 cm", "5-10 cm", "20 cm", "50 cm", "100 cm", "90-100 cm", "0-100 cm"}

    sensor = result.sensors[(result.sensors["station"] == "Asheville-13-S")].iloc[3]
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(sensor["path"]).decode().splitlines()[1:]
    day = "2020/06/15"
    readings = [line.split() for line in lines if line.startswith(day)]
    good = [float(value) for _, _, value, flag, *_ in readings if flag == "G"]
    assert len(good) >= 18
    position = np.flatnonzero(result.time == np.datetime64("2020-06-15"))[0]
    line = result.sensors.index.get_loc(sensor.name)
    np.testing.assert_allclose(result.values[line, position], np.mean(good), rtol=1e-6)


def test_real_txson_has_cells_of_many_stations(real_data):
    result = read_archive(real_data("ismn/ISMN_TxSON_2019_2021.zip"))
    assert len(result.sensors) == 40 and result.rejected == []
    unqualified = cell_table(ground_truth(result))
    assert set(unqualified["cell_class"]) == {"unqualified"}  # no sensor below 5 cm
    reference = ground_truth(result, min_depth=0.0)
    table = cell_table(reference).sort_values("n_working")
    assert list(table["n_working"])[-2:] == [14, 15]
    assert list(table["cell_class"])[-2:] == ["core", "core"]
    assert int(reference["n_stations"].max()) == 15


def test_real_iron_takes_51_cm_as_50(real_data):
    result = read_archive(real_data("ismn/ISMN_iRON_2019_2021.zip"))
    reference = ground_truth(result)
    assert set(reference["group"].to_numpy()) == {"0-5 cm", "20 cm", "50 cm", "0-100 cm"}
    assert set(series_of(reference, "50 cm")["bottom"].to_numpy()) == {0.5}
    assert not_grouped(result).empty
    assert len(result.rejected) == 3  # files of missing values only


def test_real_hawaii_merges_replaced_sensors_at_depths_in_inches(real_data):
    """The whole archive of 87 files takes 6 s; three of the seven places stand for it."""
    result = read_archive(
        real_data("ismn/ISMN_V20250617_Hawaii_SCAN_COSMOS_sm.zip"),
        stations=["Kainaliu", "KemoleGulch", "SilverSword"],
    )
    assert len(result.rejected) == 1 and "C02,C03 11" in result.rejected[0].reason
    reference = ground_truth(result)
    assert set(series_of(reference, "20-30 cm")["bottom"].to_numpy()) == {0.30}
    assert set(series_of(reference, "100 cm")["bottom"].to_numpy()) == {1.0}
    layer = reference.sel(series=(reference["bottom"] == 0.17).to_numpy())
    assert layer["group"].item() == "5-10 cm" and layer["top"].item() == 0.0
    # six sensors A..F at 2 inches make one series that is longer than each of them
    sensors = result.sensors.reset_index()
    lines = sensors[(sensors["station"] == "Kainaliu") & (sensors["top"] == 0.0508)].index
    days = np.isfinite(result.values[lines])
    surface = series_of(reference, "0-5 cm")
    at_cell = (surface["row"] == sensors["row"][lines[0]]).to_numpy()
    merged = surface.sel(series=at_cell)["soil_moisture"].to_numpy()[0]
    assert len(lines) == 6 and np.isfinite(merged).sum() == days.any(axis=0).sum()
    assert np.isfinite(merged).sum() > days.sum(axis=1).max()


def test_real_edge_cases_are_read_or_reported(real_data):
    path = real_data("ismn/TUW-GEO_ismn_test_data.zip")
    result = read_archive(path)
    assert "malformed/mal_formed_file.txt" in {bad.path for bad in result.rejected}
    ceop = result.sensors["path"].str.startswith("Data_seperate_files_2017").to_numpy()
    for station in ("ARM-1", "Barrow-ARM"):
        of_station = (result.sensors["station"] == station).to_numpy()
        one, other = result.values[of_station & ceop], result.values[of_station & ~ceop]
        np.testing.assert_array_equal(one, other)  # the same data in both formats

    unchecked = read_archive(path, flags=("G", "U"))
    assert set(unchecked.sensors["network"]) == {"COSMOS", "SMOSMANIA"}
    assert len(unchecked.sensors) == 6


def test_real_multinetwork_archive_needs_the_flag_for_unchecked(real_data):
    path = real_data("ismn/ISMN_pytesmo_multinetwork_2007_2013.zip")
    assert len(read_archive(path).rejected) == 8
    result = read_archive(path, flags=("G", "U"))
    assert result.rejected == [] and len(result.sensors) == 8
    assert set(ground_truth(result)["group"].to_numpy()) == {"0-5 cm"}
