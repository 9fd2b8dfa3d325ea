"""Station archives become daily means per sensor; bad files are reported."""

import zipfile
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from station_support import LATITUDE, LONGITUDE, SensorFile, hourly, write_folder, write_zip

from deepprofile import grid
from deepprofile.evaluation.stations import daily_means, read_archive


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
