"""CSV tables become daily means per sensor; what is wrong in them is named."""

import numpy as np
import pandas as pd
import pytest
from station_support import LATITUDE, LONGITUDE, SensorFile, hourly, write_folder

from deepprofile import grid
from deepprofile.evaluation.stations import list_tables, merge_records, read_archive, read_table

COLUMNS = [
    "network",
    "station",
    "latitude",
    "longitude",
    "depth_from",
    "depth_to",
    "time",
    "soil_moisture",
]


def table(values, *, start="2019-01-01", step="h", zone="Z", depth=0.05, **columns) -> pd.DataFrame:
    times = pd.date_range(start, periods=len(values), freq=step)
    return pd.DataFrame(
        {
            "network": "NET",
            "station": "A",
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
            "depth_from": depth,
            "depth_to": depth,
            "time": times.strftime("%Y-%m-%dT%H:%M") + zone,
            "soil_moisture": values,
            **columns,
        }
    )


def write(folder, *parts: pd.DataFrame, name="table.csv"):
    path = folder / name
    pd.concat(parts).to_csv(path, index=False)
    return path


def one_reason(records) -> str:
    assert records.sensors.empty, records.sensors
    assert len(records.rejected) == 1, records.rejected
    return records.rejected[0].reason


def test_a_table_gives_the_same_as_an_archive_of_the_same_readings(tmp_path):
    flags = ["G"] * 24 + ["G", "D05"] * 12 + ["G,D05"] * 6 + ["G"] * 18
    sensors = [
        SensorFile(hourly(3), flags=flags),
        SensorFile(hourly(2, 0.3), depth=0.5, station="B", instrument="Other"),
    ]
    archive = read_archive(write_folder(tmp_path / "archive", sensors))
    path = write(
        tmp_path,
        table(sensors[0].values, instrument="Probe", flag=flags),
        table(sensors[1].values, instrument="Other", flag="G", station="B", depth=0.5),
    )
    found = read_table(path)
    same = ["network", "station", "instrument", "row", "column", "top", "bottom", "n_good"]
    pd.testing.assert_frame_equal(found.sensors[same], archive.sensors[same])
    np.testing.assert_array_equal(found.values, archive.values)
    np.testing.assert_array_equal(found.time, archive.time)
    assert found.rejected == [] and found.notes == []


def test_columns_come_in_any_order_and_unknown_ones_are_named(tmp_path):
    values = hourly(2)
    frame = table(values)[COLUMNS[::-1]].rename(columns=str.upper).assign(flags="G", remark="dry")
    records = read_table(write(tmp_path, frame))
    np.testing.assert_allclose(records.values[0], values.reshape(2, 24).mean(axis=1), rtol=1e-6)
    assert len(records.notes) == 1 and "not used: 'flags', 'remark'" in records.notes[0]


@pytest.mark.parametrize("zone", ["-06:00", "+0530", "Z", ""])
def test_days_are_utc_days(tmp_path, zone):
    offset = {"-06:00": 6, "+0530": -5.5}.get(zone, 0)
    values = np.arange(72) / 100
    records = read_table(write(tmp_path, table(values, zone=zone)), min_fraction=0.1)
    time = pd.date_range("2019-01-01", periods=72, freq="h") + pd.Timedelta(hours=offset)
    by_day = pd.Series(values).groupby(time.floor("D"))
    expected = by_day.mean()[by_day.count() >= 3]
    known = np.isfinite(records.values[0])
    np.testing.assert_array_equal(records.time[known], expected.index.to_numpy())
    np.testing.assert_allclose(records.values[0][known], expected, rtol=1e-6)
    assert ["without a zone are taken as UTC" in note for note in records.notes] == [True] * (
        zone == ""
    )


def test_other_zones_in_one_sensor_are_understood_but_not_half_of_them(tmp_path):
    summer, winter = table(hourly(1), zone="-05:00"), table(hourly(2), zone="-06:00")
    later = winter.iloc[24:]
    assert len(read_table(write(tmp_path, summer, later)).sensors) == 1
    path = write(tmp_path, summer, table(hourly(2), zone="").iloc[24:])
    reason = one_reason(read_table(path))
    assert "24 times have a zone and 24 have none" in reason and "Add the zone" in reason


def test_an_empty_flag_is_no_good_flag(tmp_path):
    records = read_table(write(tmp_path, table(hourly(2), flag=["G"] * 24 + [""] * 24)))
    assert records.sensors["n_good"].item() == 24
    reason = one_reason(read_table(write(tmp_path, table(hourly(2), flag="ok"))))
    assert "found ok 48" in reason and "ground_truth.good_flags" in reason
    kept = read_table(tmp_path / "table.csv", flags=["ok"])
    assert kept.sensors["n_good"].item() == 48


def test_missing_columns_are_named(tmp_path):
    frame = table(hourly(1)).drop(columns=["time", "depth_to"]).rename(columns={"latitude": "lat"})
    reason = one_reason(read_table(write(tmp_path, frame)))
    assert "columns latitude, depth_to, time are missing; found network, station, lat" in reason
    path = tmp_path / "semicolons.csv"
    table(hourly(1)).to_csv(path, index=False, sep=";")
    assert "separated by commas" in one_reason(read_table(path))
    path.write_text("")
    assert "found nothing" in one_reason(read_table(path))
    twice = table(hourly(1)).assign(Time="2019-01-01")
    assert "column time stands twice" in one_reason(read_table(write(tmp_path, twice)))


def test_a_file_that_is_no_text_is_set_aside(tmp_path):
    path = write(tmp_path, table(hourly(1)))
    path.write_bytes(path.read_bytes().replace(b"NET", b"\xff\xfe"))
    assert "UTF-8" in one_reason(read_table(path))


def test_depths_in_centimetres_are_refused(tmp_path):
    deep = table(hourly(2), depth=10)
    shallow = table(hourly(2), depth=2)  # 2 m or 2 cm? its neighbour at 10 tells
    metres = [table(hourly(2), station="B", depth=z) for z in (0.1, 2.5, 10)]
    records = read_table(write(tmp_path, deep, shallow, *metres))
    assert list(records.sensors["bottom"]) == [0.1, 2.5]
    reasons = {item.path.rsplit(": ", 1)[1]: item.reason for item in records.rejected}
    assert set(reasons) == {"NET A 2 m", "NET A 10 m", "NET B 10 m"}
    assert all("Divide the depths by 100" in reason for reason in reasons.values())


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"depth_from": -0.05}, ["depth_from -0.05", "metres below the surface"]),
        ({"depth_from": 0.3}, ["depth_from 0.3, depth_to 0.05", "not below"]),
        ({"latitude": 86.0}, ["latitude 86", "no cell", "85.04 degrees"]),
        ({"latitude": -98.8, "longitude": 30.4}, ["no coordinates", "exchanged"]),
        ({"longitude": 400.0}, ["longitude 400", "-180 to 360"]),
        ({"latitude": ""}, ["longitude and latitude are missing"]),
        ({"latitude": "30.4N"}, ["no numbers"]),
        ({"latitude": [30.4] * 47 + [31.4]}, ["2 different places", "-98.8 31.4"]),
        ({"soil_moisture": 23.4}, ["median of soil_moisture is 23.4", "percent", "by 100"]),
        ({"soil_moisture": -9999}, ["no possible reading", "between -9999 and -9999"]),
        ({"soil_moisture": ""}, ["no possible reading", "found 0 values"]),
    ],
)
def test_a_sensor_that_cannot_be_used_is_named_and_the_rest_is_read(tmp_path, columns, words):
    good, bad = table(hourly(2)), table(hourly(2), station="Bad").assign(**columns)
    records = read_table(write(tmp_path, good, bad))
    assert list(records.sensors["station"]) == ["A"]
    assert len(records.rejected) == 1 and "NET Bad" in records.rejected[0].path
    for word in words:
        assert word in records.rejected[0].reason
    assert records.notes == []


def test_a_single_wet_reading_in_percent_is_just_impossible(tmp_path):
    values = np.append(np.full(47, 0.2), 35.0)
    records = read_table(write(tmp_path, table(values)))
    np.testing.assert_allclose(records.values, [[0.2, 0.2]], rtol=1e-6)


def test_longitudes_to_360_are_the_same_places(tmp_path):
    records = read_table(write(tmp_path, table(hourly(1), longitude=LONGITUDE + 360)))
    row, column = grid.cell_index(LONGITUDE, LATITUDE)
    assert (records.sensors["row"].item(), records.sensors["column"].item()) == (row, column)
    assert records.sensors["longitude"].item() == pytest.approx(LONGITUDE)


def test_repeated_times_count_once_and_contradictions_are_said(tmp_path):
    values = hourly(2)
    same, other = table(values).iloc[:5], table(values + 0.1).iloc[[30, 31]]
    records = read_table(write(tmp_path, table(values), same, other))
    np.testing.assert_allclose(records.values[0], values.reshape(2, 24).mean(axis=1), rtol=1e-6)
    assert records.sensors["n_readings"].item() == 48
    assert "readings that repeat a time with another value: 2;" in records.notes[0]
    assert "readings that repeat a time and its value: 5" in records.notes[1]


def test_rows_that_cannot_be_read_are_counted_with_their_lines(tmp_path):
    path = write(tmp_path, table(np.full(48, 0.2)))
    lines = path.read_text().splitlines()
    first = lines[1]
    lines[4] = lines[4].replace(",0.2", ",wet")
    lines[9] = lines[9].replace("2019", "next")
    lines[11] = ""  # counts as a line, and is nothing
    lines[14] = lines[14] + ",more,columns"
    lines[19] = "cut"
    lines[24:31] = [first.replace("NET", " ")] * 7
    lines[40] = lines[40].replace("0.05,0.05", "0.05,shallow")
    path.write_text("\n".join(lines) + "\n")
    records = read_table(path)
    assert records.sensors["n_readings"].item() == 48 - 13
    notes = "\n".join(records.notes)
    assert "rows without a number as soil_moisture are left out: 1, lines 5" in notes
    assert "rows without a time as ISO 8601 are left out: 1, lines 10" in notes
    assert "rows with too many or too few columns are left out: 2, lines 15, 20" in notes
    assert "rows without a name of network and station are left out: 7, lines 25, 26" in notes
    assert "29 and 2 more" in notes
    assert "rows without numbers as depths are left out: 1, lines 41" in notes


def test_a_file_without_any_readable_row_is_named(tmp_path):
    path = write(tmp_path, table(hourly(1)).assign(time="yesterday"))
    assert "no row can be read; " in one_reason(read_table(path))
    path = write(tmp_path, table(hourly(1)).iloc[:0])
    assert "no row can be read" in one_reason(read_table(path))


def test_period_can_be_chosen(tmp_path):
    path = write(tmp_path, table(np.full(96, 0.2)))
    start, stop = pd.Timestamp("2019-01-03").date(), pd.Timestamp("2019-01-06").date()
    records = read_table(path, start=start, stop=stop)
    assert [str(day) for day in records.time] == ["2019-01-03", "2019-01-04", "2019-01-05"]
    assert list(np.isfinite(records.values[0])) == [True, True, False]


def test_a_table_is_a_file_or_a_folder_of_files(tmp_path):
    parts = [
        write(tmp_path, table(hourly(2)), name="2019.csv"),
        write(tmp_path, table(hourly(2), start="2019-01-03"), name="2020.CSV"),
    ]
    (tmp_path / "notes.txt").write_text("what is this")
    assert list_tables(parts[0]) == ([str(parts[0])], [])
    files, strange = list_tables(tmp_path)
    assert files == [str(part) for part in parts]
    assert [item.path for item in strange] == [str(tmp_path / "notes.txt")]
    merged = merge_records([read_table(file) for file in files])
    assert np.isfinite(merged.values).sum(axis=0).tolist() == [1, 1, 1, 1]
    with pytest.raises(FileNotFoundError, match="there is no table at"):
        list_tables(tmp_path / "absent")


def test_a_table_lies_in_an_object_store_as_on_a_disk(tmp_path, s3_url):
    from deepprofile import places

    path = write(tmp_path, table(hourly(2)))
    places.write_bytes(f"{s3_url}/tables/a.csv", path.read_bytes())
    files, _ = list_tables(f"{s3_url}/tables")
    assert files == [f"{s3_url}/tables/a.csv"] == list_tables(files[0])[0]
    np.testing.assert_array_equal(read_table(files[0]).values, read_table(path).values)
