"""Running an export: checks first, then files, then what was written."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from dask.utils import format_bytes
from numpy.typing import NDArray
from rich.console import Console

from deepprofile.export.empty import PREDICTED, EmptyDays, find_empty_days
from deepprofile.export.files import Form, local_output, named_output, whole
from deepprofile.export.geotiff import require_rasterio, write_geotiffs
from deepprofile.export.land import NOT_LAND
from deepprofile.export.netcdf import write_netcdf
from deepprofile.export.part import Part, open_part
from deepprofile.export.request import Request
from deepprofile.progress import Meter, meter


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: the files; URLs where the output is one.
        days: number of days.
        layers: number of layers.
        shape: rows and columns of cells.
        cell_days: how many cells and days have each meaning of the flag. Tiles without land count
            as not land; tiles whose job failed or has not run, as not processed with all cells.
        empty: the days on which no cell has a profile.
        n_bytes: size of all files.
    """

    files: list[Path | str]
    days: int
    layers: int
    shape: tuple[int, int]
    cell_days: dict[str, int]
    empty: EmptyDays
    n_bytes: int

    def __str__(self) -> str:
        """Files, sizes, the share of land cells with a profile by flag, days without any."""
        rows, columns = self.shape
        folder = str(self.files[0]).rsplit("/", 1)[0]
        named = str(self.files[0]) if len(self.files) == 1 else f"files in {folder}"
        number = f"{len(self.files)} " if len(self.files) > 1 else ""
        return (
            f"{number}{named} ({format_bytes(self.n_bytes)}): {_times(self.days, 'day')} × "
            f"{_times(self.layers, 'layer')} of {rows} × {columns} cells; {self._shares()}"
            f"{self._without()}"
        )

    def _shares(self) -> str:
        land = {name: n for name, n in self.cell_days.items() if name != NOT_LAND}
        total = sum(land.values())
        predicted = sum(n for name, n in land.items() if name in PREDICTED)
        parts = ", ".join(f"{n / total:.1%} {name.replace('_', ' ')}" for name, n in land.items())
        return f"{predicted / total:.1%} of {total:,} land cell-days have a profile ({parts})"

    def _without(self) -> str:
        if not self.empty.days:
            return ""
        return f". No cell has a profile on {len(self.empty.days)} of the days: {self.empty}"


def export_layers(
    request: Request,
    form: Form,
    output: str | Path,
    *,
    overwrite: bool = False,
    console: Console | None = None,
) -> Exported:
    """Write layer means of a cube of coefficients as netCDF or cloud-optimised GeoTIFF.

    Everything that can be wrong is found before a file is written; a file appears when it is
    complete.

    Args:
        request: what to export.
        form: ``Form.NETCDF`` for one file, ``Form.COG`` for a folder of files.
        output: the file or the folder.
        overwrite: whether files that exist are replaced.
        console: where progress is shown; None shows none.

    Raises:
        NotACubeError: if there is no cube.
        ExportError: if the cube does not hold what is asked for, no day has a profile, or the
            output can't be written.
    """
    if form is Form.COG:
        require_rasterio()
    part = open_part(request)
    console = console or Console(quiet=True)
    with local_output(output, form, request, part.days, overwrite) as path:
        counts = _count_flags(part, console)
        empty = find_empty_days(part, counts)
        written = _write(part, form, path, console)
        n_bytes = sum(file.stat().st_size for file in written)
    files = [named_output(output, form, file) for file in written]
    summed = part.named_counts(counts.sum(axis=0))
    return Exported(files, len(part.days), len(part.layers), part.shape, summed, empty, n_bytes)


def _count_flags(part: Part, console: Console) -> NDArray[np.int64]:
    with meter(console, "reading flags", part.n_pieces) as progress:
        return part.count_flags(_counter(progress))


def _write(part: Part, form: Form, path: Path, console: Console) -> list[Path]:
    if form is Form.COG:
        n_files = len(part.days) * (len(part.layers) + 1)
        with meter(console, "writing files", n_files) as progress:
            return write_geotiffs(part, path, _counter(progress))
    with meter(console, f"writing {path.name}", part.n_pieces) as progress, whole(path) as partial:
        write_netcdf(part, partial, _counter(progress))
    return [path]


def _counter(progress: Meter) -> Callable[[], None]:
    """Moves a meter on by one at each call."""
    done = count(1)
    return lambda: progress.update(next(done))


def _times(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")
