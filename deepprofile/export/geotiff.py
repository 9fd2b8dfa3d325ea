"""Layer means as cloud-optimised GeoTIFFs, one a day and layer, and the flags of each day."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.export.files import flag_file, layer_file, whole
from deepprofile.export.part import Part
from deepprofile.export.provenance import history_line
from deepprofile.export.request import ExportError, depths
from deepprofile.profile import Layer
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.parts import SOIL_MOISTURE

MEMORY = 512_000_000
"""Bytes of layer means and flags that are held at once; one day is always held whole."""
MEANS = {
    "dtype": "float32",
    "nodata": np.nan,
    "predictor": "FLOATING_POINT",
    "overview_resampling": "AVERAGE",
}
"""How layer means are stored; the predictor is TIFF's number 3."""
FLAGS = {"dtype": "uint8", "nodata": NOT_PROCESSED, "overview_resampling": "MODE"}
"""How flags are stored."""


def require_rasterio() -> ModuleType:
    """The library that writes GeoTIFF.

    Raises:
        ExportError: if it is not installed; the message names the command that installs it.
    """
    try:
        import rasterio
    except ImportError as error:
        raise ExportError(
            "GeoTIFF needs the library rasterio, which is not installed. Install it with\n"
            '  pip install "deepprofile[export]"'
        ) from error
    module: ModuleType = rasterio
    return module


def write_geotiffs(part: Part, folder: Path, on_file: Callable[[], None]) -> list[Path]:
    """Write a file of each day and layer, and one of each day's flags, into ``folder``.

    Args:
        part: what is exported.
        folder: a folder that exists; files of the same names are replaced.
        on_file: called after each file.

    Returns:
        The files, day by day.
    """
    files, transform = [], transform_of(part.corner)
    for days in part.spans(_days_at_once(part)):
        means, flag = _read_days(part, days)
        for day, layers, flags in zip(part.days[days], means, flag, strict=True):
            for name, values, options, tags in _maps(part, day, layers, flags):
                write_map(folder / name, values, options, transform, tags)
                files.append(folder / name)
                on_file()
    return files


def _maps(
    part: Part, day: date, layers: NDArray[np.float32], flags: NDArray[np.uint8]
) -> Iterator[tuple[str, NDArray[Any], Mapping[str, Any], dict[str, str]]]:
    """Name, values, options and tags of the files of one day."""
    common = {"date": day.isoformat(), "flag_meanings": _meanings(part), **part.provenance}
    for layer, values in zip(part.layers, layers, strict=True):
        yield layer_file(layer, day), values, MEANS, {**_tags(layer), **common}
    yield flag_file(day), flags, FLAGS, {"long_name": "state of the profile", **common}


def _days_at_once(part: Part) -> int:
    rows, columns = part.shape
    return max(1, MEMORY // (rows * columns * (4 * len(part.layers) + 1)))


def _read_days(part: Part, days: slice) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    n_days = days.stop - days.start
    means = np.empty((n_days, len(part.layers), *part.shape), np.float32)
    flag = np.empty((n_days, *part.shape), np.uint8)
    for rows in part.bands():
        means[:, :, rows], flag[:, rows] = part.read(days, rows)
    return means, flag


def write_map(
    path: Path,
    values: NDArray[Any],
    options: Mapping[str, Any],
    transform: Any,
    tags: Mapping[str, str],
) -> None:
    """Write one cloud-optimised GeoTIFF.

    Args:
        path: the file; replaced where there is one.
        values: (rows, columns).
        options: `MEANS` or `FLAGS`.
        transform: affine transform, see `transform_of`.
        tags: metadata, with ``long_name`` and perhaps ``units``.
    """
    rasterio = require_rasterio()
    rows, columns = values.shape
    layout = {"driver": "COG", "compress": "DEFLATE", "crs": f"EPSG:{grid.EPSG}", "count": 1}
    shape = {"height": rows, "width": columns, "transform": transform}
    with (
        whole(path) as partial,
        rasterio.open(partial, "w", **layout, **shape, **options) as file,
    ):
        file.write(values, 1)
        file.update_tags(**tags, history=history_line(path.stem))
        file.set_band_description(1, tags["long_name"])
        if "units" in tags:
            file.set_band_unit(1, tags["units"])


def transform_of(corner: tuple[int, int]) -> Any:
    """Affine transform of columns and rows to metres, for a map that begins at a global cell."""
    row, column = corner
    west, north = grid.X_WEST + column * grid.CELL_SIZE, grid.Y_NORTH - row * grid.CELL_SIZE
    return require_rasterio().Affine(grid.CELL_SIZE, 0.0, west, 0.0, -grid.CELL_SIZE, north)


def _tags(layer: Layer) -> dict[str, str]:
    return {
        "layer": depths(layer),
        "top": f"{layer.top:g} m",
        "bottom": f"{layer.bottom:g} m",
        "units": SOIL_MOISTURE["units"],
        "standard_name": SOIL_MOISTURE["standard_name"],
        "long_name": f"volumetric soil moisture, mean of {depths(layer)}",
    }


def _meanings(part: Part) -> str:
    return ", ".join(f"{value} {meaning}" for value, meaning in part.meanings.items())
