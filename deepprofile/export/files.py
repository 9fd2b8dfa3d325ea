"""Names of exported files, and how they appear: whole or not at all."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from deepprofile import places
from deepprofile.export.request import PRODUCT, ExportError, Request, depths
from deepprofile.profile import Layer

_SHOWN = 3


class Form(StrEnum):
    """What is written."""

    NETCDF = "netcdf"
    """One CF netCDF file of all days and layers."""
    COG = "cog"
    """A cloud-optimised GeoTIFF of each day and layer, and one of the flags of each day."""


def layer_file(layer: Layer, day: date) -> str:
    """Name of the GeoTIFF of a layer and day."""
    return f"{PRODUCT}_{depths(layer)}_{day.isoformat()}.tif"


def flag_file(day: date) -> str:
    """Name of the GeoTIFF of a day's flags."""
    return f"{PRODUCT}_flag_{day.isoformat()}.tif"


def check_output(
    output: str | Path, form: Form, request: Request, days: Iterable[date], overwrite: bool
) -> Path:
    """Path to write to: a file for netCDF, a folder for GeoTIFF; folders are made as needed.

    Raises:
        ExportError: if it is a folder instead of a file or the other way round,
            something of what would be written exists and ``overwrite`` is false, or no file can
            be written there.
    """
    path = Path(output)
    folder = path.parent if form is Form.NETCDF else path
    files = [path] if form is Form.NETCDF else [path / name for name in _names(request, days)]
    try:
        _check_kind(path, form)
        if not overwrite:
            _check_new([file for file in files if file.exists()])
        _make_writable(folder)
    except OSError as error:
        raise ExportError(
            f"output {path}: no file can be written in the folder {folder}: {_reason(error)}. Name "
            "an output in a folder where you may write."
        ) from error
    return path


@contextmanager
def local_output(
    output: str | Path, form: Form, request: Request, days: Iterable[date], overwrite: bool
) -> Iterator[Path]:
    """A local path to write to; for a remote output a temporary one, which is copied at the end.

    Raises:
        ExportError: as `check_output`, or if the output is not a usable URL.
        OSError: if the object store does not answer or refuses.
    """
    try:
        local = places.local_path(output)
    except places.PlaceError as error:
        raise ExportError(f"output {error}") from None
    if local is not None:
        yield check_output(local, form, request, days, overwrite)
        return
    url = str(output).rstrip("/")
    folder, name = (url.rsplit("/", 1)) if form is Form.NETCDF else (url, "")
    names = [name] if name else _names(request, days)
    if not overwrite:
        _check_new([url for name in names if places.exists(url := places.inside(folder, name))])
    with places.written_folder(folder) as copied:
        yield copied / name if name else copied


def named_output(output: str | Path, form: Form, file: Path) -> Path | str:
    """Where a file that was written to a local path lies for the user."""
    if places.local_path(output) is not None:
        return file
    return str(output) if form is Form.NETCDF else places.inside(str(output), file.name)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path`` to write to; it becomes ``path`` when all went well.

    No other export has this name, so two of them to the same path don't meet; the last one stays.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _names(request: Request, days: Iterable[date]) -> list[str]:
    return [
        name
        for day in days
        for name in (*(layer_file(layer, day) for layer in request.layers), flag_file(day))
    ]


def _check_kind(path: Path, form: Form) -> None:
    if form is Form.NETCDF and path.is_dir():
        raise ExportError(f"output {path}: is a folder; expected a file to write, such as out.nc")
    if form is Form.COG and (path.is_file() or path.suffix.lower() in {".tif", ".tiff"}):
        raise ExportError(
            f"output {path}: expected a folder; it gets a file of each day and layer, named after "
            "them"
        )


def _check_new(existing: Sequence[str | Path]) -> None:
    if existing:
        shown = ", ".join(map(str, existing[:_SHOWN]))
        more = f" and {len(existing) - _SHOWN} more" if len(existing) > _SHOWN else ""
        raise ExportError(f"{shown}{more}: already there. Name another output, or --overwrite.")


def _make_writable(folder: Path) -> None:
    """Make a folder and write a file in it, which says more than permissions do."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        file.write(b"0")


def _reason(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "it is a file, or lies under one"
    return error.strerror or str(error)
