"""Templates: the structure of a cube, down to its codecs, before any value is written.

A template says which arrays a cube has, on which dimensions, cut and packed how, with which
coordinates and attributes. It creates the structure, and compares it with what a store holds.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

import deepprofile.store.codec  # noqa: F401  (whole shards are read at once)
from deepprofile.store.layout import BLOCK_DAYS, EPOCH, Region

LAYOUT_VERSION = 1
"""Raised whenever cubes written before can't be continued."""
TIME_CHUNK = 1024
"""Days in one chunk of the time coordinate."""
KIND, VERSION = "deepprofile_kind", "deepprofile_layout"
"""Root attributes that mark a cube: its kind and the version of the layout."""
_SMALL = 64  # coordinates up to this length are written out in the committed metadata


@dataclass(frozen=True)
class ArraySpec:
    """Structure of one data array.

    Attributes:
        name: name of the array.
        dims: names of its dimensions.
        shape: sizes; that of ``time`` is 0, it grows with the cube.
        chunks: size of the unit of writing along each dimension: the shard, or the chunk where
            there are no shards.
        inner: size of the chunks inside a shard; None where there are no shards.
        dtype: NumPy name of the type.
        fill_value: what a missing chunk reads as.
        attributes: CF attributes.
        keep_bits: bits of mantissa kept by the writer; None keeps all.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    inner: tuple[int, ...] | None
    dtype: str
    fill_value: float
    attributes: Mapping[str, Any] = field(default_factory=dict)
    keep_bits: int | None = None

    @property
    def chunk_bytes(self) -> int:
        """Raw bytes of one unit of writing."""
        return int(np.prod(self.chunks)) * np.dtype(self.dtype).itemsize

    def create(self, group: zarr.Group, coordinates: Sequence[str]) -> None:
        """Create the empty array in ``group``; ``coordinates`` are those that describe it."""
        attributes = {"coordinates": " ".join(coordinates), **self.attributes}
        if self.keep_bits is not None:
            attributes["keep_bits"] = self.keep_bits
        typesize = np.dtype(self.dtype).itemsize
        group.create_array(
            self.name,
            shape=self.shape,
            dtype=self.dtype,
            chunks=self.inner or self.chunks,
            shards=self.chunks if self.inner else None,
            compressors=[
                BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=typesize),
                Crc32cCodec(),
            ],
            fill_value=self.fill_value,
            dimension_names=self.dims,
            attributes=_plain(attributes),
        )


@dataclass(frozen=True, eq=False)
class Coordinate:
    """A coordinate: written once with the structure (``time`` alone grows).

    Attributes:
        name: name of the coordinate.
        dims: names of its dimensions.
        values: its values; text as dtype ``str``.
        attributes: CF attributes.
    """

    name: str
    dims: tuple[str, ...]
    values: NDArray[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def create(self, group: zarr.Group) -> None:
        """Create the array in ``group`` and write the values."""
        text = self.values.dtype.kind == "U"
        whole = tuple(max(size, 1) for size in self.values.shape)
        array = group.create_array(
            self.name,
            shape=self.values.shape,
            dtype=str if text else self.values.dtype,
            chunks=(TIME_CHUNK,) if self.name == "time" else whole,
            fill_value="" if text else 0,
            dimension_names=self.dims,
            attributes=_plain(self.attributes),
            config={"write_empty_chunks": True},
        )
        if self.values.size:
            array[...] = self.values.astype(object) if text else self.values


@dataclass(frozen=True, eq=False)
class Template:
    """Structure of a cube.

    Attributes:
        kind: what the cube holds, such as ``"smap_l4"``.
        title: one line for people.
        arrays: the data arrays.
        coordinates: the coordinates.
        region: what the cube covers; None for cubes that are not on the grid.
        first_block: block with which the time axis starts.
    """

    kind: str
    title: str
    arrays: tuple[ArraySpec, ...]
    coordinates: tuple[Coordinate, ...]
    region: Region | None = None
    first_block: int = 0

    @property
    def attributes(self) -> dict[str, Any]:
        """Root attributes, from which a cube's kind, region and first day are known again."""
        attributes: dict[str, Any] = {
            "Conventions": "CF-1.11",
            "title": self.title,
            "source": "DeepProfile",
            "references": "https://doi.org/10.1016/j.rse.2026.115408",
            KIND: self.kind,
            VERSION: LAYOUT_VERSION,
            "first_block": self.first_block,
        }
        if self.region is not None:
            attributes["tile_rows"] = list(self.region.tile_rows)
            attributes["tile_columns"] = list(self.region.tile_columns)
        return attributes

    def create(self, store: Store) -> zarr.Group:
        """Write the structure, with a time axis of length 0, into an empty store."""
        group = zarr.create_group(store, attributes=self.attributes)
        for coordinate in self.coordinates:
            coordinate.create(group)
        for spec in self.arrays:
            spec.create(group, self._describing(spec))
        return group

    def _describing(self, spec: ArraySpec) -> list[str]:
        """Coordinates along an array's dimensions that are not dimensions themselves."""
        return [
            c.name
            for c in self.coordinates
            if c.dims and c.dims != (c.name,) and set(c.dims) <= set(spec.dims)
        ]

    def metadata(self) -> dict[str, Any]:
        """Zarr metadata of the empty cube, and the values of its short coordinates."""
        group = self.create(MemoryStore())
        short = [c for c in self.coordinates if 0 < c.values.size <= _SMALL]
        values = {coordinate.name: coordinate.values.tolist() for coordinate in short}
        return {**read_metadata(group), "values": values}

    def to_json(self) -> str:
        """The metadata as text, in a form in which a change is a readable difference."""
        return json.dumps(self.metadata(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def differences(self, group: zarr.Group) -> list[str]:
        """What in ``group`` is not as this template has it; the length of time doesn't count."""
        expected, found = read_metadata(self.create(MemoryStore())), read_metadata(group)
        found["attributes"] = {
            key: value for key, value in found["attributes"].items() if key in self.attributes
        }
        problems = _compare_parts(expected["attributes"], found["attributes"], "attributes")
        problems += _compare_arrays(expected["arrays"], found["arrays"])
        if problems:
            return problems
        fixed = [c for c in self.coordinates if c.name != "time"]
        return [
            f"values of coordinate {c.name} differ"
            for c in fixed
            if not _same_values(c.values, np.asarray(array_of(group, c.name)[...]))
        ]


def extend(group: zarr.Group, n_days: int) -> None:
    """Let the time axis of a cube grow to ``n_days``; one that is longer is left as it is."""
    time = array_of(group, "time")
    if n_days <= time.shape[0]:
        return
    first_day = int(str(group.attrs["first_block"])) * BLOCK_DAYS
    for _, array in group.arrays():
        names = dimension_names(array)
        if "time" in names and array.name != time.name:
            axis = names.index("time")
            array.resize((*array.shape[:axis], n_days, *array.shape[axis + 1 :]))
    time.resize((n_days,))
    time[:] = np.arange(first_day, first_day + n_days, dtype=time.dtype)


def time_coordinate() -> Coordinate:
    """The time axis, empty: UTC days counted from the epoch."""
    attributes = {
        "units": f"days since {EPOCH.isoformat()}",
        "calendar": "proleptic_gregorian",
        "standard_name": "time",
        "long_name": "UTC day, labelled by its start",
        "axis": "T",
    }
    return Coordinate("time", ("time",), np.empty(0, dtype=np.int32), attributes)


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """The array ``name`` of a cube.

    Raises:
        KeyError: if the cube has no such array; the message names those it has.
    """
    member = group.get(name)
    if not isinstance(member, zarr.Array):
        known = sorted(key for key, _ in group.arrays())
        raise KeyError(f"the cube has no array {name!r}; it has {', '.join(known)}")
    return member


def dimension_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Names of the dimensions of an array of a cube."""
    names = array.metadata.to_dict().get("dimension_names") or ()
    return tuple(str(name) for name in names)  # type: ignore[union-attr]


def read_metadata(group: zarr.Group) -> dict[str, Any]:
    """Attributes and Zarr metadata of a group and its arrays; the length of ``time`` set to 0."""
    arrays = {}
    for name, array in group.arrays():
        metadata = json.loads(json.dumps(array.metadata.to_dict()))
        for axis, dimension in enumerate(dimension_names(array)):
            if dimension == "time":
                metadata["shape"][axis] = 0
        arrays[name] = metadata
    return {"attributes": json.loads(json.dumps(dict(group.attrs))), "arrays": arrays}


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them: lists instead of arrays, Python's numbers."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in attributes.items()
    }


def _same_values(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    if expected.dtype.kind == "f":
        return bool(np.allclose(found, expected, rtol=0.0, atol=1e-6))
    return bool(np.array_equal(found.astype(expected.dtype), expected))


def _flatten(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{path}/{key}")
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for position, item in enumerate(value):
            yield from _flatten(item, f"{path}[{position}]")
    else:
        yield path, value


def _compare_arrays(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    missing = [f"array {name} is missing" for name in sorted(expected.keys() - found.keys())]
    foreign = [f"array {name} is not expected" for name in sorted(found.keys() - expected.keys())]
    common = sorted(expected.keys() & found.keys())
    changed = [_compare_parts(expected[name], found[name], name) for name in common]
    return missing + foreign + list(chain.from_iterable(changed))


def _compare_parts(expected: object, found: object, path: str) -> list[str]:
    have, want = dict(_flatten(found, path)), dict(_flatten(expected, path))
    return [
        f"{key}: found {have.get(key, 'nothing')}, expected {want.get(key, 'nothing')}"
        for key in sorted(have.keys() | want.keys())
        if have.get(key) != want.get(key)
    ]
