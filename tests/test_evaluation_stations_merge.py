"""Parts of archives, and archives that share stations, become one set of records."""

import itertools
import zipfile

import numpy as np
import pandas as pd
import pytest
from station_support import LONGITUDE, SensorFile, daily, hourly, write_folder, write_zip

from deepprofile import places
from deepprofile.evaluation.reference.ground_truth import ground_truth
from deepprofile.evaluation.stations import (
    list_sensors,
    merge_records,
    read_archive,
    read_sensors,
    read_table,
)

BAD = "NET/X/NET_NET_X_sm_0.050000_0.050000_Probe_20190101_20200101.stm"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    sensors = [
        SensorFile(daily(40 + 5 * i, 0.1 + 0.03 * i), station=name, depth=z, step="D", start=start)
        for i, (name, z, start) in enumerate(
            [
                ("A", 0.05, "2019-01-01"),
                ("A", 0.5, "2019-01-20"),
                ("B", 0.05, "2018-12-01"),
                ("B", 0.2, "2019-02-01"),
                ("C", 0.05, "2019-01-05"),
            ]
        )
    ]
    path = write_zip(tmp_path_factory.mktemp("archive") / "archive.zip", sensors)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(BAD, "nothing")
        file.writestr("NET/notes.txt", "what is this")
    return path


@pytest.fixture(scope="module")
def whole(archive):
    return read_archive(archive)


@pytest.mark.parametrize("cuts", [(), (1,), (2, 5), (1, 2, 3, 4, 5)])
def test_records_do_not_depend_on_how_files_are_grouped(archive, whole, cuts):
    names, strange = list_sensors(archive)
    assert len(names) == 6 and [item.path for item in strange] == ["NET/notes.txt"]
    edges = [0, *cuts, len(names)]
    parts = [read_sensors(archive, names[a:b]) for a, b in itertools.pairwise(edges)]
    merged = merge_records(parts)
    pd.testing.assert_frame_equal(merged.sensors, whole.sensors)
    np.testing.assert_array_equal(merged.time, whole.time)
    np.testing.assert_array_equal(merged.values, whole.values)
    assert strange + merged.rejected == whole.rejected
    assert [item.path for item in merged.rejected] == [BAD]


def test_a_file_that_is_not_there_is_an_error_not_a_bad_file(archive):
    with pytest.raises(FileNotFoundError, match=r"holds no NET/nobody\.stm"):
        read_sensors(archive, ["NET/nobody.stm"])


def readings(n_days: int, level: float = 0.2, start: str = "2019-01-01", **options) -> SensorFile:
    return SensorFile(np.full(n_days, level), step="D", start=start, **options)


def records_of(folder, *sensors: SensorFile):
    return read_archive(write_folder(folder, list(sensors)))


def test_a_sensor_in_two_archives_counts_once(tmp_path):
    short = records_of(tmp_path / "short", readings(30, 0.4))
    long = records_of(tmp_path / "long", readings(50, 0.2), readings(50, 0.3, depth=0.2))
    merged = merge_records([short, long])
    assert list(merged.sensors["source"]) == [str(tmp_path / "long")] * 2
    np.testing.assert_allclose(merged.values, [[0.2] * 50, [0.3] * 50], rtol=1e-6)
    item = merged.rejected[0]
    assert item.source == str(tmp_path / "short")
    assert "more good readings (50 against 30)" in item.reason
    assert str(tmp_path / "long") in item.reason
    again = merge_records([long, long])
    assert len(again.sensors) == 2 and len(again.rejected) == 2
    assert "as many good readings and comes first" in again.rejected[0].reason


def test_an_archive_of_later_years_goes_on_where_the_earlier_ends(tmp_path):
    early = records_of(tmp_path / "early", readings(50, 0.2))
    late = records_of(tmp_path / "late", readings(30, 0.4, start="2019-02-10"))  # day 40
    merged = merge_records([late, early])
    assert merged.rejected == []
    assert len(merged.notes) == 1 and "20 days outside that one's are used" in merged.notes[0]
    reference = ground_truth(merged, min_days=1)
    series = reference["soil_moisture"].to_numpy()[0]
    np.testing.assert_allclose(series, [0.2] * 50 + [0.4] * 20, rtol=1e-6)
    assert (reference["n_stations"] == 1).all()
    apart = records_of(tmp_path / "apart", readings(30, 0.4, start="2019-02-20"))
    assert merge_records([early, apart]).notes == []


def test_different_sensors_of_a_station_in_two_archives_stay(tmp_path):
    one = records_of(tmp_path / "one", readings(30, 0.2))
    other = records_of(tmp_path / "other", readings(30, 0.4, instrument="Probe-B"))
    merged = merge_records([one, other])
    assert len(merged.sensors) == 2 and merged.rejected == []
    np.testing.assert_allclose(ground_truth(merged)["soil_moisture"], [[0.3] * 30], rtol=1e-6)


def test_a_table_without_instruments_repeats_the_archives_sensors(tmp_path):
    archive = records_of(tmp_path / "archive", readings(30, 0.2), readings(30, 0.3, depth=0.5))
    days = pd.date_range("2019-01-01", periods=40).strftime("%Y-%m-%dT00:00Z")
    fixed = {"network": "NET", "station": "A", "latitude": 30.4, "longitude": LONGITUDE}
    frames = [
        pd.DataFrame({**fixed, "depth_from": z, "depth_to": z, "time": days, "soil_moisture": 0.4})
        for z in (0.0508, 1.0)
    ]
    path = tmp_path / "table.csv"
    pd.concat(frames).to_csv(path, index=False)
    merged = merge_records([archive, read_table(path)])
    assert sorted(merged.sensors["bottom"]) == [0.0508, 0.5, 1.0]
    assert [item.source for item in merged.rejected] == [str(tmp_path / "archive")]


def test_a_station_at_two_places_is_said(tmp_path):
    one = records_of(tmp_path / "one", readings(30))
    other = records_of(tmp_path / "other", readings(30, instrument="P2", longitude=-98.5))
    merged = merge_records([one, other])
    assert len(merged.sensors) == 2
    assert "station NET A: its sensors lie in 2 different 9 km cells" in merged.notes[0]


def test_records_without_any_sensor_can_be_merged(tmp_path):
    empty = records_of(tmp_path / "empty", SensorFile(hourly(2), flags=["M"] * 48))
    merged = merge_records([empty, records_of(tmp_path / "full", readings(30))])
    assert len(merged.sensors) == 1 and len(merged.rejected) == 1
    nothing = merge_records([empty, empty])
    assert nothing.sensors.empty and nothing.values.shape == (0, 0)
    assert ground_truth(nothing).sizes["series"] == 0
    with pytest.raises(ValueError, match="at least one"):
        merge_records([])


def test_readings_that_repeat_a_time_in_an_archive_are_said(tmp_path):
    sensor = SensorFile(np.full(48, 0.2))
    path = write_folder(tmp_path, [sensor]) / sensor.name
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[3], lines[4].replace("0.2", "0.9")]) + "\n")
    records = read_archive(tmp_path)
    assert records.sensors["n_readings"].item() == 48
    np.testing.assert_allclose(records.values, [[0.2, 0.2]], rtol=1e-6)
    assert f"{sensor.name}: readings that repeat a time with another value: 1;" in records.notes[0]


def test_an_archive_lies_in_an_object_store_as_on_a_disk(archive, whole, s3_url):
    expected = whole
    places.write_bytes(f"{s3_url}/archive.zip", archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            places.write_bytes(f"{s3_url}/folder/{name}", file.read(name))
    for url in (f"{s3_url}/archive.zip", f"{s3_url}/folder"):
        found = read_archive(url)
        np.testing.assert_array_equal(found.values, expected.values)
        assert [r.path for r in found.rejected] == [r.path for r in expected.rejected]
        assert set(found.sensors["source"]) == {url}
    with pytest.raises(FileNotFoundError, match="no station archive"):
        read_archive(f"{s3_url}/absent.zip")
