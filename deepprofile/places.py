"""Files and folders on a local disk or in an object store, by path or URL.

Everything that is not a cube is found, read and written through this module. Credentials are never
part of a URL: such a URL is refused, and no message repeats it.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import fsspec

from deepprofile.s3 import (
    DeniedError,
    ObjectStoreError,
    S3Settings,
    UnreachableError,
    s3_environment,
    s3_filesystem,
    s3_ranges,
    s3_settings,
)
from deepprofile.urls import PlaceError, check_url, inside, local_path, redacted

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DeniedError",
    "ObjectStoreError",
    "PlaceError",
    "S3Settings",
    "UnreachableError",
    "check_bucket",
    "check_url",
    "copied_file",
    "exists",
    "filesystem",
    "find",
    "inside",
    "local_copy",
    "local_path",
    "read_bytes",
    "read_ranges",
    "redacted",
    "s3_environment",
    "s3_settings",
    "write_bytes",
    "write_csv",
    "written",
    "written_folder",
    "zarr_store",
]


_S3 = ("s3://", "s3a://")


def filesystem(url: str | Path) -> tuple[Any, str]:
    """The fsspec filesystem of a place, and the path in it. Listings are never kept.

    Raises:
        PlaceError: as `check_url`, or if there is no support for such URLs.
    """
    text = check_url(url)
    path = local_path(text)
    if path is not None:
        return fsspec.filesystem("file"), str(path.absolute())
    try:
        if text.startswith(_S3):
            return s3_filesystem(), text.split("://", 1)[1].rstrip("/")
        filesystem, name = fsspec.url_to_fs(text, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise PlaceError(f"{redacted(text)}: can't be opened: {redacted(str(error))}") from None
    return filesystem, name


def check_bucket(url: str | Path) -> None:
    """Whether the bucket of an ``s3://`` URL is there; nothing for other places.

    Raises:
        FileNotFoundError: if there is no such bucket.
        ObjectStoreError: if the store does not answer or refuses.
    """
    if local_path(url) is not None or not str(url).startswith("s3"):
        return
    store, path = filesystem(url)
    bucket = path.split("/", 1)[0]
    try:
        store.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"s3://{bucket}: there is no such bucket. Check the name, or make the bucket first"
        ) from None


def find(url: str | Path) -> dict[str, dict[str, Any]]:
    """All files below a place, or the file itself: URL or path, and what the listing says of it.

    Raises:
        FileNotFoundError: if there is no such bucket.
        ObjectStoreError: if the store does not answer or refuses.
    """
    store, path = filesystem(url)
    try:
        found = store.find(path, detail=True)
    except FileNotFoundError:  # a bucket that is not there; the store's own message has no name
        found = {}
    if not found:
        check_bucket(url)
    if local_path(url) is not None:
        return {str(name): info for name, info in sorted(found.items())}
    return {store.unstrip_protocol(name): info for name, info in sorted(found.items())}


def exists(url: str | Path) -> bool:
    """Whether there is a file or folder."""
    store, path = filesystem(url)
    return bool(store.exists(path))


def read_bytes(url: str | Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    store, path = filesystem(url)
    return bytes(store.cat_file(path))


def read_ranges(
    url: str | Path, starts: Sequence[int], stops: Sequence[int]
) -> Sequence[bytes | memoryview]:
    """Parts of a file, read at the same time; each may be shorter at the end of the file.

    Args:
        url: the file.
        starts: first byte of each part.
        stops: the byte after its last.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if the store fails.
    """
    store, path = filesystem(url)
    if str(url).startswith(_S3) and "//" not in path:  # which obstore takes for no key
        return s3_ranges(path, starts, stops)
    try:
        found = store.cat_ranges([path] * len(starts), starts, stops, on_error="raise")
    except (FileNotFoundError, PermissionError, ConnectionError, TimeoutError):
        raise
    except OSError as error:
        raise ConnectionError(f"{redacted(str(url))}: can't be read: {error}") from error
    return list(found)


def write_bytes(url: str | Path, content: bytes) -> None:
    """Write a file whole or not at all; folders are made as needed."""
    if local_path(url) is None:
        store, name = filesystem(url)
        store.pipe_file(name, content)
        return
    with written(url) as path:
        path.write_bytes(content)


def write_csv(url: str | Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV, without its index; whole or not at all."""
    write_bytes(url, table.to_csv(index=False).encode())


@contextmanager
def written_folder(url: str | Path, *, anew: bool = False) -> Iterator[Path]:
    """A local folder to write files into; what was written lies at ``url`` when all went well.

    Args:
        url: the folder; made as needed.
        anew: whether nothing of what was in a remote folder before stays.
    """
    target = local_path(url)
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
        yield target
        return
    store, path = filesystem(url)
    check_bucket(url)
    with tempfile.TemporaryDirectory(prefix="deepprofile-") as folder:
        yield Path(folder)
        files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
        names = [f"{path}/{file.relative_to(folder).as_posix()}" for file in files]
        if anew and store.exists(path):
            store.rm(path, recursive=True)
        store.put([str(file) for file in files], names)


@contextmanager
def written(url: str | Path) -> Iterator[Path]:
    """A local file to write to; it becomes the file at ``url`` when all went well."""
    target = local_path(url)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid4().hex}.partial")
        try:
            yield partial
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return
    store, path = filesystem(url)
    with tempfile.TemporaryDirectory(prefix="deepprofile-") as folder:
        file = Path(folder) / PurePosixPath(path).name
        yield file
        store.put_file(str(file), path)


@contextmanager
def local_copy(url: str | Path) -> Iterator[Path]:
    """A file or folder as a local path: itself, or a temporary copy for as long as it is needed.

    Raises:
        FileNotFoundError: if there is nothing.
        PlaceError: if a name in the store leads out of the folder.
    """
    there = local_path(url)
    if there is not None:
        yield there
        return
    store, path = filesystem(url)
    files = store.find(path)
    if not files:
        check_bucket(url)
        raise FileNotFoundError(f"{url}: there is no file or folder")
    folder = Path(tempfile.mkdtemp(prefix="deepprofile-"))
    try:
        copy = folder / PurePosixPath(path).name
        for name in files:
            part = name.removeprefix(path).lstrip("/") if name != path else ""
            target = Path(inside(copy, part)) if part else copy
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(name, str(target))
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def copied_file(url: str | Path) -> Iterator[Path]:
    """A temporary local copy of one file, by a single request.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    with tempfile.TemporaryDirectory(prefix="deepprofile-") as folder:
        copy = Path(folder) / PurePosixPath(str(url)).name
        copy.write_bytes(read_bytes(url))
        yield copy


def zarr_store(url: str | Path) -> Any:
    """What `zarr` and xarray open a plain Zarr store with."""
    path = local_path(url)
    if path is not None:
        return str(path)
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
    from zarr.storage import FsspecStore

    store, name = filesystem(url)
    return FsspecStore(AsyncFileSystemWrapper(store, asynchronous=True), path=name)
