"""Windows of two-dimensional HDF5 variables, chunk by chunk.

HDF5 decompresses under a lock of the whole process. Here only the stored bytes of a chunk are
read under it; they are decompressed outside, so that several granules are read at the same time.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from h5py import h5d, h5s, h5z
from numpy.typing import NDArray

_FILTERS = {h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE}


@dataclass(frozen=True)
class Chunking:
    """How a variable is stored, where chunks can be decoded here.

    Attributes:
        shape: rows and columns of a chunk.
        filters: codes of the filters, in the order in which they were applied.
    """

    shape: tuple[int, int]
    filters: tuple[int, ...]

    @classmethod
    def of(cls, dataset: h5d.DatasetID) -> "Chunking | None":
        """The chunking of a variable; None where only HDF5 itself can decode it."""
        layout = dataset.get_create_plist()
        if layout.get_layout() != h5d.CHUNKED or dataset.dtype != np.dtype("<f4"):
            return None
        filters = tuple(layout.get_filter(i)[0] for i in range(layout.get_nfilters()))
        shape = layout.get_chunk()
        if len(shape) != 2 or not _FILTERS.issuperset(filters):
            return None
        return cls(shape, filters)

    def decode(self, stored: bytes, skipped: int) -> NDArray[np.float32]:
        """Values of a chunk.

        Args:
            stored: the bytes in the file.
            skipped: mask of the filters that were not applied to this chunk, a bit for each.

        Raises:
            OSError: if they are damaged.
        """
        size = self.shape[0] * self.shape[1]
        content: bytes | memoryview = stored
        for i, code in reversed(list(enumerate(self.filters))):
            if skipped >> i & 1:
                continue
            if code == h5z.FILTER_DEFLATE:
                try:
                    content = zlib.decompress(content, bufsize=4 * size)
                except zlib.error as error:
                    raise OSError(f"a chunk cannot be decompressed: {error}") from error
            elif len(content) == 4 * size:
                shuffled = np.frombuffer(content, np.uint8).reshape(4, size)
                content = np.ascontiguousarray(shuffled.T).data.cast("B")
        if len(content) != 4 * size:
            raise OSError(f"a chunk has {len(content)} bytes; expected {4 * size}")
        return np.frombuffer(content, np.float32).reshape(self.shape)


def read_window(
    dataset: h5d.DatasetID,
    chunking: Chunking | None,
    window: tuple[slice, slice],
    target: NDArray[np.float32],
) -> None:
    """Read a window of a variable.

    Args:
        dataset: the variable, two-dimensional.
        chunking: as ``Chunking.of`` gives it; None leaves it all to HDF5.
        window: rows and columns, ``start`` and ``stop`` given, inside the variable.
        target: float32, of the window's shape, contiguous; it is overwritten.

    Raises:
        OSError: if the file is damaged.
    """
    if chunking is None or not _read_chunks(dataset, chunking, window, target):
        space = dataset.get_space()
        space.select_hyperslab((window[0].start, window[1].start), target.shape)
        dataset.read(h5s.create_simple(target.shape), space, target)


def _read_chunks(
    dataset: h5d.DatasetID,
    chunking: Chunking,
    window: tuple[slice, slice],
    target: NDArray[np.float32],
) -> bool:
    """Whether all chunks are there; one that was never written is left to HDF5."""
    rows, columns = window
    height, width = chunking.shape
    read, decode = dataset.read_direct_chunk, chunking.decode
    for top in range(rows.start // height * height, rows.stop, height):
        for left in range(columns.start // width * width, columns.stop, width):
            try:
                skipped, stored = read((top, left))
            except RuntimeError:
                return False
            values = decode(stored, skipped)
            r0, r1 = max(top, rows.start), min(top + height, rows.stop)
            c0, c1 = max(left, columns.start), min(left + width, columns.stop)
            target[r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = (
                values[r0 - top : r1 - top, c0 - left : c1 - left]
            )
    return True


def chunk_ends(chunking: Chunking, window: tuple[slice, slice]) -> tuple[tuple[int, int], ...]:
    """Corners of the first and the last chunk of a window."""
    (rows, columns), (height, width) = window, chunking.shape
    first = (rows.start // height * height, columns.start // width * width)
    last = ((rows.stop - 1) // height * height, (columns.stop - 1) // width * width)
    return first, last
