"""Templates: the committed metadata, CF, and what counts as another layout.

Run as a script this file writes the metadata of every kind of cube.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from pyproj import CRS
from store_support import LAYERS, REGION, template
from zarr.storage import MemoryStore

import deepprofile.collocation
import deepprofile.model.flags
import deepprofile.store
from deepprofile.products import PRODUCTS
from deepprofile.store import Region, samples_template
from deepprofile.store.kinds import (
    coefficients_template,
    collocation_template,
    smap_l4_template,
    soil_moisture_template,
    static_template,
)
from deepprofile.store.template import extend

FOLDER = Path(deepprofile.store.__file__).parent / "templates"
CELLS = {
    "row": [400, 400, 401],
    "column": [1000, 1001, 1000],
    "cell_class": ["core", "extra", "other"],
    "split": ["validation", "train", "candidate"],
}


def all_templates():
    """Every kind of cube on the whole grid, with the products' own layers."""
    globe = Region.globe()
    layers = {name: product.layers for name, product in PRODUCTS.items()}
    every_layer = [layer for name in layers for layer in layers[name]]
    forcing = {f.name: f.units for f in PRODUCTS["smap_l4"].fields if f.layer is None}
    tc_flags = deepprofile.collocation.flag_attributes(tuple(PRODUCTS))
    profile_flags = deepprofile.model.flags.flag_attributes()
    return [
        smap_l4_template(globe, forcing, layers["smap_l4"]),
        soil_moisture_template("era5_land", globe, layers["era5_land"]),
        soil_moisture_template("gldas", globe, layers["gldas"]),
        static_template(globe),
        collocation_template(
            globe, list(PRODUCTS), flag_attributes=tc_flags, bootstrap=True, extended=True
        ),
        coefficients_template(globe, flag_attributes=profile_flags),
        samples_template(CELLS, forcing, every_layer),
    ]


@pytest.mark.parametrize("made", all_templates(), ids=lambda made: made.kind)
def test_committed_metadata_is_what_the_code_makes(made):
    path = FOLDER / f"{made.kind}.json"
    committed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    assert json.loads(made.to_json()) == committed, (
        f"the {made.kind} cube has changed against {path}. If that is meant, and cubes written "
        "before may no longer be continued, run `python tests/test_store_templates.py`, look at "
        "the difference and commit it."
    )


@pytest.mark.parametrize("made", all_templates(), ids=lambda made: made.kind)
def test_every_shard_is_packed_and_checked(made):
    for name, array in made.metadata()["arrays"].items():
        spec = next((spec for spec in made.arrays if spec.name == name), None)
        if spec is None:
            continue
        codecs = array["codecs"]
        if spec.inner is not None:
            assert codecs[0]["name"] == "sharding_indexed"
            codecs = codecs[0]["configuration"]["codecs"]
        assert [codec["name"] for codec in codecs] == ["bytes", "blosc", "crc32c"]
        blosc = codecs[1]["configuration"]
        assert (blosc["cname"], blosc["clevel"]) == ("zstd", 3)
        assert (blosc["shuffle"], blosc["typesize"]) == (
            "bitshuffle",
            np.dtype(spec.dtype).itemsize,
        )


def test_a_forcing_shard_is_a_block_of_a_tile_with_all_variables():
    forcing = all_templates()[0].arrays[0]
    assert forcing.chunks == (32, 39, 56, 64)
    assert forcing.inner == (32, 1, 56, 64)
    assert forcing.chunk_bytes == 32 * 39 * 56 * 64 * 4


def opened(made, n_days=3):
    store = MemoryStore()
    group = made.create(store)
    if "time" in group:
        extend(group, n_days)
    return xr.open_zarr(store, consolidated=False, chunks=None, decode_coords="all")


@pytest.mark.parametrize("made", all_templates()[1:], ids=lambda made: made.kind)
def test_cf_metadata_is_complete(made):
    cube = opened(made)
    assert cube.attrs["Conventions"].startswith("CF-")
    for variable in cube.data_vars.values():
        known = {"units", "flag_values"} & variable.attrs.keys()
        assert known or "in the units of" in variable.attrs["long_name"]
    if made.region is None:
        return
    assert CRS.from_cf(cube["spatial_ref"].attrs) == CRS.from_epsg(6933)
    for name in ("x", "y"):
        assert cube[name].attrs["standard_name"] == f"projection_{name}_coordinate"
        assert cube[name].attrs["units"] == "m"
        bounds = cube[f"{name}_bounds"].values
        np.testing.assert_allclose(bounds.mean(axis=1), cube[name].values)
        np.testing.assert_allclose(bounds[1:, 0], bounds[:-1, 1], atol=1e-6)
    for variable in cube.data_vars.values():
        assert variable.encoding["grid_mapping"] == "spatial_ref"
        assert {"latitude", "longitude"} <= set(variable.coords)


def test_time_is_counted_in_days_from_the_epoch_and_the_first_block():
    cube = opened(template(first_block=2))
    assert cube["time"].encoding["units"] == "days since 2015-03-31"
    days = (cube["time"].values - np.datetime64("2015-03-31")) / np.timedelta64(1, "D")
    np.testing.assert_array_equal(days, [64, 65, 66])


def test_integer_arrays_stay_integers():
    cube = opened(template())
    assert cube["n_steps"].dtype == np.uint8


def test_time_grows_and_never_shrinks():
    group = template().create(MemoryStore())
    extend(group, 40)
    extend(group, 10)
    assert group["soil_moisture"].shape[0] == group["n_steps"].shape[0] == 40
    np.testing.assert_array_equal(group["time"][:], np.arange(40))


def test_the_length_of_time_is_no_difference():
    group = template().create(MemoryStore())
    extend(group, 40)
    assert template().differences(group) == []


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (template(layers=LAYERS[:1]), "soil_moisture/shape"),
        (template(keep_bits=8), "soil_moisture/attributes/keep_bits"),
        (template(first_block=1), "attributes/first_block"),
        (template(region=Region((28, 29), (58, 60))), "attributes/tile_columns"),
        (static_template(REGION), "array land is missing"),
    ],
)
def test_differences_are_named(other, named):
    problems = other.differences(template().create(MemoryStore()))
    assert any(named in problem for problem in problems), problems


def test_other_values_of_a_coordinate_are_a_difference():
    group = template().create(MemoryStore())
    group["bottom"][0] = 0.05
    assert template().differences(group) == ["values of coordinate bottom differ"]


def test_another_codec_is_a_difference():
    store = MemoryStore()
    group = template().create(store)
    array = group["n_steps"]
    group.create_array(
        "n_steps",
        shape=array.shape,
        dtype="uint8",
        chunks=array.chunks,
        shards=array.shards,
        dimension_names=("time", "y", "x"),
        attributes=dict(array.attrs),
        overwrite=True,
    )
    problems = template().differences(zarr.open_group(store))
    assert any(problem.startswith("n_steps/codecs[0]") for problem in problems), problems


def write_all():
    for made in all_templates():
        (FOLDER / f"{made.kind}.json").write_text(made.to_json(), encoding="utf-8")
        print(f"wrote {FOLDER / made.kind}.json")


if __name__ == "__main__":
    write_all()
