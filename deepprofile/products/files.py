"""Files of a product: finding them below a URL and opening them, local or remote."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any

import fsspec
import h5py
import numpy as np
import xarray as xr

from deepprofile.products.base import Granule, GranuleError, SetAside

_NOT_THE_CONTENT = (FileNotFoundError, PermissionError, ConnectionError, TimeoutError)
_SAME_UNITS = {"dimensionless": "1", "-": "1", "": "1", "m**3 m**-3": "m3 m-3"}


def find_files(url: str) -> list[str]:
    """All files below ``url``, recursively, sorted; ``url`` itself if it is a file."""
    filesystem, path = fsspec.url_to_fs(url)
    if local_path(url) is not None:
        return sorted(filesystem.find(path))
    return sorted(filesystem.unstrip_protocol(name) for name in filesystem.find(path))


def file_tags(url: str) -> dict[str, str]:
    """Size and time of change (or entity tag) of the files below ``url``, by name of the file.

    Another tag means that a file was replaced. One listing of the folder or prefix is enough.
    """
    filesystem, path = fsspec.url_to_fs(url)
    found = filesystem.find(path, detail=True)
    return {
        file_name(name): f"{info['size']} {info.get('ETag') or info.get('mtime') or ''}"
        for name, info in found.items()
    }


def local_path(url: str) -> str | None:
    """Path of a local file, None for any other URL."""
    if "://" not in url and "::" not in url:
        return url
    return url.removeprefix("file://") if url.startswith("file:///") else None


def file_name(url: str) -> str:
    """The last part of a URL or path."""
    return PurePosixPath(url).name


def nothing_found(url: str, product: str, pattern: str, found: Sequence[str]) -> FileNotFoundError:
    """The error for a URL below which no file is a granule of the product."""
    examples = ", ".join(sorted({file_name(name) for name in found})[:5])
    there = f"{len(found)} other files, such as {examples}" if found else "no files at all"
    return FileNotFoundError(
        f"no granule of {product} below {url}: looked in all its folders for files named {pattern} "
        f"and found {there}. Give the folder, or bucket and prefix, that holds the granules."
    )


def granules_from_names(
    files: Sequence[str], pattern: re.Pattern[str], start: date, stop: date
) -> tuple[list[Granule], list[SetAside]]:
    """Single-step granules by the time and version in their names, the newest version of each.

    Args:
        files: URLs; those whose name doesn't match are passed over.
        pattern: with groups ``day`` (YYYYMMDD), ``time`` (HHMM or HHMMSS) and ``version``.
        start: first day wanted.
        stop: the day after the last.

    Returns:
        The granules in order of time, and those set aside: older versions, impossible times.
    """
    granules, set_aside = [], []
    for url in files:
        match = pattern.fullmatch(file_name(url))
        if match is None:
            continue
        try:
            moment = datetime.strptime(f"{match['day']}{match['time']:0<6}", "%Y%m%d%H%M%S")
        except ValueError as error:
            set_aside.append(SetAside(url, f"the time in its name is impossible: {error}"))
            continue
        if start <= moment.date() < stop:
            time = np.datetime64(moment, "s")
            granules.append(Granule(url, time, time, version=match["version"]))
    newest, older = newest_versions(granules)
    return newest, set_aside + older


def newest_versions(granules: Sequence[Granule]) -> tuple[list[Granule], list[SetAside]]:
    """For each time the granule with the highest version, in order of time; the others aside."""
    kept: dict[np.datetime64, Granule] = {}
    older: list[SetAside] = []
    for granule in sorted(granules, key=lambda g: (g.version, g.url), reverse=True):
        newest = kept.setdefault(granule.start, granule)
        if newest is not granule:
            older.append(SetAside(granule.url, f"duplicate of {newest.url}, which is kept"))
    return sorted(kept.values(), key=lambda g: g.start), older


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Turn what a library raises about a file's content into a GranuleError.

    A file that is not there, may not be read or does not answer is not a bad granule: such errors
    pass, so that the job can be tried again.
    """
    try:
        yield
    except _NOT_THE_CONTENT:
        raise
    except (OSError, RuntimeError) as error:
        raise _damaged(url, error) from error


def _damaged(url: str, error: Exception) -> GranuleError:
    return GranuleError(url, f"it cannot be read, it is damaged or not complete: {error}")


@contextmanager
def open_hdf5(url: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, straight from a local disk, through fsspec otherwise.

    Raises:
        GranuleError: if the file is damaged, here or in what is done while it is open.
    """
    path = local_path(url)
    with reading(url), ExitStack() as stack:
        source = path if path is not None else stack.enter_context(fsspec.open(url, "rb"))
        yield stack.enter_context(h5py.File(source, "r"))


@contextmanager
def open_netcdf(url: str, **options: Any) -> Iterator[xr.Dataset]:
    """Open a netCDF file lazily, without Dask; a remote one is read through fsspec.

    Raises:
        GranuleError: if the file is damaged, here or in what is done while it is open.
    """
    path = local_path(url)
    with reading(url), ExitStack() as stack:
        source = path if path is not None else stack.enter_context(fsspec.open(url, "rb"))
        engine = "netcdf4" if path is not None else None
        try:
            dataset = xr.open_dataset(source, engine=engine, cache=False, **options)
        except ValueError as error:  # of no known format, or with times that can't be decoded
            raise _damaged(url, error) from error
        yield stack.enter_context(dataset)


def check_units(url: str, variable: str, found: object, expected: str) -> None:
    """Raise GranuleError unless the units in the file are the expected ones."""
    if found is None:
        raise GranuleError(url, f"variable {variable} has no units; expected {expected!r}")
    text = found.decode() if isinstance(found, bytes) else str(found)
    if _SAME_UNITS.get(text, text) != _SAME_UNITS.get(expected, expected):
        raise GranuleError(url, f"variable {variable} is in {text!r}; expected {expected!r}")
