import h5py
import netCDF4
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import deepprofile as dp
from deepprofile import grid


def test_corner_and_shape_of_the_grid():
    assert abs(grid.X_WEST + 17367530.44) < 0.01
    assert abs(grid.Y_NORTH - 7314540.83) < 0.01
    assert grid.longitudes().shape == (3856,)
    assert grid.latitudes().shape == (1624,)
    assert (np.diff(grid.latitudes()) < 0).all()
    assert (np.diff(grid.longitudes()) > 0).all()


def test_longitudes_are_evenly_spaced_and_latitudes_follow_the_equal_area_formula():
    expected = -180.0 + (np.arange(3856) + 0.5) * 360.0 / 3856
    np.testing.assert_allclose(grid.longitudes(), expected, atol=1e-6)
    # WGS 84 authalic latitude (Snyder 1987, eq. 3-12 and 10-17), turned round numerically.
    a, e = 6378137.0, 0.0818191908426215
    k0 = np.cos(np.radians(30.0)) / np.sqrt(1 - (e * np.sin(np.radians(30.0))) ** 2)
    phi = np.radians(np.linspace(-89.0, 89.0, 200001))
    s = np.sin(phi)
    q = (1 - e**2) * (s / (1 - (e * s) ** 2) - np.log((1 - e * s) / (1 + e * s)) / (2 * e))
    y = a * q / (2 * k0)
    found = np.interp(grid.y_centers(), y, np.degrees(phi))
    np.testing.assert_allclose(grid.latitudes(), found, atol=1e-6)


@given(
    st.integers(0, grid.N_ROWS - 1), st.integers(0, grid.N_COLUMNS - 1), st.sampled_from([0, 360])
)
def test_the_centre_of_a_cell_lies_in_it_in_any_convention(row, column, turn):
    found = grid.cell_index(grid.longitudes()[column] + turn, grid.latitudes()[row])
    assert (int(found[0]), int(found[1])) == (row, column)


def test_points_off_the_grid_get_minus_one():
    rows, columns = grid.cell_index([0.0, 0.0, np.nan, 10.0], [89.0, -86.0, 10.0, np.inf])
    assert rows.tolist() == columns.tolist() == [-1, -1, -1, -1]


def test_the_date_line_belongs_to_the_first_column():
    rows, columns = grid.cell_index([180.0, -180.0, 179.9999, 540.0], [0.1] * 4)
    assert columns.tolist() == [0, 0, grid.N_COLUMNS - 1, 0]
    assert len(set(rows.tolist())) == 1


def test_the_labelled_grid():
    dataset = dp.ease2_grid()
    assert dict(dataset.sizes) == {"y": 1624, "x": 3856}
    assert dataset["latitude"].dims == ("y",)
    assert dataset["longitude"].attrs["units"] == "degrees_east"
    assert dataset["spatial_ref"].attrs["grid_mapping_name"] == "lambert_cylindrical_equal_area"


def test_every_cell_of_a_real_smap_l4_file(real_data):
    with h5py.File(real_data("smap_l4/SMAP_L4_SM_aup_input.h5")) as file:
        x, y, cell_column = file["x"][:], file["y"][:], file["cell_column"][:]
    first = int(cell_column[0, 0])
    np.testing.assert_allclose(grid.x_centers()[first : first + x.size], x, atol=1.0)
    top = int(np.abs(grid.y_centers() - y[0]).argmin())
    np.testing.assert_allclose(grid.y_centers()[top : top + y.size], y, atol=1.0)
    longitude, latitude = np.meshgrid(
        grid.longitudes()[first : first + x.size], grid.latitudes()[top : top + y.size]
    )
    rows, columns = grid.cell_index(longitude, latitude)
    np.testing.assert_array_equal(columns, cell_column)
    np.testing.assert_array_equal(rows, np.arange(top, top + y.size)[:, None] * np.ones_like(rows))


def test_corners_of_the_cells_are_the_centres_of_the_36_km_grid(real_data):
    """Each 36 km centre is the corner where the middle four of its sixteen 9 km cells meet."""
    with netCDF4.Dataset(str(real_data("static/NSIDC0772_LatLon_EASE2_M36km_v1.0.nc"))) as file:
        latitude, longitude = file["latitude"][:, 0].data, file["longitude"][0, :].data
    rows = np.arange(latitude.size) * 4 + 1
    columns = np.arange(longitude.size) * 4 + 1
    between = (grid.longitudes()[columns] + grid.longitudes()[columns + 1]) / 2
    np.testing.assert_allclose(longitude, between, atol=1e-5)
    assert (latitude < grid.latitudes()[rows]).all()
    assert (latitude > grid.latitudes()[rows + 1]).all()
    to_projected = grid._to_projected()
    _, y = to_projected.transform(np.zeros_like(latitude), latitude)
    np.testing.assert_allclose(y, grid.Y_NORTH - (rows + 1) * grid.CELL_SIZE, atol=1.0)
