import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from deepprofile import grid
from deepprofile.products.base import GranuleError, MissingVariableError
from deepprofile.products.terrain import (
    EARTH_RADIUS,
    FEATURES,
    aggregate,
    gradient,
    terrain_features,
)

TOP, LEFT = (int(i) for i in grid.cell_index(10.0, 45.0))
ROWS, COLUMNS = slice(TOP, TOP + 5), slice(LEFT, LEFT + 6)
PIXEL = 1 / 120


def axes(rows=ROWS, columns=COLUMNS, margin=0.1):
    north, south = grid.latitudes()[[rows.start, rows.stop - 1]] + [0.1, -0.1]
    west, east = grid.longitudes()[[columns.start, columns.stop - 1]] + [-0.1, 0.1]
    latitude = np.arange(north + margin, south - margin, -PIXEL)
    return latitude, np.arange(west - margin, east + margin, PIXEL)


def plane(latitude, longitude, slope, aspect):
    """A plane in local metres that faces ``aspect``: it falls by tan(slope) that way."""
    metres = np.radians(1.0) * EARTH_RADIUS
    middle = np.cos(np.radians(latitude.mean()))
    x = (longitude - longitude.mean()) * metres * middle
    y = (latitude - latitude.mean()) * metres
    fall = np.tan(np.radians(slope))
    facing = np.radians(aspect)
    return 5000 - fall * (np.sin(facing) * x[None, :] + np.cos(facing) * y[:, None])


def write(path, elevation, latitude, longitude, name="elevation", units="m"):
    xr.Dataset(
        {name: (("latitude", "longitude"), elevation, {"units": units})},
        coords={"latitude": latitude, "longitude": longitude},
    ).to_netcdf(path)
    return str(path)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 30.0), st.floats(0.0, 360.0), st.booleans())
def test_gradient_of_a_plane(slope, aspect, ascending):
    latitude = 45 + np.arange(12) * PIXEL * (1 if ascending else -1)
    longitude = 10 + np.arange(9) * PIXEL
    east, north = gradient(plane(latitude, longitude, slope, aspect), latitude, longitude)
    np.testing.assert_allclose(np.degrees(np.arctan(np.hypot(east, north))), slope, rtol=2e-3)
    found = np.degrees(np.arctan2(-east, -north))
    np.testing.assert_allclose((found - aspect + 180) % 360, 180, atol=0.2)


@pytest.mark.parametrize("aspect", [0.0, 90.0, 225.0, 359.0])
@pytest.mark.parametrize("turned", [False, True])
def test_features_of_a_plane(tmp_path, aspect, turned):
    latitude, longitude = axes()
    elevation = plane(latitude, longitude, 2.0, aspect)
    if turned:
        latitude, elevation, longitude = latitude[::-1], elevation[::-1], longitude + 360
    url = write(tmp_path / "dem.nc", elevation, latitude, longitude)
    found = dict(zip(FEATURES, terrain_features([url], ROWS, COLUMNS), strict=True))
    np.testing.assert_allclose(found["slope"], 2.0, rtol=1e-2)
    np.testing.assert_allclose(found["sin_aspect"], np.sin(np.radians(aspect)), atol=0.01)
    np.testing.assert_allclose(found["cos_aspect"], np.cos(np.radians(aspect)), atol=0.01)
    np.testing.assert_allclose(found["latitude"][:, 0], grid.latitudes()[ROWS], rtol=1e-6)
    np.testing.assert_allclose(found["longitude"][0], grid.longitudes()[COLUMNS], rtol=1e-6)
    rise = -np.tan(np.radians(2.0)) * np.cos(np.radians(aspect)) * grid.CELL_SIZE
    if abs(np.cos(np.radians(aspect))) > 0.5:
        assert (np.sign(found["elevation"][:-1] - found["elevation"][1:]) == np.sign(rise)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16))
def test_aggregate_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    n, n_cells = 200, 7
    elevation, cell = rng.normal(500, 100, n), rng.integers(0, n_cells - 1, n)
    east, north = rng.normal(0, 0.1, (2, n))
    elevation[rng.random(n) < 0.2] = np.nan
    east[rng.random(n) < 0.2] = np.nan
    found = aggregate(elevation, east, north, cell, n_cells)
    for c in range(n_cells):
        use = (cell == c) & np.isfinite(elevation) & np.isfinite(east)
        if not use.any():
            assert np.isnan(found[:, c]).all()
            continue
        steepness = np.hypot(east[use], north[use])
        aspect = np.arctan2(-east[use], -north[use])
        mean = np.arctan2((steepness * np.sin(aspect)).sum(), (steepness * np.cos(aspect)).sum())
        expected = [
            elevation[use].mean(),
            np.degrees(np.arctan(steepness)).mean(),
            np.sin(mean),
            np.cos(mean),
        ]
        np.testing.assert_allclose(found[:, c], expected, rtol=1e-6, atol=1e-9)


def test_flat_ground_has_no_aspect_and_does_not_dilute_that_of_a_slope():
    flat = aggregate(np.ones(4), np.zeros(4), np.zeros(4), np.zeros(4, dtype=int), 1)
    assert flat[:, 0].tolist() == [1.0, 0.0, 0.0, 0.0]
    mixed = aggregate(np.ones(4), np.array([0, 0, 0, -0.1]), np.zeros(4), np.zeros(4, dtype=int), 1)
    np.testing.assert_allclose(mixed[2:, 0], [1.0, 0.0], atol=1e-12)


def test_the_second_model_fills_what_the_first_does_not_cover(tmp_path):
    latitude, longitude = axes()
    north = latitude > grid.latitudes()[TOP + 2] - 0.02
    first = write(
        tmp_path / "a.nc", np.full((north.sum(), longitude.size), 100.0), latitude[north], longitude
    )
    second = write(
        tmp_path / "b.nc", np.full((latitude.size, longitude.size), 7.0), latitude, longitude
    )
    found = terrain_features([first, second], ROWS, COLUMNS)[0]
    assert found[:, 0].tolist() == [100.0, 100.0, 100.0, 7.0, 7.0]
    assert np.isnan(terrain_features([first], ROWS, COLUMNS)[:4, 3:]).all()
    assert np.isfinite(terrain_features([first], ROWS, COLUMNS)[4:]).all()


def test_unknown_pixels_are_left_out(tmp_path):
    latitude, longitude = axes()
    elevation = np.full((latitude.size, longitude.size), 50.0)
    elevation[:, longitude < grid.longitudes()[LEFT + 1]] = np.nan
    found = terrain_features(
        [write(tmp_path / "a.nc", elevation, latitude, longitude)], ROWS, COLUMNS
    )
    assert np.isnan(found[0, :, 0]).all()
    assert (found[0, :, 1:] == 50.0).all()
    assert (found[1, :, 1:] == 0.0).all()


@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_windows_across_greenwich_and_in_blocks(tmp_path, west):
    rows, columns = slice(TOP, TOP + 2), slice(grid.N_COLUMNS // 2 - 40, grid.N_COLUMNS // 2 + 40)
    latitude = np.arange(grid.latitudes()[TOP] + 0.2, grid.latitudes()[TOP + 1] - 0.2, -0.02)
    longitude = west + np.arange(0.0, 360.0, 0.02)
    elevation = 1000 + 500 * np.sin(np.radians(longitude * 3))[None] * np.ones((latitude.size, 1))
    found = terrain_features(
        [write(tmp_path / "a.nc", elevation, latitude, longitude)], rows, columns
    )
    centres = np.radians(grid.longitudes()[columns])
    np.testing.assert_allclose(found[0, 0], 1000 + 500 * np.sin(3 * centres), atol=1.5)
    metres = EARTH_RADIUS * np.cos(np.radians(grid.latitudes()[rows]))
    rise = np.abs(1500 * np.cos(3 * centres)) / metres[:, None]
    np.testing.assert_allclose(found[1], np.degrees(np.arctan(rise)), rtol=0.02)
    assert (found[2] < -0.99).all()


def test_models_that_cannot_be_used_are_named(tmp_path):
    latitude, longitude = axes()
    elevation = np.zeros((latitude.size, longitude.size))
    with pytest.raises(ValueError, match="no elevation model"):
        terrain_features([], ROWS, COLUMNS)
    with pytest.raises(MissingVariableError, match=r"b\.nc.*no variable elevation; it has height"):
        url = write(tmp_path / "b.nc", elevation, latitude, longitude, name="height")
        terrain_features([url], ROWS, COLUMNS)
    with pytest.raises(GranuleError, match=r"c\.nc.*'km'"):
        url = write(tmp_path / "c.nc", elevation, latitude, longitude, units="km")
        terrain_features([url], ROWS, COLUMNS)
    with pytest.raises(GranuleError, match=r"d\.nc.*several pixels"):
        url = write(tmp_path / "d.nc", elevation[::20, ::20], latitude[::20], longitude[::20])
        terrain_features([url], ROWS, COLUMNS)
    with pytest.raises(FileNotFoundError):
        terrain_features([str(tmp_path / "nowhere.nc")], ROWS, COLUMNS)
