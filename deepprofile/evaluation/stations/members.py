"""Files of a station archive, wherever it lies, each brought to a local folder when it is read.

Of a remote archive only the directory and the files that are asked for travel, not the whole.
"""

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Protocol, cast

from ismn.base import IsmnRoot

from deepprofile import places

READ_AHEAD = 2**20
"""Bytes of a remote zip file that one request brings."""
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What the zip module raises on a file inside the archive that can't be unpacked."""


class Members(Protocol):
    """Files of an archive."""

    def names(self) -> list[str]:
        """Paths of all files inside the archive, sorted."""

    def place(self, name: str) -> IsmnRoot:
        """A local folder in which a file lies under its name.

        Raises:
            FileNotFoundError: if there is no such file.
            OSError: if the store or the disk fails.
        """

    def release(self, name: str) -> None:
        """Remove what ``place`` has made."""


@contextmanager
def opened(path: str | Path) -> Iterator[Members]:
    """The files of an archive.

    Args:
        path: zip file or folder; a path or a URL.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if it is neither a zip file nor a folder.
    """
    local = places.local_path(path)
    if local is not None and local.is_dir():
        yield _Folder(local)
        return
    with ExitStack() as stack:
        copies = Path(stack.enter_context(TemporaryDirectory(prefix="deepprofile-")))
        if local is None and _is_folder(str(path)):
            yield _RemoteFolder(str(path).rstrip("/"), copies)
            return
        file = stack.enter_context(_bytes(path, local))
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except zipfile.BadZipFile:
            raise ValueError(
                f"{path} is not a station archive: expected a zip file or a folder"
            ) from None
        yield _Zip(archive, copies)


def _is_folder(url: str) -> bool:
    found = places.find(url)
    if not found:
        raise _nothing(url)
    return len(found) > 1 or next(iter(found)).rstrip("/") != url.rstrip("/")


def _bytes(path: str | Path, local: Path | None) -> IO[bytes]:
    if local is None:
        store, name = places.filesystem(path)
        return cast(IO[bytes], store.open(name, "rb", block_size=READ_AHEAD))
    if not local.exists():
        raise _nothing(path)
    return local.open("rb")


def _nothing(path: str | Path) -> FileNotFoundError:
    return FileNotFoundError(f"there is no station archive at {path}: expected a zip or folder")


class _Folder:
    def __init__(self, path: Path) -> None:
        self._root = IsmnRoot(path)

    def names(self) -> list[str]:
        path = self._root.path
        files = (file for file in path.rglob("*") if file.is_file())
        return sorted(file.relative_to(path).as_posix() for file in files)

    def place(self, name: str) -> IsmnRoot:
        if not Path(places.inside(self._root.path, name)).is_file():
            raise FileNotFoundError(f"{self._root.path}: holds no {name}")
        return self._root

    def release(self, name: str) -> None:
        """Nothing: there is no copy."""


class _Copies(ABC):
    """Files that are copied into a folder, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = IsmnRoot(folder)

    def place(self, name: str) -> IsmnRoot:
        path = Path(places.inside(self._folder, name))
        content = self.content(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self._root

    def release(self, name: str) -> None:
        Path(places.inside(self._folder, name)).unlink(missing_ok=True)

    @abstractmethod
    def content(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: if there is no such file.
        """


class _Zip(_Copies):
    def __init__(self, archive: zipfile.ZipFile, folder: Path) -> None:
        super().__init__(folder)
        self._archive = archive

    def names(self) -> list[str]:
        return sorted(name for name in self._archive.namelist() if not name.endswith("/"))

    def content(self, name: str) -> bytes:
        if name not in self._archive.NameToInfo:
            raise FileNotFoundError(f"{self._archive.filename}: holds no {name}")
        return self._archive.read(name)


class _RemoteFolder(_Copies):
    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(folder)
        self._url = url

    def names(self) -> list[str]:
        start = f"{self._url}/"
        return sorted(name.removeprefix(start) for name in places.find(self._url))

    def content(self, name: str) -> bytes:
        return places.read_bytes(f"{self._url}/{name}")
