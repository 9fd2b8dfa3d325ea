"""HDF5 granules from a template: the file is laid out once, then only its values change.

Writing thousands of small files attribute by attribute would take most of the time of a demo.
The template is an ordinary HDF5 file held in memory, in the oldest format (no checksums of
metadata) and with contiguous data sets, so that values and texts of fixed length can be replaced
where they stand.
"""

from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


class GranuleTemplate:
    """A granule whose values and fixed-length texts can be replaced.

    Args:
        build: writes the data sets and attributes into an open file.
        texts: texts of which every occurrence in the file is replaceable.
    """

    def __init__(self, build: Callable[[h5py.File], None], texts: tuple[str, ...] = ()) -> None:
        self._image, self._places = _lay_out(build)
        self._texts = {text: _occurrences(self._image, text.encode()) for text in texts}

    def fill(
        self, values: Mapping[str, NDArray[Any]], texts: Mapping[str, str] | None = None
    ) -> bytearray:
        """Bytes of a file with new values.

        Args:
            values: arrays by the path of the data set; others keep the template's values.
            texts: replacements of the same length, by the text that they replace.

        Raises:
            ValueError: if an array or a text does not fit.
        """
        image = bytearray(self._image)
        for path, array in values.items():
            offset, dtype, size = self._places[path]
            data = np.ascontiguousarray(array, dtype=dtype).tobytes()
            if len(data) != size:
                raise ValueError(f"{path} takes {size} bytes; the new values have {len(data)}")
            image[offset : offset + size] = data
        for text, new in (texts or {}).items():
            if len(new) != len(text):
                raise ValueError(f"text {new!r} is not as long as {text!r}, which it replaces")
            for offset in self._texts[text]:
                image[offset : offset + len(text)] = new.encode()
        return image


def _lay_out(
    build: Callable[[h5py.File], None],
) -> tuple[bytes, dict[str, tuple[int, np.dtype[Any], int]]]:
    """The file's bytes, and offset, type and size in bytes of each data set."""
    places: dict[str, tuple[int, np.dtype[Any], int]] = {}

    def note(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            places[path] = (item.id.get_offset(), item.dtype, item.id.get_storage_size())

    with h5py.File("template", "w", driver="core", backing_store=False, libver="earliest") as file:
        build(file)
        file.flush()
        file.visititems(note)
        return bytes(file.id.get_file_image()), places


def _occurrences(image: bytes, text: bytes) -> list[int]:
    found, start = [], image.find(text)
    while start >= 0:
        found.append(start)
        start = image.find(text, start + len(text))
    return found
