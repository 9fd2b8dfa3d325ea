"""Zarr's sharding codec with whole shards unpacked at once; importing it puts it into use."""

import asyncio
from typing import Any

import zarr
from icechunk import IcechunkError
from zarr.abc.store import ByteGetter
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import NDBuffer
from zarr.registry import register_codec

from deepprofile.store.messages import cause
from deepprofile.store.packing import ShardError, covers, packing_by, unpack

NAME = "sharding_indexed"


class WholeShardCodec(ShardingCodec):
    """Reads a shard of which every chunk is wanted in one request and one piece of work.

    Everything else, and shards that are packed otherwise than a cube's, is left to zarr.
    """

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, shard_spec: ArraySpec
    ) -> NDBuffer | None:
        try:
            return await self._read(byte_getter, selection, shard_spec)
        except (ValueError, RuntimeError, IcechunkError) as error:
            raise ShardError(f"{_place(byte_getter)} can't be read: {cause(str(error))}") from error

    async def _read(
        self, byte_getter: ByteGetter, selection: Any, shard_spec: ArraySpec
    ) -> NDBuffer | None:
        packing = packing_by(self)
        if packing is None or not covers(selection, shard_spec.shape, packing.chunk):
            return await super()._decode_partial_single(byte_getter, selection, shard_spec)
        data = await byte_getter.get(prototype=shard_spec.prototype)
        if data is None:
            return None
        values = await asyncio.to_thread(
            unpack,
            data.as_numpy_array().view("u1"),
            shard_spec.shape,
            packing,
            shard_spec.dtype.to_native_dtype(),
            shard_spec.fill_value,
        )
        return shard_spec.prototype.nd_buffer.from_ndarray_like(values[selection])


def _place(byte_getter: ByteGetter) -> str:
    """The cube, as far as its store was told by `open_session`, the array and the shard."""
    cube = getattr(getattr(byte_getter, "store", None), "cube", "")
    path = getattr(byte_getter, "path", "")
    array, _, position = path.partition("/c/")
    return f"{cube}: {array}: shard ({', '.join(position.split('/'))})".removeprefix(": ")


register_codec(NAME, WholeShardCodec)
zarr.config.set({f"codecs.{NAME}": f"{WholeShardCodec.__module__}.{WholeShardCodec.__qualname__}"})
