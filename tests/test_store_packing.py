"""Whole shards, packed and unpacked at once, against zarr's own sharding codec."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, ShardingCodec
from zarr.storage import MemoryStore

from deepprofile.store import codec
from deepprofile.store.packing import ShardError, covers, pack, packing_of, unpack

COMPRESSORS = [
    BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=4),
    Crc32cCodec(),
]


def array_of(shape, shard, chunk, dtype="float32", fill=np.nan, compressors=COMPRESSORS):
    store = MemoryStore()
    zarr.create_array(
        store,
        shape=shape,
        shards=shard,
        chunks=chunk,
        dtype=dtype,
        fill_value=fill,
        compressors=compressors,
        config={"write_empty_chunks": True},
    )
    return store


def stored(store, key):
    return np.frombuffer(store._store_dict[key].to_bytes(), np.uint8)


@st.composite
def layouts(draw):
    """Shape of a chunk, of a shard of whole chunks, and of an array that ends in its one shard."""
    n_dims = draw(st.integers(1, 4))
    chunk = tuple(draw(st.integers(1, 4)) for _ in range(n_dims))
    shard = tuple(n * draw(st.integers(1, 3)) for n in chunk)
    shape = tuple(draw(st.integers(1, n)) for n in shard)
    return chunk, shard, shape


@settings(deadline=None, max_examples=25)
@given(layouts(), st.sampled_from(["float32", "uint8", "int64"]))
def test_what_is_packed_is_what_zarr_reads_and_the_other_way_round(layout, dtype):
    chunk, shard, shape = layout
    fill = np.nan if dtype == "float32" else 0
    values = 1 + np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    whole = np.full(shard, fill, dtype)
    whole[tuple(slice(n) for n in shape)] = values
    key = "/".join(["c", *"0" * len(shape)])

    with zarr.config.set({f"codecs.{codec.NAME}": "zarr.codecs.sharding.ShardingCodec"}):
        store = array_of(shape, shard, chunk, dtype, fill)
        array = zarr.open_array(store, mode="r+")
        assert type(array.metadata.codecs[0]) is ShardingCodec
        packing = packing_of(array)
        array[...] = values
        np.testing.assert_array_equal(
            unpack(stored(store, key), shard, packing, dtype, fill), whole
        )

        packed = pack(values, shard, packing, fill)
        store._store_dict[key] = store._store_dict[key].from_bytes(packed)
        np.testing.assert_array_equal(zarr.open_array(store)[...], values)
    np.testing.assert_array_equal(zarr.open_array(store)[...], values)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_any_selection_reads_as_with_zarr(data):
    shape, values = (7, 6, 5), np.random.default_rng(0).random((7, 6, 5), np.float32)
    store = array_of(shape, (4, 6, 4), (4, 1, 4))
    zarr.open_array(store, mode="r+")[...] = values
    part = tuple(
        data.draw(
            st.one_of(
                st.just(slice(None)),
                st.slices(n).filter(lambda chosen: (chosen.step or 1) > 0),
                st.integers(0, n - 1),
            )
        )
        for n in shape
    )
    array = zarr.open_array(store)
    assert type(array.metadata.codecs[0]) is codec.WholeShardCodec
    np.testing.assert_array_equal(array[part], values[part])
    rows = data.draw(st.lists(st.integers(0, 6), min_size=1))
    np.testing.assert_array_equal(array.oindex[rows], values[rows])


def test_a_shard_that_is_absent_reads_as_the_fill_value():
    store = array_of((4, 2), (4, 2), (4, 1))
    assert np.isnan(zarr.open_array(store)[...]).all()


def test_a_chunk_that_is_absent_reads_as_the_fill_value():
    store = array_of((4, 2), (4, 2), (4, 1))
    array = zarr.open_array(store, mode="r+")
    packing = packing_of(array)
    packed = pack(np.ones((4, 1), np.float32), (4, 2), packing, np.nan)
    found = unpack(np.frombuffer(packed, np.uint8), (4, 2), packing, "float32", np.nan)
    np.testing.assert_array_equal(found, [[1, np.nan]] * 4)


def test_every_flipped_byte_and_every_cut_is_an_error():
    values = np.random.default_rng(0).random((4, 3), np.float32)
    packing = packing_of(zarr.open_array(array_of((4, 3), (4, 3), (4, 1))))
    packed = np.frombuffer(pack(values, (4, 3), packing, np.nan), np.uint8)
    for position in range(packed.size):
        damaged = packed.copy()
        damaged[position] ^= 16
        with pytest.raises(ShardError, match=r"damaged|cut off"):
            unpack(damaged, (4, 3), packing, "float32", np.nan)
        with pytest.raises(ShardError, match="cut off"):
            unpack(packed[:position], (4, 3), packing, "float32", np.nan)


@pytest.mark.parametrize(
    "compressors",
    [[], [Crc32cCodec()], [zarr.codecs.GzipCodec()], [BloscCodec(typesize=4)]],
    ids=["raw", "crc32c", "gzip", "blosc"],
)
def test_other_codecs_are_left_to_zarr(compressors):
    values = np.random.default_rng(0).random((4, 6), np.float32)
    store = array_of((4, 6), (4, 6), (4, 1), compressors=compressors)
    array = zarr.open_array(store, mode="r+")
    assert packing_of(array) is None
    array[...] = values
    np.testing.assert_array_equal(zarr.open_array(store)[...], values)


def test_a_selection_covers_a_shard_when_it_touches_every_chunk():
    assert covers((slice(1, 4), slice(0, 3)), (4, 3), (4, 1))
    assert covers((slice(None), slice(None)), (4, 3), (4, 1))
    assert not covers((slice(0, 4), slice(0, 2)), (4, 3), (4, 1))
    assert not covers((slice(0, 4), slice(1, 3)), (4, 3), (4, 1))
    assert not covers((slice(0, 4, 2), slice(0, 3)), (4, 3), (4, 1))
    assert not covers((0, slice(0, 3)), (4, 3), (4, 1))
    assert not covers((np.array([0]), slice(0, 3)), (4, 3), (4, 1))
