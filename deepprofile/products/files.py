"""Files of a product: finding them below a URL and opening them, local or remote."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from inspect import signature
from pathlib import Path, PurePosixPath
from threading import RLock
from typing import Any

import numpy as np
import xarray as xr

from deepprofile import places
from deepprofile.products.base import (
    Granule,
    GranuleChangedError,
    GranuleError,
    SetAside,
)

_NOT_THE_CONTENT = (
    FileNotFoundError,
    PermissionError,
    ConnectionError,
    TimeoutError,
    GranuleChangedError,
)
_TAGS = ("ETag", "etag", "ino", "mtime", "LastModified", "modified", "created")
"""What file systems say of a file that tells one version from another."""
_REMOTE_BLOCK = 2**18
_REMOTE_BLOCKS = 128
"""Size and number of the blocks of a remote netCDF file that are kept in memory."""
_CLASSIC = b"CDF"
"""How netCDF-3 files begin: there is no reading parts of them from afar."""
_NETCDF = RLock()
"""One thread at a time: the netCDF library crashes in several. (h5netcdf does not, but takes six
times as long for a small file.)"""
_COPIED = 2**22
"""A remote netCDF file up to this size in bytes is copied at once: its parts cost more."""
_SAME_UNITS = {"dimensionless": "1", "-": "1", "": "1", "m**3 m**-3": "m3 m-3"}


def find_files(url: str) -> list[str]:
    """All files below ``url``, recursively, sorted; ``url`` itself if it is a file."""
    return list(places.find(url))


def file_tags(url: str) -> dict[str, str]:
    """Size and time of change (or entity tag) by URL as ``find_files`` gives them.

    Another tag means that a file was replaced. One listing of the folder or prefix is enough.
    """
    found = places.find(url)
    return {
        name: f"{info['size']} {info.get('ETag') or info.get('mtime') or ''}"
        for name, info in found.items()
    }


def tags_text(url: str) -> str:
    """Names and tags of all files below ``url`` as a text, the same wherever they lie."""
    return str(sorted((file_name(name), tag) for name, tag in file_tags(url).items()))


def file_versions(url: str) -> dict[str, str]:
    """Size and whatever else tells versions apart, by URL as ``find_files`` gives them."""
    return {name: _told(info) for name, info in places.find(url).items()}


def local_path(url: str) -> str | None:
    """Path of a local file, None for any other URL."""
    path = places.local_path(url)
    return None if path is None else str(path)


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


@contextmanager
def unchanged(url: str) -> Iterator[int]:
    """The size of a file in bytes, of which one and the same version is read inside.

    Raises:
        GranuleChangedError: if the file is another one at the end than it was at the start,
            whatever else went wrong inside.
    """
    size, before = _version(url)
    try:
        yield size
    except GranuleChangedError:
        raise
    except Exception as error:
        if (after := _version(url)) != (size, before):
            raise _changed(url, (size, before), after) from error
        raise
    if (after := _version(url)) != (size, before):
        raise _changed(url, (size, before), after)


def _version(url: str) -> tuple[int, str]:
    """Size of a file, and whatever else tells its versions apart; asked of the store itself."""
    path = local_path(url)
    if path is not None:
        found = Path(path).stat()
        return found.st_size, f"inode {found.st_ino}, time {found.st_mtime_ns}"
    filesystem, path = places.filesystem(url)
    kept = "refresh" in signature(getattr(filesystem, "_info", filesystem.info)).parameters
    info = filesystem.info(path, **({"refresh": True} if kept else {}))
    return int(info["size"]), _told(info)


def _told(info: dict[str, Any]) -> str:
    """What a file system says of the version of a file."""
    return ", ".join(f"{k} {info[k]}" for k in ("size", *_TAGS) if k in info)


def _changed(url: str, before: tuple[int, str], after: tuple[int, str]) -> GranuleChangedError:
    was, became = (f"{size} bytes, {tag}" for size, tag in (before, after))
    return GranuleChangedError(url, f"it had {was}, and then {became}")


def _damaged(url: str, error: Exception) -> GranuleError:
    return GranuleError(url, f"it cannot be read, it is damaged or not complete: {error}")


@contextmanager
def open_netcdf(url: str, **options: Any) -> Iterator[xr.Dataset]:
    """Open a netCDF file lazily, without Dask; a remote one is read through fsspec.

    Raises:
        GranuleError: if the file is damaged, here or in what is done while it is open.
        GranuleChangedError: if the file changed meanwhile.
    """
    path = local_path(url)
    with unchanged(url) as size, reading(url), ExitStack() as stack:
        if path is None and size <= _COPIED:
            path = str(stack.enter_context(places.copied_file(url)))
        elif path is None and bytes(places.read_ranges(url, [0], [3])[0]) == _CLASSIC:
            path = str(stack.enter_context(places.local_copy(url)))
        source = path if path is not None else stack.enter_context(_open_remote(url))
        engine = None
        if path is not None:
            engine = "netcdf4"
            stack.enter_context(_NETCDF)
        try:
            dataset = xr.open_dataset(source, engine=engine, cache=False, **options)
        except ValueError as error:  # of no known format, or with times that can't be decoded
            raise _damaged(url, error) from error
        yield stack.enter_context(dataset)


def _open_remote(url: str) -> Any:
    """A remote file; HDF5 jumps about in it, so that single blocks are read and kept."""
    filesystem, path = places.filesystem(url)
    return filesystem.open(
        path,
        "rb",
        block_size=_REMOTE_BLOCK,
        cache_type="blockcache",
        cache_options={"maxblocks": _REMOTE_BLOCKS},
    )


def check_units(url: str, variable: str, found: object, expected: str) -> None:
    """Raise GranuleError unless the units in the file are the expected ones."""
    if found is None:
        raise GranuleError(url, f"variable {variable} has no units; expected {expected!r}")
    text = found.decode() if isinstance(found, bytes) else str(found)
    if _SAME_UNITS.get(text, text) != _SAME_UNITS.get(expected, expected):
        raise GranuleError(url, f"variable {variable} is in {text!r}; expected {expected!r}")
