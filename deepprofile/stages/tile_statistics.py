"""The stored statistics of a tile: what a later collocation adds new days to.

One file a tile holds the sums of *spans* of 12 blocks (384 days), each with the fingerprints of its
blocks. A span that has grown is gone on with; one in which a block has changed is made anew, and no
other: sums can't be taken out of a sum without leaving rounding behind. Spans are added up in the
order of time, and blocks within a span, so what was stored gives the same bits as reading
everything.

The files are no cube: they say themselves what they were made from, every result is the same with
and without them, and each lies there as soon as its job has read its blocks. A run that was killed
goes on where it was although nothing of it was published.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile import places
from deepprofile.collocation.statistics import N_STATISTICS

SPAN_BLOCKS = 12
"""Blocks of a span: what is read again when one of them has changed."""
VERSION = 1
"""Raised whenever files written before can't be gone on with."""
_ARRAYS = ("sums", "days_with", "present", "series")


@dataclass(frozen=True)
class Span:
    """Statistics of consecutive blocks.

    Attributes:
        blocks: fingerprint of each block, in order.
        sums: float64, (10, cells), see `deepprofile.collocation.Statistics`.
        days_with: days on which each product has a value, int32, (products, cells).
        present: whether a product has a value in any cell, (products, days).
        series: columns of the kept cells in m³ m⁻³, float32, (products, days, kept).
    """

    blocks: tuple[str, ...]
    sums: NDArray[np.float64]
    days_with: NDArray[np.int32]
    present: NDArray[np.bool_]
    series: NDArray[np.float32]

    @classmethod
    def empty(cls, products: int, cells: int, kept: int) -> "Span":
        """Statistics of no block at all."""
        return cls(
            (),
            np.zeros((N_STATISTICS, cells)),
            np.zeros((products, cells), np.int32),
            np.zeros((products, 0), np.bool_),
            np.zeros((products, 0, kept), np.float32),
        )

    def __add__(self, later: "Span") -> "Span":
        """The same with the blocks that follow; sums in this order."""
        return Span(
            self.blocks + later.blocks,
            self.sums + later.sums,
            self.days_with + later.days_with,
            np.concatenate([self.present, later.present], axis=1),
            np.concatenate([self.series, later.series], axis=1),
        )

    def begins(self, blocks: Sequence[str]) -> bool:
        """Whether these are the first of some blocks, all as they are now."""
        return tuple(blocks[: len(self.blocks)]) == self.blocks


def load_spans(
    url: str, made_for: Mapping[str, Any], shape: tuple[int, int, int]
) -> tuple[dict[int, Span], str]:
    """Stored spans by number.

    Args:
        url: the file.
        made_for: what the sums rest on beside the blocks, as JSON values; a file made for
            something else is of no use.
        shape: numbers of products, of cells and of kept cells.

    Returns:
        The spans, none where there is no such file, and why a file that is there can't be read.
    """
    try:
        content = places.read_bytes(url)
    except FileNotFoundError:
        return {}, ""
    try:
        with np.load(BytesIO(content), allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["made_for"] != {"version": VERSION, **made_for}:
                return {}, ""
            spans = {
                int(number): Span(tuple(blocks), *(file[f"{name}_{number}"] for name in _ARRAYS))
                for number, blocks in header["spans"].items()
            }
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        return {}, f"{url}: can't be read ({type(error).__name__}: {error})"
    for span in spans.values():
        found = (*span.days_with.shape, span.series.shape[2])
        if found != shape or span.sums.shape != (N_STATISTICS, shape[1]):
            return {}, f"{url}: holds (products, cells, kept cells) {found}, expected {shape}"
    return spans, ""


def save_spans(url: str, made_for: Mapping[str, Any], spans: Mapping[int, Span]) -> None:
    """Store spans by number, in place of what is there; the file is written whole or not at all."""
    header = {
        "made_for": {"version": VERSION, **made_for},
        "spans": {number: span.blocks for number, span in spans.items()},
    }
    arrays: dict[str, NDArray[Any]] = {
        f"{name}_{number}": getattr(span, name)
        for number, span in spans.items()
        for name in _ARRAYS
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its names are no other argument
    places.write_bytes(url, buffer.getvalue())
