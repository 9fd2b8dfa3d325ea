import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from deepprofile.profile import Layer, combine, depth_matrix, layer_matrix


@st.composite
def bounds(draw):
    top = draw(st.floats(0.0, 0.98))
    return top, draw(st.floats(top + 0.01, 1.0))


@given(bounds(), st.integers(0, 1000))
def test_layer_mean_is_the_integral_of_the_profile(layer, seed):
    beta = np.random.default_rng(seed).normal(size=10)
    top, bottom = layer
    mean = quad(lambda z: np.polyval(beta[::-1], z), top, bottom)[0] / (bottom - top)
    assert float(beta @ layer_matrix([layer])[:, 0]) == pytest.approx(mean, rel=1e-8, abs=1e-10)


@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_value_at_a_depth_is_the_polynomial(depth, seed):
    beta = np.random.default_rng(seed).normal(size=10)
    assert float(beta @ depth_matrix(depth)[:, 0]) == pytest.approx(np.polyval(beta[::-1], depth))


def test_a_thin_layer_tends_to_the_value_at_its_depth_and_layers_add_up():
    thin = layer_matrix([(0.5, 0.5001)])
    np.testing.assert_allclose(thin, depth_matrix([0.50005]), rtol=1e-6)
    parts = layer_matrix([(0.0, 0.07), (0.07, 0.28), (0.28, 1.0)]) @ [0.07, 0.21, 0.72]
    np.testing.assert_allclose(parts, layer_matrix([(0.0, 1.0)])[:, 0], rtol=1e-12)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    n=st.integers(1, 10),
    n_layers=st.integers(1, 3),
    data=st.data(),
)
def test_a_profile_has_the_same_value_to_the_last_bit_in_any_company(shape, n, n_layers, data):
    beta = np.random.default_rng(0).normal(size=(shape[0], n, *shape[1:])).astype(np.float32)
    matrix = layer_matrix([(k / 4, k / 4 + 0.2) for k in range(n_layers)], n)
    whole = combine(np.moveaxis(beta, 1, -1), matrix)
    t, y, x = (data.draw(st.integers(0, size - 1)) for size in shape)
    alone = combine(beta[t, :, y, x], matrix)
    np.testing.assert_array_equal(alone, whole[t, y, x])
    np.testing.assert_allclose(alone, beta[t, :, y, x].astype(float) @ matrix, rtol=0, atol=1e-5)


@pytest.mark.parametrize("top, bottom", [(-0.1, 0.5), (0.5, 0.5), (0.5, 0.2), (0.0, 1.01), (0, 5)])
def test_layers_outside_the_profile_are_refused(top, bottom):
    with pytest.raises(ValueError, match="not inside the profile") as error:
        Layer("smap_l4", top, bottom)
    assert ("divided by 100" in str(error.value)) == (bottom > 1)
    with pytest.raises(ValueError, match="not inside the profile"):
        layer_matrix([(top, bottom)])


def test_bounds_that_are_nan_have_nothing_to_do_with_centimetres():
    with pytest.raises(ValueError, match="not inside the profile") as error:
        layer_matrix([(float("nan"), 0.5)])
    assert "centimetres" not in str(error.value)


@pytest.mark.parametrize("depth", [-0.01, 1.5, float("nan")])
def test_depths_outside_the_profile_are_refused(depth):
    with pytest.raises(ValueError, match="outside the profile"):
        depth_matrix(depth)


def test_a_layer_has_thickness_and_name():
    layer = Layer("era5_land", 0.07, 0.28)
    assert layer.thickness == pytest.approx(0.21)
    assert layer.name == "era5_land 7-28 cm"


def cube(values) -> xr.Dataset:
    return xr.Dataset({"coefficients": (("time", "degree", "y", "x"), values)})


def test_accessor_is_lazy_and_equals_the_matrices():
    values = np.random.default_rng(0).normal(size=(3, 10, 4, 5)).astype(np.float32)
    lazy = cube(da.from_array(values, chunks=(1, 10, 2, 5)))
    surface, root = lazy.profile.layer(0.0, 0.05), lazy.profile.layers([(0, 0.05), (0, 1)])
    assert isinstance(surface.data, da.Array)
    assert isinstance(root.data, da.Array)
    expected = np.einsum("tdyx,dl->tyxl", values, layer_matrix([(0, 0.05), (0, 1)]))
    np.testing.assert_allclose(surface.values, expected[..., 0], rtol=1e-5, atol=1e-6)
    found = root.transpose("time", "y", "x", "layer")
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)
    assert root["bottom"].values.tolist() == [0.05, 1.0]
    depth = lazy.profile.at(0.3)
    expected = np.einsum("tdyx,d->tyx", values, depth_matrix(0.3)[:, 0])
    np.testing.assert_allclose(depth.values, expected, rtol=1e-4, atol=1e-5)
    assert depth.dtype == np.float32
    assert depth.attrs["units"] == "m3 m-3"


def test_missing_coefficients_stay_missing():
    values = np.full((1, 10, 1, 2), np.nan, np.float32)
    values[:, :, :, 0] = 0.1
    assert np.isnan(cube(values).profile.at(0.1).values).tolist() == [[[False, True]]]


def test_a_dataset_without_coefficients_is_refused():
    with pytest.raises(ValueError, match="coefficients"):
        _ = xr.Dataset({"soil_moisture": ("x", [0.1])}).profile


def line(n=3) -> xr.Dataset:
    """One profile of the coefficients 0, 1, 2, ..."""
    return xr.Dataset({"coefficients": (("degree",), np.arange(float(n)))})


@pytest.mark.parametrize(
    "layers", [(0, 1), 0.5, [0.1], [(0, 0.1, 0.2)], ["01"], [("0", "1")], [(False, True)]]
)
def test_layers_that_are_no_pairs_of_numbers_are_explained(layers):
    with pytest.raises(ValueError, match=r"layers? .*: expected .* in metres"):
        line().profile.layers(layers)


def test_no_layers_are_refused():
    with pytest.raises(ValueError, match="no layers"):
        line().profile.layers([])


def test_bounds_and_depths_may_be_arrays_without_dimensions_and_become_floats():
    layer = line().profile.layer(0, np.array(1))
    assert [layer[name].dtype for name in ("top", "bottom")] == [np.float64] * 2
    depth = line().profile.at(np.array(0.2))
    assert depth["depth"].item() == 0.2
    xr.testing.assert_identical(depth, line().profile.at(xr.DataArray(0.2)))
    assert line().profile.at(0)["depth"].dtype == np.float64


@pytest.mark.parametrize("part", [slice(None, None, -1), slice(1, None), [0, 2]])
def test_degrees_that_are_not_all_in_their_order_are_refused(part):
    whole = line().assign_coords(degree=np.arange(3, dtype=np.int32))
    assert whole.profile.at(0.2).item() == line().profile.at(0.2).item()
    with pytest.raises(ValueError, match=r"degree is \[.*every power of depth in its order"):
        whole.isel(degree=part).profile.at(0.2)


@pytest.mark.parametrize("depth", ["0.2", [0.1, 0.2], None, True])
def test_a_depth_that_is_no_number_is_explained(depth):
    with pytest.raises(ValueError, match="expected one depth in metres"):
        line().profile.at(depth)
