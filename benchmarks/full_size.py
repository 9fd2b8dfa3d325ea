"""Synthetic SPL4SMGP granules of the real size: the whole globe, 41 variables, about 140 MB.

Laid out as the real files are: 1624 x 3856 float32, one chunk a row, gzip 3 without shuffle,
-9999 at sea. A variable is a smooth field with texture from cell to cell on the 27 % of cells
that are land, with as many bits of mantissa as bring the file to the size of a real one; rain and
snow are zero on most of them. The numbers mean nothing beyond their size and range.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from deepprofile import grid
from deepprofile.products import Field
from deepprofile.products.smap_l4 import FORCING, SOIL_MOISTURE
from deepprofile.store.land import land_cells
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS

FIELDS = FORCING + SOIL_MOISTURE
SHAPE = (grid.N_ROWS, grid.N_COLUMNS)
LAND_SHARE = 0.27
MANTISSA_BITS = 10
ANTARCTICA = -60.0
"""Latitude south of which SMAP L4 has no land."""
_SPARSE = ("precip", "snow", "overland", "runoff")


def write_days(
    folder: Path,
    first: date,
    n_days: int,
    distinct: int = 2,
    hours: Sequence[int] = tuple(range(1, 24, 3)),
    known: NDArray[np.bool_] | None = None,
) -> list[Path]:
    """Granules of whole days: ``distinct`` different ones, and links to them by turns."""
    names = [
        folder / f"SMAP_L4_SM_gph_{first + timedelta(days=d):%Y%m%d}T{hour:02d}3000_Vv7030_001.h5"
        for d in range(n_days)
        for hour in hours
    ]
    for i, path in enumerate(names):
        if i < distinct:
            write_granule(path, seed=i, known=known)
        else:
            path.hardlink_to(names[i % distinct])
    return names


def write_granule(
    path: Path,
    seed: int = 0,
    fields: Sequence[Field] = FIELDS,
    known: NDArray[np.bool_] | None = None,
) -> None:
    """One granule of the whole globe, with values in the cells ``known``, by default `land`."""
    known = land() if known is None else known
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = grid.x_centers(), grid.y_centers()
        for name, index in zip(
            ("cell_row", "cell_column"), np.indices(SHAPE, dtype="u4"), strict=True
        ):
            _write(file, name, index)
        for i, field in enumerate(fields):
            values = _values(field, seed * 100 + i)
            variable = _write(
                file,
                f"Geophysical_Data/{field.source}",
                np.where(known, values, np.float32(-9999)),
            )
            variable.attrs["units"] = np.bytes_(field.units)
            variable.attrs["_FillValue"] = np.float32(-9999)
            variable.attrs["missing_value"] = np.float32(-9999)
            variable.attrs["valid_min"] = np.float32(field.valid_min)
            variable.attrs["valid_max"] = np.float32(field.valid_max)
            variable.attrs["long_name"] = np.bytes_(field.name)
            variable.attrs["coordinates"] = np.bytes_("cell_lat cell_lon")


def _write(file: h5py.File, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    """Rows as chunks, compressed in two threads."""
    dataset = file.create_dataset(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(1, values.shape[1]),
        compression="gzip",
        compression_opts=3,
    )
    for row, stored in enumerate(_compressed(values)):
        dataset.id.write_direct_chunk((row, 0), stored)
    return dataset


def _compressed(values: NDArray[np.generic]) -> Iterator[bytes]:
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda row: zlib.compress(row.tobytes(), 3), values)


def smooth(seed: int, points: int) -> NDArray[np.float32]:
    """A smooth random field over the globe, about 0 to 1."""
    coarse = np.random.default_rng(seed).uniform(0.0, 1.0, (points, 2 * points))
    factors = [n / m for n, m in zip(SHAPE, coarse.shape, strict=True)]
    return np.asarray(zoom(coarse, factors, order=1), np.float32)


def land() -> NDArray[np.bool_]:
    """Which cells of the globe have values."""
    height = smooth(12345, 12)
    return height > np.quantile(height, 1.0 - LAND_SHARE)


@cache
def real_land() -> NDArray[np.bool_]:
    """The land of the Earth without Antarctica, shape (1624, 3856).

    From the 1 km mask of global-land-mask where ``DEEPPROFILE_TEST_DATA`` names a folder that holds
    it; elsewhere every tile has as many land cells as there, side by side.
    """
    folder = os.environ.get("DEEPPROFILE_TEST_DATA")
    path = Path(folder or "") / "static/globe_combined_mask_compressed.npz"
    if folder and path.is_file():
        with np.load(path) as stored:
            sea, latitudes, longitudes = stored["mask"], stored["lat"], stored["lon"]
        rows = _nearest(latitudes, grid.latitudes())
        columns = _nearest(longitudes, grid.longitudes())
        return ~sea[np.ix_(rows, columns)] & (grid.latitudes() > ANTARCTICA)[:, None]
    position = np.arange(TILE_ROWS * TILE_COLUMNS).reshape(TILE_ROWS, TILE_COLUMNS)
    tiles = position < land_cells()[:, :, None, None]
    padded = tiles.transpose(0, 2, 1, 3).reshape(
        tiles.shape[0] * TILE_ROWS, tiles.shape[1] * TILE_COLUMNS
    )
    return padded[: SHAPE[0], : SHAPE[1]]


def _nearest(points: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the evenly spaced points that are nearest to those wanted."""
    exact = (wanted - points[0]) / (points[1] - points[0])
    return np.clip(np.round(exact).astype(np.int64), 0, points.size - 1)


def _values(field: Field, seed: int) -> NDArray[np.float32]:
    texture = np.random.default_rng(seed + 10**6).random(SHAPE, dtype=np.float32)
    share = np.clip(0.2 + 0.5 * smooth(seed, 40) + 0.1 * texture, 0.05, 0.95)
    if any(word in field.name for word in _SPARSE):
        share = np.where(share > 0.6, share, 0.0) if field.valid_min >= 0.0 else share
    values = field.valid_min + share * (field.valid_max - field.valid_min)
    drop = np.uint32(23 - MANTISSA_BITS)
    bits = values.astype(np.float32).view(np.uint32) >> drop << drop
    return np.clip(bits.view(np.float32), field.valid_min, field.valid_max)
