"""Exports: netCDF and GeoTIFF as others read them, against the polynomial itself."""

import sys
from datetime import date, timedelta
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from rio_cogeo.cogeo import cog_validate
from store_support import REGION

from deepprofile import cli, grid, places
from deepprofile.export import ExportError, Form, Request, export_layers, geotiff, layer_of
from deepprofile.export import part as parts
from deepprofile.export.empty import EmptyDays
from deepprofile.export.files import whole
from deepprofile.store import (
    Block,
    CubeError,
    Writer,
    coefficients_template,
    head,
    history,
    open_cube,
)
from deepprofile.store.repository import open_or_create
from deepprofile.store.template import extend

FLAGS = {
    "flag_values": np.arange(6, dtype=np.uint8),
    "flag_meanings": "valid gap_filled missing_forcing no_full_window missing_features not_land",
}
VALID, GAP_FILLED, MISSING_FORCING, NO_FULL_WINDOW, NOT_LAND = 0, 1, 2, 3, 5
FIRST_BLOCK = 14
FIRST_DAY = date(2016, 6, 21)  # block 14 begins 448 days after 2015-03-31
N_DAYS = 40  # one whole block and a part of one
N_EMPTY = 4  # days before the first full window
DAY = FIRST_DAY + timedelta(30)
LAYERS = tuple(map(layer_of, ("0-100cm", "0.07-0.28m")))


MODEL = {"model": "0123abcd", "precision": "float32", "device": "cpu", "max_gap_days": "5"}


def open_to_write(url):
    """A session in which the structure of the cube is complete."""
    template = coefficients_template(REGION, flag_attributes=FLAGS, first_block=FIRST_BLOCK)
    session = open_or_create(url, template).writable_session("main")
    extend(zarr.open_group(session.store), N_DAYS)
    return session


def commit(session, *, model=MODEL, **noted):
    """Commit a prediction; what is known of the model also becomes attributes of the cube."""
    zarr.open_group(session.store).update_attributes(model)
    return session.commit("predict", {"stage": "predict", **model, **noted})


def make_cube(url):
    """Plausible profiles at the ragged eastern edge of the grid, written without a cluster."""
    session = open_to_write(url)
    rng = np.random.default_rng(7)
    flag = rng.choice([VALID, VALID, GAP_FILLED, MISSING_FORCING], (N_DAYS, *REGION.shape))
    flag[:N_EMPTY] = NO_FULL_WINDOW
    flag[:, :, :20] = NOT_LAND
    coefficients = rng.normal(0, 0.02, (N_DAYS, 10, *REGION.shape)).astype(np.float32)
    coefficients[:, 0] += 0.25
    coefficients[np.broadcast_to(flag[:, None] > GAP_FILLED, coefficients.shape)] = np.nan
    writer = Writer(session)
    writer.write("coefficients", {}, coefficients)
    writer.write("flag", {}, flag.astype(np.uint8))
    commit(session, without_land=[])
    return url


def make_half_cube(url, **noted):
    """The western one of two tiles with profiles everywhere; the other was never written."""
    session = open_to_write(url)
    writer, tile = Writer(session), next(REGION.tiles())
    for block in (FIRST_BLOCK, FIRST_BLOCK + 1):
        place = writer.select(tile, Block(block))
        shape = [place[dim].stop - place[dim].start for dim in ("time", "y", "x")]
        values = np.full((shape[0], 10, *shape[1:]), 0.2, np.float32)
        writer.write("coefficients", place, values)
        writer.write("flag", place, np.zeros(shape, np.uint8))
    commit(session, **noted)
    return url


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return make_cube(str(tmp_path_factory.mktemp("cubes") / "coefficients"))


@pytest.fixture(scope="module")
def cube(url):
    return open_cube(url).load()


def means(cube, top, bottom):
    """Layer means of all days and cells in float64 by integrating the polynomial."""
    coefficients = np.moveaxis(cube["coefficients"].values.astype(np.float64), 1, 0)
    weights = [Polynomial.basis(i).integ() for i in range(10)]
    weights = [(basis(bottom) - basis(top)) / (bottom - top) for basis in weights]
    return np.tensordot(weights, coefficients, axes=1)


def request(url, first=DAY, last=None, **options):
    return Request(url, options.pop("layers", LAYERS), first, last or first, **options)


def index_of(day):
    return (day - FIRST_DAY).days


def test_netcdf_holds_the_means_as_any_reader_sees_them(url, cube, tmp_path):
    last = FIRST_DAY + timedelta(N_DAYS - 1)
    first = FIRST_DAY + timedelta(N_EMPTY)
    path = tmp_path / "new" / "out.nc"
    written = export_layers(request(url, first, last), Form.NETCDF, path)
    assert written.files == [path]
    assert [file.name for file in path.parent.iterdir()] == ["out.nc"]
    with netCDF4.Dataset(path) as file:
        values, flag = file["soil_moisture"], file["flag"]
        assert values.dimensions == ("time", "layer", "y", "x")
        assert values.dtype == np.float32
        assert values.filters()["zlib"]
        assert values.filters()["shuffle"]
        assert not values.filters()["zstd"]
        for i, (top, bottom) in enumerate([(0.0, 1.0), (0.07, 0.28)]):
            # Ten float32 products of at most 0.3, added in float32: a few 1e-8 each.
            expected = means(cube, top, bottom)[N_EMPTY:]
            found = values[:, i].filled(np.nan)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)
        assert not np.ma.is_masked(flag[:])
        np.testing.assert_array_equal(flag[:], cube["flag"].values[N_EMPTY:])
        days = netCDF4.num2date(file["time"][:], file["time"].units, file["time"].calendar)
        assert [d.isoformat() for d in (days[0], days[-1])] == [
            f"{d}T00:00:00" for d in (first, last)
        ]
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        np.testing.assert_array_equal(opened["x"], cube["x"])
        np.testing.assert_array_equal(opened["y"], cube["y"])
        assert opened["top"].values.tolist() == [0.0, 0.07]
        assert opened["bottom"].values.tolist() == [1.0, 0.28]
        assert opened["time"].values[0] == np.datetime64(first)


def test_netcdf_says_what_cf_asks_for(url, tmp_path):
    export_layers(request(url), Form.NETCDF, tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        assert file.Conventions == "CF-1.11"
        assert file.model_fingerprint == "0123abcd"
        assert (file.precision, file.device, file.max_gap_days) == ("float32", "cpu", "5")
        assert file.snapshot == history(url)[0].snapshot_id
        assert "deepprofile" in file.history
        values = file["soil_moisture"]
        assert values.standard_name == "volume_fraction_of_condensed_water_in_soil"
        assert values.units == "m3 m-3"
        assert values.cell_methods == "time: mean layer: mean"
        described = f"{values.coordinates} {values.grid_mapping} {values.ancillary_variables}"
        assert set(described.split()) <= set(file.variables)
        mapping = file[values.grid_mapping]
        assert mapping.grid_mapping_name == "lambert_cylindrical_equal_area"
        assert 'ID["EPSG",6933]' in mapping.crs_wkt
        assert np.isnan(values._FillValue)
        assert len(file["flag"].flag_values) == len(file["flag"].flag_meanings.split())
        assert file["flag"].flag_values.dtype == file["flag"].dtype
        for name in ("time", "depth", "x", "y"):
            bounds = file[file[name].bounds]
            assert bounds.dimensions == (*file[name].dimensions, "bound")
            assert "_FillValue" not in bounds.ncattrs()
        steps = np.diff(file["x_bounds"][:], axis=1)
        np.testing.assert_allclose(steps, grid.CELL_SIZE, rtol=1e-9)
        assert np.diff(file["time_bounds"][:]) == 1
        assert (file["latitude"].units, file["longitude"].units) == (
            "degrees_north",
            "degrees_east",
        )


def test_gdal_finds_the_grid_in_the_netcdf(url, tmp_path):
    export_layers(request(url), Form.NETCDF, tmp_path / "out.nc")
    with rasterio.open(f"netcdf:{tmp_path}/out.nc:flag") as file:
        assert file.crs.to_epsg() == grid.EPSG
        corner = grid.X_WEST + REGION.columns.start * grid.CELL_SIZE
        assert file.transform.c == pytest.approx(corner, abs=1e-3)


@settings(max_examples=12, deadline=None)
@given(
    days=st.tuples(st.integers(0, N_DAYS - 1), st.integers(0, N_DAYS - 1)).map(sorted),
    corner=st.tuples(st.floats(172.7, 179.0), st.floats(-84.5, -69.0)),
    size=st.tuples(st.floats(0.01, 9.0), st.floats(0.01, 9.0)),
)
def test_any_box_and_days_are_cut_out_of_the_whole(url, cube, tmp_path_factory, days, corner, size):
    west, south = corner
    east, north = min(west + size[0], 180.0), south + size[1]
    path = tmp_path_factory.mktemp("box") / "out.nc"
    first, last = (FIRST_DAY + timedelta(day) for day in days)
    asked = request(url, first, last, bounds=(west, south, east, north), layers=LAYERS[:1])
    to_projected = rasterio.warp.transform("EPSG:4326", "EPSG:6933", [west, east], [south, north])
    (left, right), (low, high) = to_projected
    half = grid.CELL_SIZE / 2
    inside = (cube["x"] + half > left) & (cube["x"] - half < right)
    inside = inside & (cube["y"] + half > low) & (cube["y"] - half < high)
    expected = cube.profile.layer(0.0, 1.0)[days[0] : days[1] + 1].where(inside, drop=True)
    with_profile = expected.notnull().any(("y", "x"))
    if not with_profile.any():
        with pytest.raises(ExportError, match="no cell"):
            export_layers(asked, Form.NETCDF, path)
        return
    written = export_layers(asked, Form.NETCDF, path)
    empty = expected["time"].values[~with_profile].astype("datetime64[D]")
    assert written.empty.days == empty.tolist()
    with xr.open_dataset(path) as found:
        np.testing.assert_array_equal(found["soil_moisture"][:, 0], expected)
        np.testing.assert_array_equal(found["x"], expected["x"])
        np.testing.assert_array_equal(found["y"], expected["y"])
        np.testing.assert_array_equal(found["time"], expected["time"])


def test_geotiffs_are_cloud_optimised_and_lie_where_the_cells_lie(url, cube, tmp_path):
    written = export_layers(request(url), Form.COG, tmp_path / "maps")
    names = [f"deepprofile_{part}_{DAY}.tif" for part in ("0-100cm", "7-28cm", "flag")]
    assert [file.name for file in written.files] == names
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == sorted(names)
    for file in written.files:
        assert cog_validate(file, strict=True) == (True, [], [])
    with rasterio.open(written.files[0]) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.crs.to_epsg(), file.dtypes, file.compression.value) == (
            6933,
            ("float32",),
            "DEFLATE",
        )
        assert np.isnan(file.nodata)
        assert file.units == ("m3 m-3",)
        tags = file.tags()
        assert (tags["layer"], tags["date"]) == ("0-100cm", str(DAY))
        assert tags["model_fingerprint"] == "0123abcd"
        assert "1 gap_filled" in tags["flag_meanings"]
        rows, columns = np.indices(file.shape)
        x, y = rasterio.transform.xy(file.transform, rows.ravel(), columns.ravel())
        # Metres of seventeen million: float64 keeps 4e-9 of them.
        np.testing.assert_allclose(np.reshape(x, file.shape)[0], cube["x"], rtol=0, atol=1e-7)
        np.testing.assert_allclose(np.reshape(y, file.shape)[:, 0], cube["y"], rtol=0, atol=1e-7)
        values = file.read(1)
    np.testing.assert_array_equal(values, cube.profile.layer(0.0, 1.0)[index_of(DAY)])
    with rasterio.open(written.files[2]) as file:
        np.testing.assert_array_equal(file.read(1), cube["flag"][index_of(DAY)])


def test_a_place_has_the_value_of_its_cell(url, cube, tmp_path):
    longitude, latitude = 179.2, -80.5
    written = export_layers(request(url), Form.COG, tmp_path)
    row, column = grid.cell_index(longitude, latitude)
    row, column = row - REGION.rows.start, column - REGION.columns.start
    expected = cube.profile.layer(0.07, 0.28)[index_of(DAY)].values[row, column]
    x, y = rasterio.warp.transform("EPSG:4326", "EPSG:6933", [longitude], [latitude])
    with rasterio.open(written.files[1]) as file:
        (found,) = file.sample([(x[0], y[0])])
    np.testing.assert_array_equal(found, [expected])


def test_large_maps_have_averaged_overviews(tmp_path):
    """Overviews begin at 512 cells a side: a map of that size, written as an export writes it."""
    values = np.arange(600 * 700, dtype=np.float32).reshape(600, 700)
    values[:, :2] = np.nan
    origin = geotiff.transform_of((100, 200))
    geotiff.write_map(tmp_path / "a.tif", values, geotiff.MEANS, origin, {"long_name": "a"})
    assert cog_validate(tmp_path / "a.tif", strict=True)[0]
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.overviews(1) == [2]
        assert file.transform.c == grid.X_WEST + 200 * grid.CELL_SIZE
        assert file.transform.f == grid.Y_NORTH - 100 * grid.CELL_SIZE
        half = file.read(1, out_shape=(300, 350))
        expected = values.reshape(300, 2, 350, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(half[:, 1:], expected[:, 1:], rtol=1e-6)
        assert np.isnan(half[:, 0]).all()


def test_days_that_do_not_fit_into_memory_together_are_written_one_by_one(
    url, tmp_path, monkeypatch
):
    last = DAY + timedelta(4)
    together = export_layers(request(url, last=last), Form.COG, tmp_path / "together")
    monkeypatch.setattr(geotiff, "MEMORY", 1)
    alone = export_layers(request(url, last=last), Form.COG, tmp_path / "alone")
    assert len(alone.files) == 5 * 3
    for one, other in zip(together.files, alone.files, strict=True):
        assert one.name == other.name
        with rasterio.open(one) as first, rasterio.open(other) as second:
            np.testing.assert_array_equal(first.read(), second.read())


def test_the_summary_counts_land_cells_by_flag(url, cube, tmp_path):
    written = export_layers(request(url), Form.NETCDF, tmp_path / "out.nc")
    flag = cube["flag"].values[index_of(DAY)]
    assert written.cell_days == {
        "valid": (flag == VALID).sum(),
        "gap_filled": (flag == GAP_FILLED).sum(),
        "missing_forcing": (flag == MISSING_FORCING).sum(),
        "not_land": (flag == NOT_LAND).sum(),
    }
    land = (flag != NOT_LAND).sum()
    share = (flag <= GAP_FILLED).sum() / land
    assert f"{share:.1%} of {land:,} land cell-days have a profile" in str(written)
    assert written.n_bytes == (tmp_path / "out.nc").stat().st_size


@pytest.mark.parametrize("form", list(Form))
def test_tiles_without_land_count_as_sea_and_others_never_written_as_land(tmp_path, form):
    west, east = (REGION.shape[0] * columns for columns in (64, 16))
    sea = make_half_cube(str(tmp_path / "sea"), without_land=["28 60"])
    written = export_layers(request(sea), form, tmp_path / "out-sea")
    assert written.cell_days == {"valid": west, "not_land": east}
    assert f"100.0% of {west:,} land cell-days" in str(written)
    _, flag = exported_day(written.files, form, DAY)
    assert set(flag[:, 64:].ravel()) == {NOT_LAND}

    failed = make_half_cube(str(tmp_path / "failed"), without_land=[])
    written = export_layers(request(failed), form, tmp_path / "out-failed")
    assert written.cell_days == {"valid": west, "not_processed": east}
    shares = f"80.0% of {west + east:,} land cell-days have a profile "
    assert f"{shares}(80.0% valid, 20.0% not processed)" in str(written)
    _, flag = exported_day(written.files, form, DAY)
    assert set(flag[:, 64:].ravel()) == {255}


def test_only_flags_never_written_are_replaced_where_a_box_cuts_a_tile(tmp_path):
    url = make_half_cube(str(tmp_path / "cube"), without_land=["28 59", "28 60"])
    asked = request(url, bounds=(177.0, -82.0, 179.5, -80.5))
    with xr.open_dataset(export_layers(asked, Form.NETCDF, tmp_path / "out.nc").files[0]) as found:
        east = found["x"].values > open_cube(url)["x"].values[63]
        assert 0 < east.sum() < east.size
        expected = np.where(east, NOT_LAND, VALID)
        np.testing.assert_array_equal(found["flag"][0], np.tile(expected, (found.sizes["y"], 1)))


def test_a_publication_during_an_export_does_not_mix_with_it(tmp_path, monkeypatch):
    url = make_half_cube(str(tmp_path / "cube"), without_land=[])
    before = head(url)
    commit(open_to_write(url), model={**MODEL, "model": "newer"}, without_land=["28 60"])
    monkeypatch.setattr(parts, "head", lambda url: before)
    written = export_layers(request(url), Form.NETCDF, tmp_path / "out.nc")
    assert "not_processed" in written.cell_days
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        assert file.model_fingerprint == "0123abcd"
        assert file.snapshot == before


def test_the_newest_list_of_tiles_without_land_counts(tmp_path):
    url = make_half_cube(str(tmp_path / "cube"), without_land=[])
    commit(open_to_write(url), model={**MODEL, "model": "newer"}, without_land=["28 60"])
    session = open_to_write(url)
    zarr.open_group(session.store).update_attributes({"title": "another"})
    session.commit("structure", {"stage": "structure"})  # a commit without a list
    written = export_layers(request(url), Form.NETCDF, tmp_path / "out.nc")
    assert "not_processed" not in written.cell_days


@pytest.mark.parametrize("form", list(Form))
def test_days_without_a_profile_are_exported_beside_others_and_named(url, cube, tmp_path, form):
    written = export_layers(request(url, FIRST_DAY, DAY), form, tmp_path / "out")
    cells = N_EMPTY * REGION.shape[0]
    assert written.empty.cell_days == {
        "no_full_window": cells * (REGION.shape[1] - 20),
        "not_land": cells * 20,
    }
    shown = str(written)
    assert f"on {N_EMPTY} of the days: 2016-06-21, 2016-06-22, 2016-06-23, 2016-06-24 (" in shown
    assert f"{cells * (REGION.shape[1] - 20):,} no full window" in shown
    mean, flag = exported_day(written.files, form, FIRST_DAY)
    assert np.isnan(mean).all()
    np.testing.assert_array_equal(flag, cube["flag"].values[0])
    mean, _ = exported_day(written.files, form, DAY)
    np.testing.assert_array_equal(mean, cube.profile.layer(0.0, 1.0)[index_of(DAY)])


def exported_day(files, form, day):
    """Mean of the first layer and flag of a day, from what an export wrote."""
    if form is Form.NETCDF:
        with xr.open_dataset(files[0], mask_and_scale=False) as found:
            found = found.sel(time=str(day)).load()
        return found["soil_moisture"].values[0], found["flag"].values
    own = [file for file in files if str(day) in file.name]
    with rasterio.open(own[0]) as mean, rasterio.open(own[-1]) as flag:
        return mean.read(1), flag.read(1)


def test_of_many_days_without_a_profile_the_first_are_named():
    days = [FIRST_DAY + timedelta(day) for day in range(7)]
    shown = str(EmptyDays(days, {"no_full_window": 7000}))
    assert shown == (
        "2016-06-21, 2016-06-22, 2016-06-23, 2016-06-24, 2016-06-25 and 2 more days "
        "(cells by flag: 7,000 no full window)"
    )
    assert "and 1 more day (" in str(EmptyDays(days[:6], {}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-100", "has no unit"),
        ("0-1", "has no unit"),
        ("0-100mm", "not understood"),
        ("surface", "not understood"),
        ("-5-10cm", "not understood"),
        ("0-100m", "not inside the profile"),
        ("40-10cm", "not inside the profile"),
        ("0-120cm", "not inside the profile"),
    ],
)
def test_layers_that_could_be_misread_are_refused(text, message):
    with pytest.raises(ExportError, match=message):
        layer_of(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": FIRST_DAY - timedelta(1)}, "holds 2016-06-21 to 2016-07-30"),
        ({"last": FIRST_DAY + timedelta(N_DAYS)}, "holds 2016-06-21 to 2016-07-30"),
        ({"first": FIRST_DAY}, r"no cell .* on 2016-06-21 \(.*no full window"),
        (
            {"first": FIRST_DAY, "last": FIRST_DAY + timedelta(N_EMPTY - 1)},
            r"no cell .* 2016-06-21, 2016-06-22, 2016-06-23, 2016-06-24 \(.*no full window",
        ),
        ({"first": DAY, "last": FIRST_DAY}, "before the first"),
        ({"layers": ()}, "at least one"),
        ({"layers": LAYERS + LAYERS[:1]}, "each once"),
        ({"bounds": (-10, 36, 4, 44)}, r"touch no cell.*west 172\.58, south -84\.66"),
        ({"bounds": (170, -84, -170, -80)}, "date line"),
        ({"bounds": (160, -84, 172, -80)}, "touch no cell"),
        ({"bounds": (170, -84, 174.2, -80)}, "has a profile.*not land"),
    ],
)
def test_what_the_cube_does_not_hold_is_an_error_before_anything_is_written(
    url, tmp_path, options, message
):
    with pytest.raises(ExportError, match=message):
        export_layers(request(url, **options), Form.NETCDF, tmp_path / "sub" / "out.nc")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_other_cubes_and_no_cubes_are_refused(url, tmp_path):
    from store_support import template

    other = str(tmp_path / "era5")
    open_or_create(other, template())
    with pytest.raises(ExportError, match="kind era5_land"):
        export_layers(request(other), Form.NETCDF, tmp_path / "out.nc")
    with pytest.raises(CubeError):
        export_layers(request(str(tmp_path / "nothing")), Form.NETCDF, tmp_path / "out.nc")


def test_outputs_that_exist_stay_unless_told_otherwise(url, tmp_path):
    for form, output in ((Form.NETCDF, tmp_path / "out.nc"), (Form.COG, tmp_path / "maps")):
        file = export_layers(request(url), form, output).files[0]
        file.write_bytes(b"precious")
        with pytest.raises(ExportError, match=f"{file.name}.*already there"):
            export_layers(request(url), form, output)
        assert file.read_bytes() == b"precious"
        export_layers(request(url), form, output, overwrite=True)
        assert file.read_bytes() != b"precious"


def test_outputs_of_the_wrong_kind_are_refused(url, tmp_path):
    (tmp_path / "file").touch()
    for form, output, message in (
        (Form.NETCDF, tmp_path, "is a folder"),
        (Form.COG, tmp_path / "file", "expected a folder"),
        (Form.COG, tmp_path / "map.tif", "expected a folder"),
        (Form.NETCDF, "s3://key:secret@bucket/out.nc", "names credentials"),
    ):
        with pytest.raises(ExportError, match=message):
            export_layers(request(url), form, output)


def test_an_export_to_an_object_store_holds_the_same(url, tmp_path, s3_url):
    here = export_layers(request(url), Form.NETCDF, tmp_path / "out.nc")
    there = export_layers(request(url), Form.NETCDF, f"{s3_url}/maps/out.nc")
    assert there.files == [f"{s3_url}/maps/out.nc"] and there.n_bytes > 1000
    with places.local_copy(f"{s3_url}/maps/out.nc") as copy:
        first, second = (xr.load_dataset(path) for path in (copy, here.files[0]))
    xr.testing.assert_equal(first, second)
    with pytest.raises(ExportError, match=r"maps/out\.nc: already there"):
        export_layers(request(url), Form.NETCDF, f"{s3_url}/maps/out.nc")
    maps = export_layers(request(url), Form.COG, f"{s3_url}/cogs")
    assert sorted(places.find(f"{s3_url}/cogs")) == sorted(map(str, maps.files))


def test_an_export_that_ends_early_leaves_no_file(tmp_path):
    (tmp_path / "old.nc").write_text("old")
    for name in ("new.nc", "old.nc"):
        with pytest.raises(KeyboardInterrupt), whole(tmp_path / name) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["old.nc"]
    assert (tmp_path / "old.nc").read_text() == "old"


def test_two_exports_to_one_path_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "out.nc"
    with whole(path) as first:
        first.write_text("first")
        with whole(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        with pytest.raises(KeyboardInterrupt), whole(path) as third:
            third.write_text("thi")
            raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("{tmp}/afile", "it is a file, or lies under one"),
        ("{tmp}/afile/sub", "it is a file, or lies under one"),
        ("{tmp}/" + "a" * 300, "too long"),
        pytest.param(
            "/proc",  # also the superuser can't make files there
            "folder /proc.*: .* folder where you may write",
            marks=pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc"),
        ),
    ],
)
def test_outputs_that_can_not_be_written_are_refused_before_flags_are_read(
    url, tmp_path, monkeypatch, form, folder, message
):
    (tmp_path / "afile").touch()
    monkeypatch.delattr(parts.Part, "count_flags")
    output = Path(folder.format(tmp=tmp_path)) / ("out.nc" if form is Form.NETCDF else "maps")
    with pytest.raises(ExportError, match=message):
        export_layers(request(url), form, output)
    assert [file.name for file in tmp_path.iterdir()] == ["afile"]


def test_without_rasterio_the_message_says_how_to_get_it(url, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ExportError, match=r"pip install .*deepprofile\[export\]"):
        export_layers(request(url), Form.COG, tmp_path / "maps")
    assert export_layers(request(url), Form.NETCDF, tmp_path / "out.nc").files


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deepprofile", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code


def test_the_command_exports_and_explains(url, tmp_path, monkeypatch, capsys):
    common = [url, "--date", DAY, "--format", "cog", "--output", tmp_path / "maps"]
    box = ["--bounds", "175", "-82.5", "179.5", "-80"]
    layers = ["--layer", "0-100cm", "--layer", "0-0.05m"]
    assert run(monkeypatch, *common, *layers, "--to", DAY + timedelta(1), *box) == 0
    shown = capsys.readouterr().out
    assert "6 files" in shown
    assert "2 days × 2 layers" in shown
    assert Path(tmp_path / "maps" / f"deepprofile_0-5cm_{DAY + timedelta(1)}.tif").exists()
    assert run(monkeypatch, *common, "--layer", "0-100") == 2
    assert "has no unit" in capsys.readouterr().err
