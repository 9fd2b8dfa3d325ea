"""Files of a small demo Earth: the agencies' layouts, and the flaws that were put in."""

import csv
from importlib import resources
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from ismn.interface import ISMN_Interface

from deepprofile import grid
from deepprofile.synthetic import (
    EarthConfig,
    centred_window,
    read_truth,
    truth_at,
    truth_layer,
    write_earth,
)
from deepprofile.synthetic.gridded_files import gldas_path
from deepprofile.synthetic.smap_files import OLD_VERSION, VERSION, granule_path
from deepprofile.synthetic.template import GranuleTemplate

CONFIG = EarthConfig(seed=3, n_days=40, spin_up_days=30, **centred_window(12))
N_STEPS = 40 * 8


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def earth(tmp_path_factory, told):
    return write_earth(CONFIG, tmp_path_factory.mktemp("earth"), lambda *news: told.append(news))


def table():
    text = resources.files("deepprofile.products").joinpath("spl4smgp.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def test_smap_granules_are_named_by_the_middle_of_their_step(earth):
    names = sorted(path.name for path in earth.smap_l4.rglob("*.h5"))
    assert len(names) == N_STEPS - len(earth.flaws.smap_missing) + 1
    assert names[0] == f"SMAP_L4_SM_gph_20150331T013000_{VERSION}.h5"
    assert names[7] == f"SMAP_L4_SM_gph_20150331T223000_{VERSION}.h5"
    for step in earth.flaws.smap_missing:
        assert not (earth.smap_l4 / granule_path(CONFIG, step)).exists()


def test_smap_granules_have_the_layout_of_the_product(earth):
    with h5py.File(earth.smap_l4 / granule_path(CONFIG, 20)) as file:
        assert set(file) == {
            *("cell_lat", "cell_lon", "cell_row", "cell_column", "x", "y", "time"),
            *("EASE2_global_projection", "Geophysical_Data"),
        }
        rows, columns = np.arange(*CONFIG.rows), np.arange(*CONFIG.columns)
        np.testing.assert_array_equal(file["cell_row"][:, 0], rows)
        np.testing.assert_array_equal(file["cell_column"][0], columns)
        np.testing.assert_allclose(file["cell_lat"][:, 0], grid.latitudes()[rows], rtol=1e-6)
        np.testing.assert_allclose(file["x"], grid.x_centers()[columns])
        assert file.attrs["Filename"].decode() == granule_path(CONFIG, 20).name
        group = file["Geophysical_Data"]
        assert len(group) == 45
        for line in table():
            field = group[line["variable"]]
            assert field.dtype == np.float32 and field.shape == (12, 12)
            assert field.attrs["units"].decode() == line["units"]
            assert field.attrs["_FillValue"] == field.attrs["fmissing_value"] == -9999
            assert field.attrs["valid_max"] == np.float32(line["valid_max"])
            assert [d[0].name for d in field.dims] == ["/y", "/x"]


def test_time_of_a_granule_counts_like_the_agency_does(earth, real_data):
    path = granule_path(CONFIG, 13)
    with h5py.File(earth.smap_l4 / path) as file:
        time, units = file["time"][0], file["time"].attrs["units"].decode()
    noon = np.datetime64("2000-01-01T12:00:00")
    assert noon + np.timedelta64(int(time), "s") == np.datetime64("2015-04-01T16:30:00")
    with h5py.File(real_data("smap_l4/SMAP_L4_SM_aup_input.h5")) as file:
        assert file["time"].attrs["units"].decode() == units
        real = noon + np.timedelta64(int(file["time"][0]), "s")
    assert real == np.datetime64("2020-01-28T15:00:00")


def test_values_are_in_range_on_land_and_missing_at_sea(earth):
    truth = read_truth(earth.truth)
    row, column = truth["row"] - CONFIG.rows[0], truth["column"] - CONFIG.columns[0]
    sea = np.ones((12, 12), dtype=bool)
    sea[row, column] = False
    assert 0 < sea.sum() < 72
    flawed = {step for step, _, _ in earth.flaws.smap_out_of_range}
    flawed |= {*earth.flaws.smap_missing, *earth.flaws.smap_truncated}
    for step in set(range(0, N_STEPS, 11)) - flawed:
        with h5py.File(earth.smap_l4 / granule_path(CONFIG, step)) as file:
            for line in table():
                values = file["Geophysical_Data"][line["variable"]][()]
                assert (values[sea] == -9999).all()
                land = values[~sea]
                known = land[land != -9999]
                assert known.size == land.size or "peat" in line["variable"]
                assert (known >= float(line["valid_min"]) - 1e-7).all(), line["variable"]
                assert (known <= float(line["valid_max"]) + 1e-6).all(), line["variable"]


def test_flaws_are_where_they_were_planned(earth):
    for step in earth.flaws.smap_truncated:
        with pytest.raises(OSError, match="truncated"):
            h5py.File(earth.smap_l4 / granule_path(CONFIG, step))
    for step in earth.flaws.smap_superseded:
        for version in (VERSION, OLD_VERSION):
            assert (earth.smap_l4 / granule_path(CONFIG, step, version)).exists()
    for step, name, value in earth.flaws.smap_out_of_range:
        with h5py.File(earth.smap_l4 / granule_path(CONFIG, step)) as file:
            values = file["Geophysical_Data"][name][()]
        assert (values == np.float32(value)).sum() == 1
    lost = [*earth.flaws.smap_missing, *earth.flaws.smap_truncated]
    assert np.bincount(np.array(lost) // 8).max() <= 2
    found = len(list(earth.gldas.rglob("*.nc4")))
    assert found == N_STEPS - len(earth.flaws.gldas_missing)


def test_granules_open_in_xarray(earth):
    path = earth.smap_l4 / granule_path(CONFIG, 5)
    with xr.open_dataset(path, engine="netcdf4", group="Geophysical_Data") as dataset:
        assert dataset["sm_surface"].dims == ("y", "x")
        assert dataset["sm_surface"].isnull().any()


def test_gldas_holds_water_of_each_layer_in_kg(earth):
    truth = read_truth(earth.truth)
    with xr.open_dataset(earth.gldas / gldas_path(CONFIG, 9), engine="netcdf4") as dataset:
        assert dataset["time"].values[0] == np.datetime64("2015-04-01T03:00")
        assert dataset["time_bnds"].values[0, 0] == np.datetime64("2015-04-01T00:00")
        spacing = np.unique(np.diff(dataset["lat"]))
        for name, top, bottom in (("0_10", 0, 0.1), ("10_40", 0.1, 0.4), ("40_100", 0.4, 1.0)):
            water = dataset[f"SoilMoi{name}cm_inst"]
            assert water.dims == ("time", "lat", "lon") and water.attrs["units"] == "kg m-2"
            mean = float((water / (1000 * (bottom - top))).mean())
            expected = float(truth_layer(truth, top, bottom).isel(time=1).mean())
            assert mean == pytest.approx(expected, abs=0.07)
            assert 0.1 < float(water.isnull().mean()) < 0.6
    np.testing.assert_allclose(spacing, 0.25)


def test_gldas_has_the_attributes_of_real_granules(earth, real_data):
    name = "SoilMoi0_10cm_inst"
    with (
        h5py.File(earth.gldas / gldas_path(CONFIG, 3)) as ours,
        h5py.File(real_data("gldas/GLDAS_NOAH025_3H.A20160101.0300.021.nc4")) as real,
    ):
        assert set(real) <= {*ours, name, "SoilMoi10_40cm_inst"}
        for key in ("units", "standard_name", "_FillValue", "missing_value", "cell_methods"):
            assert ours[name].attrs[key] == real[name].attrs[key]
        assert ours["time"].attrs["begin_time"] == b"090000"
        assert ours[name].ndim == real[name].ndim == 3


def test_era5_comes_in_both_schemas(earth):
    files = sorted(earth.era5_land.glob("*.nc"))
    assert [file.name[-9:-3] for file in files] == ["201503", "201504", "201505"]
    hours = 0
    for file, dimension in zip(files, ("time", "valid_time", "time"), strict=True):
        with xr.open_dataset(file, engine="netcdf4") as dataset:
            packed = dataset["swvl1"].encoding["dtype"] == np.int16
            assert packed == (dimension == "time")
            assert dataset["swvl1"].dims == (dimension, "latitude", "longitude")
            assert (np.diff(dataset["latitude"]) < 0).all()
            assert ("expver" in dataset.coords) == (dimension == "valid_time")
            assert dataset["swvl3"].isnull().any() and dataset["swvl3"].notnull().any()
            hours += dataset.sizes[dimension]
    assert hours == 40 * 24 - len(earth.flaws.era5_missing)


def test_stations_are_read_by_the_ismn_package(earth, tmp_path):
    archive = tmp_path / "stations.zip"
    archive.write_bytes(earth.stations.read_bytes())
    stations = ISMN_Interface(archive, parallel=False)
    domain = read_truth(earth.truth)
    cells = set(zip(domain["row"].values.tolist(), domain["column"].values.tolist(), strict=True))
    counts: dict[tuple[int, int], int] = {}
    depths = set()
    for station in stations.collection["DEMO"].stations.values():
        row, column = grid.cell_index(station.lon, station.lat)
        cell = int(row), int(column)
        assert cell in cells
        counts[cell] = counts.get(cell, 0) + 1
        for sensor in station.sensors.values():
            depths.add(sensor.depth.start)
    assert depths == {0.05, 0.1, 0.2, 0.5, 1.0}
    assert sorted(c for c, n in counts.items() if n >= 3) == sorted(earth.core_cells)
    assert sorted(c for c, n in counts.items() if n < 3) == sorted(earth.extra_cells)
    first = next(iter(stations.collection["DEMO"].stations.values()))
    names = [s.instrument for s in first.sensors.values() if s.depth.start == 0.05]
    assert sorted(names) == ["Hydraprobe-A", "Hydraprobe-B"]
    data = next(iter(first.sensors.values())).data
    flags = set(data["soil_moisture_flag"])
    assert {"G", "M"} <= flags and any("," in flag for flag in flags)
    good = data.loc[data["soil_moisture_flag"] == "G", "soil_moisture"]
    assert good.between(0.0, 0.7).all()


def test_truth_keeps_days_cells_and_layers(earth):
    truth = read_truth(earth.truth)
    assert truth["soil_moisture"].shape == (earth.n_cells, 20, 40)
    assert truth["time"].values[0] == np.datetime64("2015-03-31")
    top, bottom = 0.05, 0.31
    edges, values = truth["interface"].values, truth["soil_moisture"].values
    expected = np.zeros((earth.n_cells, 40))
    for layer in range(20):
        low, high = max(edges[layer], top), min(edges[layer + 1], bottom)
        if high > low:
            expected += values[:, layer] * (high - low) / (bottom - top)
    np.testing.assert_allclose(truth_layer(truth, top, bottom), expected, rtol=1e-5)
    middle = (edges[4] + edges[5]) / 2
    np.testing.assert_allclose(truth_at(truth, middle), values[:, 4], rtol=1e-5)
    with pytest.raises(FileNotFoundError, match="no truth"):
        read_truth(earth.root / "nothing.nc")


def test_relief_is_flat_at_sea_and_covers_the_window(earth):
    with xr.open_dataset(earth.dem) as dem:
        assert dem["elevation"].dims == ("latitude", "longitude")
        assert float(dem["elevation"].min()) == 0.0 and float(dem["elevation"].max()) > 1000
        assert dem["latitude"].values[0] > grid.latitudes()[CONFIG.rows[0]]
        np.testing.assert_allclose(np.diff(dem["longitude"]), 1 / 120, rtol=1e-6)


def test_same_config_gives_the_same_files_and_another_seed_does_not(earth, tmp_path):
    short = {"n_days": 5, "spin_up_days": 5, **centred_window(8)}
    roots = [
        write_earth(EarthConfig(seed=seed, **short), tmp_path / str(i)).root
        for i, seed in enumerate((1, 1, 2))
    ]
    smap = sorted(p.relative_to(roots[0]) for p in roots[0].rglob("*.h5"))
    assert len(smap) == 40
    same = [(roots[0] / p).read_bytes() == (roots[1] / p).read_bytes() for p in smap]
    other = [(roots[0] / p).read_bytes() == (roots[2] / p).read_bytes() for p in smap]
    assert all(same) and not any(other)
    stations = [xr.open_dataset(r / "truth.nc")["soil_moisture"].values for r in roots]
    np.testing.assert_array_equal(stations[0], stations[1])


def test_progress_rises_to_one(earth, told):
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_template_replaces_values_and_texts_only_if_they_fit(tmp_path: Path):
    def build(file: h5py.File) -> None:
        file.create_dataset("group/a", data=np.zeros((2, 3), np.float32))
        file["group/a"].attrs["note"] = np.bytes_("made at PLACE")

    template = GranuleTemplate(build, ("PLACE",))
    path = tmp_path / "granule.h5"
    path.write_bytes(template.fill({"group/a": np.arange(6).reshape(2, 3)}, {"PLACE": "Paris"}))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["group/a"][()], np.arange(6).reshape(2, 3))
        assert file["group/a"].attrs["note"] == b"made at Paris"
    with pytest.raises(ValueError, match="takes 24 bytes"):
        template.fill({"group/a": np.zeros(5)})
    with pytest.raises(ValueError, match="not as long"):
        template.fill({}, {"PLACE": "Rome"})
