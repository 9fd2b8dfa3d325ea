"""Reading parts of a remote file with few round trips.

HDF5 asks for one piece after another, and holds a lock of the whole process while it waits. Here
it never waits: a piece that is not in memory yet ends the attempt, and the pieces that many
attempts lacked are fetched together, outside the lock. Then the attempts are made again.
"""

import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock

import h5py
from h5py import h5d

from deepprofile import places
from deepprofile.products.base import GranuleChangedError
from deepprofile.products.files import local_path, reading, unchanged

BLOCK = 2**16
"""Bytes that are fetched at least: several pieces of metadata lie in them. A request costs the
processor as much as the transfer of some hundred kilobytes."""
_ATTEMPTS = Lock()
"""One thread at a time: HDF5 lets no two work, and handing its lock to and fro for every piece
costs more than the work."""
MOST_ROUNDS = 100
"""A file that takes more rounds than this is no HDF5 file that can be read."""


class NotFetchedError(Exception):
    """A piece of the file is not in memory yet."""


class PartialFile(io.RawIOBase):
    """The parts of a remote file that were fetched, as a file.

    Args:
        url: fsspec URL.
        size: size of the file in bytes.

    Attributes:
        fetched: bytes fetched so far.
        rounds: number of times that parts were fetched.
        misses: first byte and length of what was asked for in vain since the last fetch.
    """

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._position = url, size, 0
        self._starts: list[int] = []
        self._parts: dict[int, memoryview] = {}
        self.misses: list[tuple[int, int]] = []
        self.fetched = self.rounds = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` from what was fetched.

        Raises:
            NotFetchedError: if a byte of it was not.
        """
        view = memoryview(buffer).cast("B")
        start, length = self._position, min(len(view), max(0, self._size - self._position))
        done = 0
        while done < length:
            i = bisect_right(self._starts, start + done) - 1
            part = self._parts[self._starts[i]] if i >= 0 else memoryview(b"")
            skip = start + done - self._starts[i] if i >= 0 else 0
            if skip >= len(part):
                self.misses.append((start, length))
                raise NotFetchedError(f"bytes {start} to {start + length - 1} of {self._url}")
            piece = part[skip : skip + length - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._position += length
        return length

    def look_ahead(self, reads: Iterable[Callable[[], object]], most: int) -> None:
        """Ask for all that lies between the pieces that the reads lack.

        Args:
            reads: what the first and the last piece are read with.
            most: largest distance in bytes that is taken for such a span.

        Raises:
            NotFetchedError: if anything lacks.
        """
        before = len(self.misses)
        for read in reads:
            with suppress(Exception):
                read()
        lacking = self.misses[before:]
        if lacking:
            start = min(first for first, _ in lacking)
            length = max(first + n for first, n in lacking) - start
            if length <= most:
                self.misses.append((start, length))
            raise NotFetchedError(f"{len(lacking)} pieces of {self._url}")

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch whole blocks that hold the ranges (first byte, length), all at the same time.

        Raises:
            GranuleChangedError: if the file is shorter than it was.
            ConnectionError: if the store fails.
        """
        held = {
            start // BLOCK + i
            for start, part in self._parts.items()
            for i in range(-(-len(part) // BLOCK))
        }
        wanted = {
            block
            for start, length in ranges
            for block in range(start // BLOCK, (start + length - 1) // BLOCK + 1)
        }
        spans = [
            (BLOCK * first, min(BLOCK * stop, self._size))
            for first, stop in _consecutive(sorted(wanted - held))
        ]
        starts, stops = [s for s, _ in spans], [s for _, s in spans]
        parts = places.read_ranges(self._url, starts, stops)
        for (start, stop), part in zip(spans, parts, strict=True):
            if len(part) != stop - start:
                raise GranuleChangedError(
                    self._url, f"bytes {start} to {stop - 1} are not there any more"
                )
            self._parts[start] = memoryview(part)
            self.fetched += len(part)
        self._starts = sorted(self._parts)
        self.rounds += 1


class Source:
    """An open HDF5 file on which attempts are made.

    Attributes:
        partial: the parts fetched so far; None for a local file, which needs no second attempt.
    """

    def __init__(self, url: str, partial: PartialFile | None) -> None:
        self._url = url
        self.partial = partial

    def complete(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Call every task until nothing that it reads is lacking; tasks must be repeatable.

        Raises:
            OSError: if the file never comes to an end.
        """
        if self.partial is None:
            for task in tasks:
                task()
            return
        pending, before = list(tasks), self.partial.rounds
        while True:
            lacking: list[tuple[int, int]] = []
            with _ATTEMPTS:
                pending = [task for task in pending if not self._attempt(task, lacking)]
            if not pending:
                return
            if self.partial.rounds - before > MOST_ROUNDS:
                raise OSError(f"{MOST_ROUNDS} rounds of reading did not suffice")
            self.partial.fetch(lacking)

    def look_ahead(self, dataset: h5d.DatasetID, window: tuple[slice, slice]) -> None:
        """Have all chunks of a window of a two-dimensional variable fetched together.

        Chunks lie in a file in the order in which they were written, so that the first and the
        last of a window have the others between them.

        Raises:
            NotFetchedError: if anything lacks.
        """
        layout = dataset.get_create_plist()
        if self.partial is None or layout.get_layout() != h5d.CHUNKED:
            return
        (rows, columns), (height, width) = window, layout.get_chunk()
        first = rows.start // height * height, columns.start // width * width
        last = (rows.stop - 1) // height * height, (columns.stop - 1) // width * width
        size = (last[0] + height - first[0]) * dataset.shape[1] * dataset.dtype.itemsize
        self.partial.look_ahead(
            [partial(dataset.read_direct_chunk, corner) for corner in (first, last)], size
        )

    def _attempt(self, task: Callable[[], None], lacking: list[tuple[int, int]]) -> bool:
        """Whether a task was done; what it lacked otherwise."""
        assert self.partial is not None, "tasks on local files are called directly"
        self.partial.misses = []
        try:
            task()
        except Exception:
            # HDF5 may tell of a missing piece by an error of its own, or hide it.
            if not self.partial.misses:
                raise
        lacking += self.partial.misses
        return not self.partial.misses


@contextmanager
def open_source(url: str) -> Iterator[tuple[h5py.File, Source]]:
    """Open an HDF5 file; of a remote one only the parts that are read are fetched.

    Raises:
        GranuleError: if the file is damaged, here or in what is done while it is open.
        GranuleChangedError: if the file changed meanwhile.
    """
    path = local_path(url)
    with unchanged(url) as size, reading(url):
        if path is not None:
            with h5py.File(path, "r") as file:
                yield file, Source(url, None)
            return
        partial = PartialFile(url, size)
        source, opened = Source(url, partial), []
        if size:
            partial.fetch([(0, min(4 * BLOCK, size))])
        source.complete([lambda: opened.append(h5py.File(partial, "r"))])
        try:
            yield opened[0], source
        finally:
            opened[0].close()


def _consecutive(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First of each run of consecutive numbers, and the one after its last."""
    first = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[first], numbers[i - 1] + 1
            first = i
