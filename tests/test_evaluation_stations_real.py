"""Real station archives, against what plain pandas makes of the same files."""

import zipfile
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from ismn.base import IsmnRoot
from ismn.const import LANDCOVER
from ismn.filehandlers import StaticMetaFile
from station_support import series_of

from deepprofile.evaluation.reference.ground_truth import ground_truth, not_grouped
from deepprofile.evaluation.reference.series import cell_table
from deepprofile.evaluation.stations import (
    list_sensors,
    merge_records,
    read_archive,
    usda_texture,
)

HAWAII = "ismn/ISMN_V20250617_Hawaii_SCAN_COSMOS_sm.zip"
TXSON = "ismn/ISMN_TxSON_2019_2021.zip"


@pytest.fixture(scope="module")
def hawaii(real_data):
    """The whole archive of 87 files takes 6 s; three of the seven places stand for it."""
    return read_archive(real_data(HAWAII), stations=["Kainaliu", "KemoleGulch", "SilverSword"])


@pytest.fixture(scope="module")
def txson(real_data):
    return read_archive(real_data(TXSON))


def plain_days(archive: zipfile.ZipFile, name: str, at_least: int) -> pd.Series:
    """Daily means of the good readings of a file, without anything of ours."""
    names = ["day", "hour", "value", "flag"]
    with archive.open(name) as file:
        frame = pd.read_csv(file, sep=" ", skiprows=1, usecols=range(4), names=names)
    frame = frame[(frame["flag"] == "G") & frame["value"].between(0, 1)]
    days = frame.groupby("day")["value"]
    means = days.mean()[days.count() >= at_least]
    return means.set_axis(pd.to_datetime(means.index, format="%Y/%m/%d"))


def assert_same(series, sensors: list[pd.Series]) -> None:
    """A series of the reference and the plain mean of its sensors, on the same days."""
    expected = pd.concat(sensors, axis=1, sort=True).mean(axis=1)
    found = series["soil_moisture"].isel(series=0).to_series().dropna()
    assert len(found) > 300
    pd.testing.assert_index_equal(found.index, expected.index, exact=False, check_names=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_real_uscrn_has_the_sensors_that_its_network_says(real_data):
    names, strange = list_sensors(real_data("ismn/ISMN_USCRN_2019_2021.zip"))
    assert (len(names), len({name.split("/")[1] for name in names}), strange) == (494, 113, [])


def test_real_hawaii_equals_plain_pandas_at_every_depth_of_a_station(real_data, hawaii):
    """Kainaliu: 18 sensors at five depths in inches, replaced up to five times."""
    records = merge_records([hawaii])
    place = records.sensors[records.sensors["station"] == "Kainaliu"].iloc[0]
    reference = ground_truth(records)
    here = (reference["row"] == place["row"]) & (reference["column"] == place["column"])
    reference = reference.sel(series=here.to_numpy())
    with zipfile.ZipFile(real_data(HAWAII)) as archive:
        names = [name for name in archive.namelist() if "Kainaliu_sm_" in name]
        days = {name: plain_days(archive, name, 18) for name in names}
    assert len(names) == 18
    for inches, group in [
        ("0.050800", "0-5 cm"),
        ("0.101600", "5-10 cm"),
        ("0.304800", "20-30 cm"),
        ("0.508000", "50 cm"),
        ("0.762000", "60-80 cm"),
    ]:
        at_depth = [series for name, series in days.items() if f"_{inches}_" in name]
        assert_same(series_of(reference, group), at_depth)


def test_real_txson_core_cell_equals_plain_pandas(real_data, txson):
    records = merge_records([txson])
    reference = ground_truth(records, min_depth=0.0)
    cells = cell_table(reference)
    core = cells.sort_values("n_working").iloc[-1]
    here = (reference["row"] == core["row"]) & (reference["column"] == core["column"])
    inside = records.sensors[
        (records.sensors["row"] == core["row"]) & (records.sensors["column"] == core["column"])
    ]
    with zipfile.ZipFile(real_data(TXSON)) as archive:
        days = [plain_days(archive, name, 18) for name in inside["path"]]
    assert len(days) == 15
    assert_same(reference.sel(series=here.to_numpy()), days)
    assert cells["land_cover"].str.len().min() > 0 and set(cells["climate"]) <= {"Cfa", "mixed"}


def test_real_static_classes_are_those_that_the_ismn_package_reads(txson, real_data):
    with closing(IsmnRoot(real_data(TXSON))) as root:
        for line in txson.sensors.drop_duplicates("station").head(4).itertuples():
            name = f"TxSON/{line.station}/TxSON_TxSON_{line.station}_static_variables.csv"
            static = StaticMetaFile(root, name).metadata
            top = [static[f"{part}_fraction"][0].val for part in ("clay", "sand")]
            assert static["clay_fraction"][0].depth.start == 0
            assert LANDCOVER[line.land_cover] == static["lc_2010"].val
            assert line.climate == static["climate_KG"].val
            assert line.texture == usda_texture(*top) != ""


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


def test_real_txson_has_cells_of_many_stations(txson):
    result = txson
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


def test_real_hawaii_merges_replaced_sensors_at_depths_in_inches(hawaii):
    result = hawaii
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
    merged = merge_records([result])
    assert sum("the same sensor as" in bad.reason for bad in merged.rejected) == 2
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
