"""The public, labelled face of triple collocation, on NumPy and on Dask."""

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from collocation_series import three_series
from hypothesis import given, settings
from hypothesis import strategies as st

import deepprofile as dp
from deepprofile.collocation import Flag, accumulate, column, fill_invalid, finish


def labelled(n_days=300, n_rows=4, n_columns=3, names=("smap_l4", "era5_land", "gldas"), **options):
    series = three_series(n_days, n_rows * n_columns, **options)
    coords = {
        "time": pd.date_range("2015-03-31", periods=n_days),
        "y": np.arange(n_rows)[::-1] * 9.0,
        "x": np.arange(n_columns) * 9.0,
    }
    return [
        xr.DataArray(
            values.reshape(n_days, n_rows, n_columns),
            coords,
            ("time", "y", "x"),
            name=name,
            attrs={"units": "m3 m-3"},
        )
        for values, name in zip(series, names, strict=True)
    ]


def never(*_args, **_options):
    raise AssertionError("something was computed before it was asked for")


def test_labels_types_and_attributes():
    arrays = labelled(gaps=0.1)
    arrays[0][:250, 0, 0] = np.nan
    found = dp.triple_collocation(*arrays, scale=(1, 1, 0.4))
    assert found["product"].values.tolist() == ["smap_l4", "era5_land", "gldas"]
    for name in ("weight", "error_variance", "sensitivity", "signal_to_noise", "r_squared"):
        assert found[name].dims == ("product", "y", "x")
    assert found["n_samples"].dims == found["flag"].dims == ("y", "x")
    assert found["n_samples"].dtype == np.int32
    assert found["flag"].dtype == np.uint8
    assert found["error_variance"].attrs["units"] == "m6 m-6"
    assert found["flag"].attrs["flag_meanings"].split()[3] == "negative_error_variance_of_smap_l4"
    xr.testing.assert_identical(found["y"], arrays[0]["y"])
    assert "median weights" in found["weight"].attrs["comment"]


def test_numbers_are_those_of_the_kernels():
    arrays = labelled(gaps=0.1)
    found = dp.triple_collocation(*arrays, scale=(1, 1, 0.4))
    expected = finish(accumulate(*(array.values for array in arrays)), (1, 1, 0.4))
    same = ("error_variance", "sensitivity", "signal_to_noise", "r_squared", "n_samples", "flag")
    for name in same:
        np.testing.assert_array_equal(found[name], getattr(expected, name))
    np.testing.assert_array_equal(found["weight"], expected.weight)


@pytest.mark.parametrize("fallback", [True, False])
def test_weights_of_flagged_cells(fallback):
    arrays = labelled()
    arrays[1][:, 2, 1] = np.nan
    found = dp.triple_collocation(*arrays, fallback=fallback)
    assert found["flag"][2, 1] == Flag.TOO_FEW_DAYS
    if fallback:
        raw = dp.triple_collocation(*arrays, fallback=False)
        np.testing.assert_array_equal(
            found["weight"], fill_invalid(raw["weight"].values, raw["flag"].values)
        )
        np.testing.assert_allclose(found["weight"].sum("product"), 1.0)
    else:
        assert np.isnan(found["weight"][:, 2, 1]).all()


chunks = st.fixed_dictionaries(
    {"time": st.integers(40, 300), "y": st.integers(1, 4), "x": st.integers(1, 3)}
)


@settings(max_examples=8, deadline=None)
@given(chunking=st.tuples(chunks, st.none() | chunks, chunks), bootstrap=st.sampled_from([0, 3]))
def test_chunked_equals_whole_and_computes_nothing_before_asked(chunking, bootstrap):
    arrays = labelled(gaps=0.1)
    arrays[2][:, 0, 2] = np.nan
    whole = dp.triple_collocation(*arrays, bootstrap=bootstrap)
    with dask.config.set(scheduler=never):
        parts = [a if c is None else a.chunk(c) for a, c in zip(arrays, chunking, strict=True)]
        lazy = dp.triple_collocation(*parts, bootstrap=bootstrap)
    assert all(variable.chunks is not None for variable in lazy.data_vars.values())
    assert lazy["flag"].attrs.keys() == whole["flag"].attrs.keys()
    xr.testing.assert_allclose(lazy.compute(scheduler="sync"), whole, rtol=1e-8)


def test_chunks_of_space_are_kept_and_time_is_added_by_a_tree():
    arrays = [array.chunk(time=10, y=2) for array in labelled()]
    lazy = dp.triple_collocation(*arrays, fallback=False)
    assert lazy["flag"].chunks == ((2, 2), (3,))
    layers = [len(layer) for layer in lazy["flag"].data.dask.layers.values()]
    assert max(layers) == 60  # 30 chunks of time x 2 of space: no task for each day or cell


def test_computing_is_safe_in_threads():
    arrays = [array.chunk(time=50, y=1) for array in labelled()]
    whole = dp.triple_collocation(*labelled(), bootstrap=5)
    found = dp.triple_collocation(*arrays, bootstrap=5).compute(scheduler="threads", num_workers=2)
    xr.testing.assert_allclose(found, whole, rtol=1e-8)


def test_other_dimensions_and_a_single_series():
    a, b, c = labelled()
    points = [array.stack(cell=("y", "x")).drop_vars(("cell", "y", "x")) for array in (a, b, c)]
    found = dp.triple_collocation(*points)
    assert found["weight"].dims == ("product", "cell")
    one = dp.triple_collocation(*(array[:, 1, 2] for array in (a, b, c)))
    assert one["weight"].dims == ("product",)
    np.testing.assert_allclose(one["error_variance"], found["error_variance"][:, 5])
    turned = dp.triple_collocation(a, b.transpose("x", "time", "y"), c)
    xr.testing.assert_allclose(turned, dp.triple_collocation(a, b, c))


def test_another_sample_dimension():
    arrays = [array.rename(time="day").drop_vars("day") for array in labelled()]
    found = dp.triple_collocation(*arrays, dim="day", bootstrap=3)
    expected = dp.triple_collocation(*labelled(), bootstrap=3)
    xr.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("chunked", [False, True])
def test_only_common_days_count(chunked):
    a, b, c = labelled()
    cut = [a[20:], b[:280], c[::2]]
    if chunked:
        cut = [array.chunk(time=37) for array in cut]
    found = dp.triple_collocation(*cut, min_samples=50)
    assert (found["n_samples"] == 130).all()
    expected = dp.triple_collocation(a[20:280:2], b[20:280:2], c[20:280:2], min_samples=50)
    xr.testing.assert_allclose(found.compute(), expected)


def test_names_along_product():
    assert list(dp.triple_collocation(*labelled(names=("t", "t", "t")))["product"]) == [
        "a",
        "b",
        "c",
    ]
    named = dp.triple_collocation(*labelled(), products=("p", "q", "r"))
    assert named["product"].values.tolist() == ["p", "q", "r"]
    with pytest.raises(ValueError, match="three different names"):
        dp.triple_collocation(*labelled(), products=("p", "p", "r"))


def test_a_product_coordinate_on_the_inputs_is_no_obstacle():
    arrays = [array.assign_coords(product=array.name) for array in labelled()]
    assert dp.triple_collocation(*arrays)["product"].size == 3


def test_arrays_that_do_not_belong_together_are_refused():
    a, b, c = labelled()
    with pytest.raises(ValueError, match=r"array b .* has dimensions"):
        dp.triple_collocation(a, b.isel(x=0), c)
    with pytest.raises(ValueError, match="do not lie on the same cells"):
        dp.triple_collocation(a, b, c.assign_coords(x=c["x"] + 1))
    with pytest.raises(ValueError, match=r"no value of 'time' in common .*label every day by"):
        dp.triple_collocation(a, b, c.assign_coords(time=c["time"] + np.timedelta64(6, "h")))
    with pytest.raises(ValueError, match=r"array c .* has repeated values of 'time'"):
        dp.triple_collocation(a, b, xr.concat([c, c[:1]], "time"))
    with pytest.raises(ValueError, match="three positive numbers"):
        dp.triple_collocation(a, b, c, scale=(1, 2))


def test_bootstrap_marks_what_it_cannot_say():
    arrays = labelled()
    arrays[0][:250, 0, 0] = np.nan
    found = dp.triple_collocation(*arrays, bootstrap=10)
    assert np.isnan(found["error_variance_std"][:, 0, 0]).all()
    assert np.isnan(found["weight_std"][:, 0, 0]).all()
    assert np.isfinite(found["weight_std"][:, 1:]).all()


def layered(product="era5_land", tops=(0, 0.07, 0.28), bottoms=(0.07, 0.28, 1.0)):
    values = np.random.default_rng(0).random((6, len(tops), 2, 3), dtype=np.float32)
    coords = {
        "product": ("layer", [product] * len(tops)),
        "top": ("layer", list(tops)),
        "bottom": ("layer", list(bottoms)),
    }
    return xr.DataArray(values, coords, ("time", "layer", "y", "x"), attrs={"units": "m3 m-3"})


def test_column_of_a_product():
    soil_moisture = layered()
    found = column(soil_moisture)
    thickness = xr.DataArray([0.07, 0.21, 0.72], dims="layer")
    np.testing.assert_allclose(found, (soil_moisture * thickness).sum("layer"), rtol=1e-6)
    assert found.name == "era5_land"
    assert found.dims == ("time", "y", "x")
    assert found.dtype == np.float32
    with dask.config.set(scheduler=never):
        lazy = column(soil_moisture.copy(data=soil_moisture.chunk(time=2, layer=1).data))
    xr.testing.assert_identical(lazy.compute(), found)


def test_column_needs_one_product_and_its_layers():
    with pytest.raises(ValueError, match="lacks the coordinates"):
        column(layered().drop_vars("top"))
    with pytest.raises(ValueError, match="several products"):
        column(layered().assign_coords(product=("layer", ["a", "b", "c"])))
    with pytest.raises(ValueError, match="do not make the column"):
        column(layered(bottoms=(0.07, 0.28, 0.9)))


def test_a_dataset_instead_of_an_array_is_explained():
    dataset = xr.Dataset({"x": ("time", np.zeros(3))})
    with pytest.raises(TypeError, match="expected a DataArray"):
        dp.triple_collocation(dataset, dataset, dataset)
