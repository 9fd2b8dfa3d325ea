"""GLDAS and ERA5-Land: files on a regular latitude-longitude grid."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import pairwise

import fsspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from deepprofile import grid
from deepprofile.products import Era5Land, Gldas, Granule, MissingVariableError, latlon
from deepprofile.products.base import hours_of
from deepprofile.profile import Layer

DAY = date(2020, 1, 1)
NEXT = DAY + timedelta(days=1)
LATITUDE, LONGITUDE = np.arange(35.125, 38.0, 0.25), np.arange(-6.875, -3.0, 0.25)
TOP, LEFT = (int(i) for i in grid.cell_index(-5.9, 37.0))
ROWS, COLUMNS = slice(TOP, TOP + 8), slice(LEFT, LEFT + 9)
LAYER = (Layer("gldas", 0.0, 0.1),)
SURFACE = (Layer("era5_land", 0.0, 0.07),)


def random_field(seed, shape, missing=0.0):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 0.4, shape)
    values[rng.random(shape) < missing] = np.nan
    return values


def scipy_regrid(values, latitude, longitude, rows=ROWS, columns=COLUMNS):
    """Independent of the package, NaN where any neighbour is missing."""
    order = np.argsort(latitude)
    oracle = RegularGridInterpolator((latitude[order], longitude), values[order])
    points = np.meshgrid(grid.latitudes()[rows], grid.longitudes()[columns], indexing="ij")
    return oracle(np.stack(points, axis=-1))


# --- GLDAS ------------------------------------------------------------------------------------


def write_gldas(folder, values, hour, day=DAY, layers=None, latitude=LATITUDE, units="kg m-2"):
    """One granule; ``values`` in m3 m-3, the same for all layers."""
    folder.mkdir(parents=True, exist_ok=True)
    thickness = {"SoilMoi0_10cm_inst": 0.1, "SoilMoi10_40cm_inst": 0.3, "SoilMoi40_100cm_inst": 0.6}
    dataset = xr.Dataset(
        {
            name: (("time", "lat", "lon"), values[None] * 1000 * t, {"units": units})
            for name, t in thickness.items()
            if layers is None or name in layers
        },
        coords={
            "time": ("time", [hour * 60.0], {"units": "minutes since 2020-01-01"}),
            "lat": ("lat", latitude.astype("f4")),
            "lon": ("lon", LONGITUDE.astype("f4")),
        },
    )
    encoding = {name: {"_FillValue": -9999.0, "dtype": "f4"} for name in dataset.data_vars}
    path = folder / f"GLDAS_NOAH025_3H.A{day:%Y%m%d}.{hour:02d}00.021.nc4"
    dataset.to_netcdf(path, encoding=encoding)
    return path


def read_gldas(folder, layers=None, n_days=1, **options):
    product = Gldas(layers=layers)
    granules, aside = product.granules(str(folder), DAY, DAY + timedelta(days=n_days))
    daily = product.read_daily(granules, DAY, n_days, ROWS, COLUMNS, **options)
    assert_hours(daily, granules)
    return daily, aside


def assert_hours(daily, granules):
    """The listing and the reading agree in which hours there are steps."""
    if daily.set_aside:
        return
    listed = np.zeros_like(daily.hours)
    first = (DAY - date(1970, 1, 1)).days
    for granule in granules:
        for day, hours in granule.hours or hours_of(np.array([granule.start, granule.last])):
            if first <= day < first + len(listed):
                listed[day - first] |= hours
    np.testing.assert_array_equal(daily.hours, listed)


def test_gldas_each_layer_by_its_own_thickness(tmp_path):
    values = random_field(1, (LATITUDE.size, LONGITUDE.size))
    for hour in range(0, 24, 3):
        write_gldas(tmp_path, values, hour)
    daily, _ = read_gldas(tmp_path)
    expected = scipy_regrid(values, LATITUDE, LONGITUDE)
    for layer in range(3):
        np.testing.assert_allclose(daily.values[0, layer], expected, rtol=1e-5)
    assert (daily.n_steps == 8).all()
    assert daily.set_aside == daily.short_days == []


def test_gldas_mean_is_taken_on_its_own_grid_over_the_valid_steps(tmp_path):
    stack = np.stack([random_field(s, (LATITUDE.size, LONGITUDE.size), 0.1) for s in range(7)])
    for step, values in enumerate(stack):
        write_gldas(tmp_path, values, 3 * step)
    daily, _ = read_gldas(tmp_path, LAYER)
    count = np.isfinite(stack).sum(axis=0)
    mean = np.where(count >= 6, np.nansum(stack, axis=0) / count, np.nan)
    expected = scipy_regrid(mean, LATITUDE, LONGITUDE)
    known = np.isfinite(expected)
    assert 5 < known.sum() < known.size
    np.testing.assert_allclose(daily.values[0, 0][known], expected[known], rtol=1e-5)
    steps = daily.n_steps[0]
    np.testing.assert_array_equal(steps >= 6, np.isfinite(daily.values[0, 0]))
    assert steps.max() <= 7


def test_gldas_a_granule_without_a_layer_is_set_aside(tmp_path):
    values = random_field(1, (LATITUDE.size, LONGITUDE.size))
    for hour in range(0, 24, 3):
        names = ["SoilMoi0_10cm_inst"] if hour == 9 else None
        write_gldas(tmp_path, values, hour, layers=names)
    daily, _ = read_gldas(tmp_path)
    assert [item.url[-11:] for item in daily.set_aside] == ["900.021.nc4"]
    assert "SoilMoi10_40cm_inst" in daily.set_aside[0].reason
    assert set(daily.n_steps.ravel()) == {7}
    only_surface, _ = read_gldas(tmp_path, LAYER)
    assert set(only_surface.n_steps.ravel()) == {8}


def test_gldas_granules_that_deviate_are_set_aside(tmp_path):
    values = random_field(1, (LATITUDE.size, LONGITUDE.size))
    paths = [write_gldas(tmp_path, values, hour) for hour in range(0, 24, 3)]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:5000])
    write_gldas(tmp_path, values, 6, latitude=LATITUDE + 0.1)
    write_gldas(tmp_path, values, 9, units="m3 m-3")
    daily, _ = read_gldas(tmp_path, LAYER, min_fraction=0.5)
    assert set(daily.n_steps.ravel()) == {4}
    reasons = sorted((item.url[-13:-8], item.reason) for item in daily.set_aside)
    for (stamp, reason), (hour, words) in zip(
        reasons,
        [("0000", "damaged"), ("0300", "damaged"), ("0600", "another grid"), ("0900", "kg m-2")],
        strict=True,
    ):
        assert hour in stamp
        assert words in reason


def test_gldas_granules_may_hold_different_parts_of_the_grid(tmp_path):
    """The edge of a part is treated like a coast."""
    values = random_field(1, (LATITUDE.size, LONGITUDE.size))
    cut = int(np.searchsorted(LATITUDE, 36.7))
    for hour in range(0, 24, 3):
        part = slice(0, cut) if hour < 9 else slice(None)
        write_gldas(tmp_path, values[part], hour, latitude=LATITUDE[part])
    daily, _ = read_gldas(tmp_path, LAYER, min_fraction=1.0)
    assert daily.set_aside == []
    expected = scipy_regrid(values, LATITUDE, LONGITUDE)
    covered = grid.latitudes()[ROWS] <= LATITUDE[cut - 1]
    assert 0 < covered.sum() < covered.size - 1
    np.testing.assert_allclose(daily.values[0, 0][covered], expected[covered], rtol=1e-5)
    beyond = grid.latitudes()[ROWS] > LATITUDE[cut - 1] + 0.125
    assert np.isnan(daily.values[0, 0][beyond]).all()
    assert set(daily.n_steps[0][beyond].ravel()) == {5}


def test_gldas_south_of_its_grid_is_missing_with_a_reason(tmp_path):
    write_gldas(tmp_path, random_field(1, (LATITUDE.size, LONGITUDE.size)), 0)
    product = Gldas(layers=LAYER)
    granules, _ = product.granules(str(tmp_path), DAY, NEXT)
    daily = product.read_daily(granules, DAY, 1, slice(grid.N_ROWS - 5, grid.N_ROWS), COLUMNS)
    assert np.isnan(daily.values).all()
    assert "nothing of what is wanted" in daily.set_aside[0].reason


def test_gldas_on_another_spacing_is_another_grid(tmp_path):
    values = random_field(1, (LATITUDE.size, LONGITUDE.size))
    write_gldas(tmp_path, values, 0, latitude=35 + np.arange(LATITUDE.size) * 0.5)
    daily, _ = read_gldas(tmp_path, LAYER)
    assert "another grid" in daily.set_aside[0].reason


def test_gldas_elsewhere_is_missing_with_a_reason(tmp_path):
    values = random_field(1, (LATITUDE.size, LONGITUDE.size))
    write_gldas(tmp_path, values, 0, latitude=LATITUDE - 30)
    daily, _ = read_gldas(tmp_path, LAYER)
    assert np.isnan(daily.values).all()
    assert "nothing of what is wanted" in daily.set_aside[0].reason


def test_gldas_values_out_of_range_are_counted(tmp_path):
    values = random_field(1, (LATITUDE.size, LONGITUDE.size))
    values[6, 6] = 1.5
    for hour in range(0, 24, 3):
        write_gldas(tmp_path, values, hour)
    daily, _ = read_gldas(tmp_path, LAYER)
    assert daily.out_of_range == {"soil_moisture_0_10cm": 8}
    assert np.nanmax(daily.values) < 0.41


def test_layers_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"no layer gldas 0-20 cm; available: gldas 0-10 cm"):
        Gldas(layers=[Layer("gldas", 0.0, 0.2)])


def real_gldas(real_data, product, rows=slice(300, 700), columns=slice(800, 1300)):
    folder = real_data("gldas")
    granules, aside = product.granules(str(folder), date(2016, 1, 1), date(2016, 1, 2))
    assert (len(granules), aside) == (7, [])
    return granules, product.read_daily(granules, date(2016, 1, 1), 1, rows, columns)


def test_the_seven_real_granules_equal_scipy_where_all_neighbours_are_land(real_data):
    product = Gldas(layers=Gldas().layers[:2])
    rows, columns = slice(300, 700), slice(800, 1300)
    granules, daily = real_gldas(real_data, product, rows, columns)
    names = ["SoilMoi0_10cm_inst", "SoilMoi10_40cm_inst"]
    days = []
    for granule in granules:
        with xr.open_dataset(granule.url) as dataset:
            days.append(dataset[names].isel(time=0).load())
            latitude, longitude = dataset["lat"].values, dataset["lon"].values
    for layer, (name, thickness) in enumerate(zip(names, (0.1, 0.3), strict=True)):
        mean = np.mean([day[name].values.astype("f8") for day in days], axis=0)
        expected = scipy_regrid(mean, latitude, longitude, rows, columns) / (1000 * thickness)
        known = np.isfinite(expected)
        assert known.sum() > 50_000
        found = daily.values[0, layer]
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-5)
        assert (daily.n_steps[0][known] == 7).all()
        assert np.isnan(found).any()
    assert daily.set_aside == []


def test_a_layer_that_the_real_granules_lack_is_an_error_with_file_and_variable(real_data):
    with pytest.raises(
        MissingVariableError, match=r"A20160101\.0300\.021\.nc4.*SoilMoi40_100cm_inst"
    ):
        real_gldas(real_data, Gldas())


# --- ERA5-Land --------------------------------------------------------------------------------

ERA_LATITUDE, ERA_LONGITUDE = np.arange(38.0, 35.05, -0.1), np.arange(-7.0, -2.95, 0.1)


def era5(values, first=DAY, schema="old", packed=False, convention=180, names=("swvl1",)):
    """Hourly dataset; ``values`` has shape (hours, latitudes, longitudes)."""
    longitude = ERA_LONGITUDE % 360 if convention == 360 else ERA_LONGITUDE
    time = "time" if schema == "old" else "valid_time"
    hours = np.datetime64(first, "ns") + np.arange(len(values)) * np.timedelta64(1, "h")
    dataset = xr.Dataset(
        {n: ((time, "latitude", "longitude"), values, {"units": "m**3 m**-3"}) for n in names},
        coords={
            time: hours,
            "latitude": ERA_LATITUDE.astype("f4"),
            "longitude": longitude.astype("f4"),
        },
    )
    if schema == "new":
        dataset = dataset.assign_coords(
            number=0, expver=("valid_time", np.array(["0001"] * len(values), dtype=object))
        )
    if packed:
        for name in names:
            dataset[name].encoding = {
                "dtype": "i2",
                "scale_factor": 1e-5,
                "add_offset": 0.3,
                "_FillValue": -32767,
            }
    return dataset


def read_era5(folder, n_days=1, layers=SURFACE, **options):
    product = Era5Land(layers=layers)
    granules, aside = product.granules(str(folder), DAY, DAY + timedelta(days=n_days))
    daily = product.read_daily(granules, DAY, n_days, ROWS, COLUMNS, **options)
    assert_hours(daily, granules)
    return daily, granules, aside


def hourly(seed=0, n=24, missing=0.0):
    return random_field(seed, (n, ERA_LATITUDE.size, ERA_LONGITUDE.size), missing)


@pytest.mark.parametrize("schema", ["old", "new"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("convention", [180, 360])
def test_era5_schemas_packings_and_longitudes_give_the_same(tmp_path, schema, packed, convention):
    values = hourly()
    era5(values, schema=schema, packed=packed, convention=convention).to_netcdf(tmp_path / "a.nc")
    daily, granules, aside = read_era5(tmp_path)
    expected = scipy_regrid(values.mean(axis=0), ERA_LATITUDE, ERA_LONGITUDE)
    np.testing.assert_allclose(daily.values[0, 0], expected, rtol=5e-5)
    assert (daily.n_steps == 24).all()
    assert aside == daily.set_aside == []
    assert (granules[0].steps, granules[0].last) == (24, np.datetime64("2020-01-01T23:00:00"))


def test_era5_ascending_latitudes(tmp_path):
    values = hourly()
    era5(values).isel(latitude=slice(None, None, -1)).to_netcdf(tmp_path / "a.nc")
    daily, _, _ = read_era5(tmp_path)
    expected = scipy_regrid(values.mean(axis=0), ERA_LATITUDE, ERA_LONGITUDE)
    np.testing.assert_allclose(daily.values[0, 0], expected, rtol=5e-5)


def test_era5_preliminary_data_fill_in_along_expver(tmp_path):
    values = hourly(n=48)
    final, preliminary = values.copy(), values + 0.2
    final[30:] = np.nan
    dataset = xr.concat([era5(preliminary), era5(final)], "expver").assign_coords(expver=[5, 1])
    dataset.transpose("time", "expver", ...).to_netcdf(tmp_path / "a.nc")
    daily, granules, _ = read_era5(tmp_path, n_days=2)
    mixed = np.concatenate([values[:30], values[30:] + 0.2])
    for day in range(2):
        mean = mixed[day * 24 : day * 24 + 24].mean(axis=0)
        expected = scipy_regrid(mean, ERA_LATITUDE, ERA_LONGITUDE)
        np.testing.assert_allclose(daily.values[day, 0], expected, rtol=5e-5)
    assert granules[0].version == "1+5"


def test_era5_final_files_come_before_preliminary_ones(tmp_path):
    values = hourly(n=48)
    preliminary = era5(values + 0.2, schema="new")
    preliminary["expver"][:] = "0005"
    preliminary.to_netcdf(tmp_path / "a.nc")
    era5(values[:24], schema="new").to_netcdf(tmp_path / "b.nc")
    daily, granules, _ = read_era5(tmp_path, n_days=2)
    assert [g.version for g in granules] == ["1", "5"]
    first = scipy_regrid(values[:24].mean(axis=0), ERA_LATITUDE, ERA_LONGITUDE)
    second = scipy_regrid(values[24:].mean(axis=0) + 0.2, ERA_LATITUDE, ERA_LONGITUDE)
    np.testing.assert_allclose(daily.values[:, 0], [first, second], rtol=5e-5)
    assert "24 of its steps" in daily.set_aside[0].reason


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 71), max_size=4, unique=True), st.integers(1, 4))
def test_era5_the_cut_into_files_does_not_matter(tmp_path_factory, cuts, read_steps):
    folder = tmp_path_factory.mktemp("era5")
    values = hourly(n=72, missing=0.02)
    edges = [0, *sorted(cuts), 72]
    for start, stop in pairwise(edges):
        part = era5(values).isel(time=slice(start, stop))
        part.to_netcdf(folder / f"{stop:02d}.nc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latlon, "READ_BYTES", read_steps * 4 * 200)
        daily, granules, _ = read_era5(folder, n_days=3)
    assert len(granules) == len(edges) - 1
    for day in range(3):
        hours = values[day * 24 : day * 24 + 24]
        count = np.isfinite(hours).sum(axis=0)
        mean = np.where(count >= 18, np.nansum(hours, axis=0) / count, np.nan)
        expected = scipy_regrid(mean, ERA_LATITUDE, ERA_LONGITUDE)
        np.testing.assert_allclose(daily.values[day, 0], expected, rtol=5e-5)


def test_era5_days_from_the_middle_of_a_file(tmp_path):
    values = hourly(n=96)
    era5(values).to_netcdf(tmp_path / "a.nc")
    product, middle = Era5Land(layers=SURFACE), DAY + timedelta(days=2)
    granules, _ = product.granules(str(tmp_path), middle, middle + timedelta(days=1))
    daily = product.read_daily(granules, middle, 1, ROWS, COLUMNS)
    expected = scipy_regrid(values[48:72].mean(axis=0), ERA_LATITUDE, ERA_LONGITUDE)
    np.testing.assert_allclose(daily.values[0, 0], expected, rtol=5e-5)
    assert (daily.n_steps == 24).all()


def test_era5_short_days_are_missing_and_reported(tmp_path):
    era5(hourly(n=40)).to_netcdf(tmp_path / "a.nc")
    daily, _, _ = read_era5(tmp_path, n_days=2)
    assert np.isfinite(daily.values[0]).all()
    assert np.isnan(daily.values[1]).all()
    assert daily.n_steps[:, 0, 0].tolist() == [24, 16]
    assert daily.short_days == [(NEXT, 16)]


def test_era5_files_that_cannot_be_used_are_set_aside_when_listed(tmp_path):
    era5(hourly()).to_netcdf(tmp_path / "b.nc")
    era5(hourly()).to_netcdf(tmp_path / "c.nc")
    (tmp_path / "empty.nc").write_bytes(b"")
    (tmp_path / "zipped.nc").write_bytes(b"PK\x03\x04")
    xr.Dataset({"t2m": ("time", [280.0])}, {"time": [0]}).to_netcdf(tmp_path / "other.nc")
    era5(hourly()).isel(time=0).to_netcdf(tmp_path / "timeless.nc")
    daily, granules, aside = read_era5(tmp_path)
    reasons = {item.url.rsplit("/", 1)[-1]: item.reason for item in aside}
    assert [g.url.rsplit("/", 1)[-1] for g in granules] == ["b.nc"]
    assert "duplicate of" in reasons["c.nc"]
    assert "damaged" in reasons["empty.nc"]
    assert "damaged" in reasons["zipped.nc"]
    assert "no soil moisture; it has t2m" in reasons["other.nc"]
    assert "no dimension time" in reasons["timeless.nc"]
    assert (daily.n_steps == 24).all()


def test_era5_a_folder_of_other_netcdf_files_is_an_error(tmp_path):
    xr.Dataset({"t2m": ("time", [280.0])}, {"time": [0]}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(FileNotFoundError, match=r"swvl1.*other\.nc"):
        read_era5(tmp_path)


def test_era5_a_file_of_scattered_days_names_them(tmp_path):
    values = hourly(n=9 * 24)
    hours = np.arange(9 * 24)
    chosen = np.isin(hours // 24, (0, 4, 8))
    era5(values).isel(time=chosen).to_netcdf(tmp_path / "a.nc")
    daily, (granule,), _ = read_era5(tmp_path, n_days=9)
    first = int(np.datetime64(DAY, "D").astype(int))
    assert granule.hours == tuple((first + day, 2**24 - 1) for day in (0, 4, 8))
    assert [day for day, n in daily.short_days if n == 0] == [
        DAY + timedelta(days=day) for day in (1, 2, 3, 5, 6, 7)
    ]
    np.testing.assert_array_equal((daily.n_steps == 24).all(axis=(1, 2)).nonzero()[0], [0, 4, 8])


@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
def test_classic_netcdf_files_are_read_in_several_threads(tmp_path, kind):
    values = hourly(n=48)
    for name in ("classic", "hdf5"):
        (tmp_path / name).mkdir()
    era5(values).to_netcdf(tmp_path / "classic/a.nc", format=kind)
    era5(values).to_netcdf(tmp_path / "hdf5/a.nc")
    expected = read_era5(tmp_path / "hdf5", n_days=2)[0].values
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: read_era5(tmp_path / "classic", n_days=2)[0].values, range(8))
        for one in found:
            np.testing.assert_array_equal(one, expected)


def test_era5_from_any_fsspec_url(tmp_path):
    values = hourly()
    era5(values).to_netcdf(tmp_path / "a.nc")
    memory = fsspec.filesystem("memory")
    memory.pipe("/era5-test/2020/a.nc", (tmp_path / "a.nc").read_bytes())
    memory.pipe("/era5-test/2020/bad.nc", b"no netCDF")
    try:
        remote, granules, aside = read_era5("memory://era5-test")
    finally:
        memory.rm("/era5-test", recursive=True)
    np.testing.assert_array_equal(remote.values, read_era5(tmp_path)[0].values)
    assert granules[0].url == "memory:///era5-test/2020/a.nc"
    assert "damaged" in aside[0].reason


def test_era5_a_window_across_greenwich_and_the_poleward_end(tmp_path):
    latitude, longitude = np.arange(90.0, 79.95, -0.1), np.arange(0.0, 360.0, 0.1)
    values = (latitude[:, None] / 200 + 0.1 * np.cos(np.radians(longitude)))[None].repeat(24, 0)
    hours = np.datetime64(DAY, "ns") + np.arange(24) * np.timedelta64(1, "h")
    dataset = xr.Dataset(
        {"swvl1": (("time", "latitude", "longitude"), values, {"units": "m3 m-3"})},
        coords={"time": hours, "latitude": latitude, "longitude": longitude},
    )
    dataset.to_netcdf(tmp_path / "a.nc")
    product = Era5Land(layers=SURFACE)
    granules, _ = product.granules(str(tmp_path), DAY, NEXT)
    columns = slice(grid.N_COLUMNS // 2 - 5, grid.N_COLUMNS // 2 + 5)
    daily = product.read_daily(granules, DAY, 1, slice(0, 4), columns)
    expected = grid.latitudes()[:4, None] / 200 + 0.1 * np.cos(
        np.radians(grid.longitudes()[columns])
    )
    np.testing.assert_allclose(daily.values[0, 0], expected, rtol=1e-5)


def test_the_real_era5_file_in_the_new_schema_opens_like_one_in_the_old(real_data, tmp_path):
    path = real_data("era5/ERA5_20200727_20200729.nc")
    product = Era5Land(layers=SURFACE, spacing=0.25)
    start, stop = date(2020, 7, 27), date(2020, 7, 30)
    new, _ = product.granules(str(path), start, stop)
    with xr.open_dataset(path) as dataset:
        old_schema = dataset[["swvl1"]].drop_vars(["number", "expver"]).load()
    latitude, longitude = old_schema["latitude"].values, old_schema["longitude"].values
    old_schema.rename(valid_time="time").to_netcdf(tmp_path / "old.nc")
    old, _ = product.granules(str(tmp_path), start, stop)
    assert (new[0].steps, new[0].start, new[0].last) == (old[0].steps, old[0].start, old[0].last)
    top, left = (int(i) for i in grid.cell_index(146.0, -34.7))
    rows, columns = slice(top, top + 5), slice(left, left + 10)
    found = product.read_daily(new, start, 3, rows, columns)
    again = product.read_daily(old, start, 3, rows, columns)
    np.testing.assert_array_equal(found.values, again.values)
    assert (found.n_steps == 24).all()
    means = old_schema["swvl1"].values.reshape(3, 24, 4, 8).mean(axis=1)
    expected = [scipy_regrid(mean, latitude, longitude, rows, columns) for mean in means]
    np.testing.assert_allclose(found.values[:, 0], expected, rtol=1e-5)


def test_a_granule_object_outside_the_days_is_not_opened():
    time = np.datetime64("2019-12-31T23:00:00")
    daily = Era5Land().read_daily([Granule("/nowhere.nc", time, time)], DAY, 1, ROWS, COLUMNS)
    assert daily.set_aside == []
    assert daily.short_days == [(DAY, 0)]


THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from deepprofile.products.files import open_netcdf

def read(_):
    with open_netcdf(sys.argv[1]) as dataset:
        return float(dataset["height"].mean())

with ThreadPoolExecutor(4) as pool:
    print(set(pool.map(read, range(200))))
"""


def test_threads_of_one_process_open_files_at_once(tmp_path):
    # A process of its own: the netCDF library, which is not used for these, crashes it.
    path = tmp_path / "relief.nc"
    values = np.ones((64, 64), np.float32)
    xr.Dataset({"height": (("y", "x"), values)}).to_netcdf(path, engine="netcdf4")
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "{1.0}"), done.stderr
