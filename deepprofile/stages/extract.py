"""The job of the stage sample: series, targets and weights of the chosen cells of a tile."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.collocation import Flag as CollocationFlag
from deepprofile.products import PRODUCTS
from deepprofile.store import SinglePiece, Writer, open_cube, read_cells
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS, Tile


@dataclass(frozen=True)
class SampleJob(SinglePiece):
    """The chosen cells of one tile.

    Attributes:
        tile: the tile.
        first: position of its first cell in the samples cube.
        rows: global rows of its cells.
        columns: global columns.
        days: first day index of the period and the one after the last, where the series end;
            what lies before the first is left out.
        cubes: URL of each target product's cube, by product, in order of the layers.
        smap_l4: URL of the cube with the forcing.
        static: URL of the cube with the auxiliary features.
        collocation: URL of the cube with the weights.
        fallback: weight of each product, in the order of ``cubes``, where collocation is invalid.
        fingerprint: of the cubes read, the cells, the fallback and the settings.
    """

    tile: Tile
    first: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    days: tuple[int, int]
    cubes: Mapping[str, str]
    smap_l4: str
    static: str
    collocation: str
    fallback: tuple[float, ...]
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return f"tile {self.tile.row} {self.tile.column}"


class Extracted(NamedTuple):
    """Raw bytes of the shards that a job read, of which it kept little, and of what it wrote."""

    read: int
    written: int


def write_series(writer: Writer, job: SampleJob) -> Extracted:
    """Write the series, features, targets and weights of a tile's cells."""
    cells = {"cell": slice(job.first, job.first + len(job.rows))}
    sources = [(job.smap_l4, "forcing"), *((url, "soil_moisture") for url in job.cubes.values())]
    opened = {url: open_cube(url, chunks=None) for url in dict(sources)}
    cubes = [(opened[url], array) for url, array in sources]
    series, *moisture = (_series(cube, array, job) for cube, array in cubes)
    target = np.concatenate(moisture, axis=1)
    auxiliary = read_cells(job.static, "auxiliary", job.rows, job.columns)
    weight = _layer_weights(job)
    arrays = {"series": series, "auxiliary": auxiliary, "target": target, "weight": weight}
    for name, values in arrays.items():
        writer.write(name, cells, values)
    return Extracted(
        sum(shard_bytes(cube, array, job) for cube, array in cubes),
        sum(values.nbytes for values in arrays.values()),
    )


def shard_bytes(cube: xr.Dataset, array: str, job: SampleJob) -> int:
    """Raw bytes of the shards that a job reads of an array."""
    start, stop = _held_days(cube, job)
    n_days = (-(-stop // BLOCK_DAYS) - start // BLOCK_DAYS) * BLOCK_DAYS
    return n_days * int(cube[array].shape[1]) * TILE_CELLS * cube[array].dtype.itemsize


def _layer_weights(job: SampleJob) -> NDArray[np.float32]:
    """Thickness of each layer in metres times the weight of its product, (cells, layers)."""
    cube = open_cube(job.collocation, chunks=None)
    weight, flag = (read_cells(cube, name, job.rows, job.columns) for name in ("weight", "flag"))
    products = cube["product"].values.tolist()
    weight = weight[:, [products.index(name) for name in job.cubes]]
    weight[flag != CollocationFlag.VALID] = job.fallback
    layers = [
        (number, layer) for number, name in enumerate(job.cubes) for layer in PRODUCTS[name].layers
    ]
    thickness = np.array([layer.thickness for _, layer in layers])
    return np.asarray(weight[:, [number for number, _ in layers]] * thickness, dtype=np.float32)


def _series(cube: xr.Dataset, array: str, job: SampleJob) -> NDArray[np.float32]:
    """Values (cells, …, time) up to the end of the period, missing before its start."""
    start, stop = _held_days(cube, job)
    values = read_cells(cube, array, job.rows, job.columns, (start, stop))
    fitted = np.full((len(values), values.shape[2], job.days[1]), np.nan, np.float32)
    fitted[..., start:stop] = np.moveaxis(values, 1, -1)
    return fitted


def _held_days(cube: xr.Dataset, job: SampleJob) -> tuple[int, int]:
    """Days of the period that a cube has; it may end earlier."""
    start, stop = (min(day, cube.sizes["time"]) for day in job.days)
    return start, stop
