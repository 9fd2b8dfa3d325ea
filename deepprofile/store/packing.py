"""Whole shards packed and unpacked at once, in the format of Zarr's codec ``sharding_indexed``.

zarr itself packs chunk by chunk through several layers of tasks, and reads the shard that is there
before it writes another in its place. Format: Zarr v3 specification of the sharding codec; chunks
are packed by Blosc and followed by their CRC-32C, the index stands at the end and has one too.
"""

from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.abc.codec import Codec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
from zarr.codecs.bytes import Endian
from zarr.codecs.sharding import ShardingCodecIndexLocation

CHECKSUM_BYTES = 4
ABSENT = int(np.iinfo(np.uint64).max)
"""Offset and length of a chunk that is not in its shard."""
_SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


class ShardError(ValueError):
    """A shard that is damaged or not complete."""


@dataclass(frozen=True)
class Packing:
    """How the chunks of a shard are packed.

    Attributes:
        chunk: shape of a chunk.
        blosc: what packs it.
    """

    chunk: tuple[int, ...]
    blosc: Blosc


def packing_of(array: zarr.Array[Any]) -> Packing | None:
    """Packing of an array's shards; None if they are not packed as those of a cube."""
    codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
    one = len(codecs) == 1 and isinstance(codecs[0], ShardingCodec)
    return packing_by(codecs[0]) if one else None


def packing_by(sharding: ShardingCodec) -> Packing | None:
    """Packing by a codec; None if it does not pack as that of a cube does."""
    inner, index = sharding.codecs, sharding.index_codecs
    if [type(codec) for codec in inner] != [BytesCodec, BloscCodec, Crc32cCodec]:
        return None
    if [type(codec) for codec in index] != [BytesCodec, Crc32cCodec]:
        return None
    at_end = sharding.index_location == ShardingCodecIndexLocation.end
    if not at_end or not all(_little(codecs[0]) for codecs in (inner, index)):
        return None
    return Packing(sharding.chunk_shape, _blosc(inner[1]))


def pack(values: NDArray[Any], shard: tuple[int, ...], packing: Packing, fill: Any) -> bytes:
    """A shard as it is stored.

    Args:
        values: what the shard holds; smaller than ``shard`` at the end of an array.
        shard: shape of the shard.
        packing: how its chunks are packed.
        fill: value of the places of a chunk that lie after the end of the array.

    Returns:
        The packed chunks, one after another, and their index. Chunks that lie after the end of
        the array are absent.
    """
    counts = _counts(shard, packing.chunk)
    index = np.full((*counts, 2), ABSENT, dtype="<u8")
    parts: list[bytes] = []
    start = 0
    for position in np.ndindex(counts):
        part = values[_place(position, packing.chunk)]
        if part.size == 0:
            continue
        packed = packing.blosc.encode(_whole(part, packing.chunk, fill))
        index[position] = start, len(packed) + CHECKSUM_BYTES
        start += len(packed) + CHECKSUM_BYTES
        parts += [packed, _checksum(packed)]
    table = index.tobytes()
    return b"".join([*parts, table, _checksum(table)])


def unpack(
    data: NDArray[np.uint8], shard: tuple[int, ...], packing: Packing, dtype: Any, fill: Any
) -> NDArray[Any]:
    """Values of a stored shard.

    Args:
        data: its bytes.
        shard: shape of the shard.
        packing: how its chunks are packed.
        dtype: type of its values.
        fill: value of chunks that are absent.

    Raises:
        ShardError: if the shard is cut off, or a checksum is another than the stored one.
    """
    counts = _counts(shard, packing.chunk)
    index = _index(data, counts)
    values = np.empty(shard, dtype=dtype)
    for position in np.ndindex(counts):
        place, (start, length) = _place(position, packing.chunk), map(int, index[position])
        if start == ABSENT:
            values[place] = fill
            continue
        if start + length > data.size:
            raise ShardError(
                f"the shard is cut off: its chunk {position} ends at byte {start + length}, but "
                f"the shard has {data.size}"
            )
        packed = _checked(data[start : start + length], f"chunk {position}")
        target = values[place]
        if target.flags.c_contiguous:
            packing.blosc.decode(packed, target)
        else:
            target[...] = np.frombuffer(packing.blosc.decode(packed), dtype).reshape(packing.chunk)
    return values


def covers(selection: tuple[Any, ...], shard: tuple[int, ...], chunk: tuple[int, ...]) -> bool:
    """Whether a selection of a shard is made of slices and touches every chunk."""
    return len(selection) == len(shard) and all(
        isinstance(part, slice)
        and part.step in (None, 1)
        and (part.start or 0) < inner
        and (size if part.stop is None else part.stop) > size - inner
        for part, size, inner in zip(selection, shard, chunk, strict=True)
    )


def _little(codec: Codec) -> bool:
    return isinstance(codec, BytesCodec) and codec.endian in (Endian.little, None)


def _blosc(codec: Codec) -> Blosc:
    assert isinstance(codec, BloscCodec)
    shuffle = _SHUFFLES[codec.shuffle.name]
    return Blosc(
        cname=codec.cname.name,
        clevel=codec.clevel,
        shuffle=shuffle,
        blocksize=codec.blocksize,
        typesize=codec.typesize,
    )


def _counts(shard: tuple[int, ...], chunk: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size // inner for size, inner in zip(shard, chunk, strict=True))


def _place(position: tuple[int, ...], chunk: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(i * n, (i + 1) * n) for i, n in zip(position, chunk, strict=True))


def _whole(part: NDArray[Any], chunk: tuple[int, ...], fill: Any) -> NDArray[Any]:
    """A chunk, filled up where the array ends in it."""
    if part.shape == chunk:
        return np.ascontiguousarray(part)
    whole = np.full(chunk, fill, dtype=part.dtype)
    whole[tuple(slice(size) for size in part.shape)] = part
    return whole


def _checksum(data: bytes | NDArray[np.uint8]) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")


def _checked(data: NDArray[np.uint8], what: str) -> NDArray[np.uint8]:
    """The data without their checksum, which is compared."""
    content, stored = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if _checksum(content) != stored.tobytes():
        raise ShardError(f"{what} is damaged: its checksum is not the one that was stored with it")
    return content


def _index(data: NDArray[np.uint8], counts: tuple[int, ...]) -> NDArray[np.uint64]:
    n_bytes = int(np.prod(counts)) * 16 + CHECKSUM_BYTES
    if data.size < n_bytes:
        raise ShardError(
            f"the shard is cut off: it has {data.size} bytes, fewer than its index of {n_bytes}"
        )
    table = _checked(data[-n_bytes:], "the shard is cut off, or its index")
    index: NDArray[np.uint64] = np.frombuffer(table.tobytes(), "<u8").reshape(*counts, 2)
    return index
