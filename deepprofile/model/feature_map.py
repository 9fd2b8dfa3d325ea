"""Feature maps of a network that runs along whole series instead of window by window.

Windows of consecutive days share all but one day. Position i of a stage's feature map, in the
window that starts on day d, lies on day d + s·i, where s is the product of the pooling before the
stage. Far from the ends of the window its value depends on that day alone, so one *dense* map of
all days serves all windows: a convolution of stage stride s becomes one dilated by s. Near the
ends the zero padding reaches in; these few positions are *edges*, of which each window has its
own. No window is ever materialised.

A map is a matrix (channels, columns): first the days of each cell, then for each edge position
the windows of each cell. It is multiplied once with all taps of the next kernel; what the
convolution, the ReLU and the pooling then make of these products are sums of shifted runs of
columns. This module says of which ones, as plain tables; it computes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepprofile.model.configuration import NetworkConfig

NO_TAP = -1


@dataclass(frozen=True)
class MapLayout:
    """Where the values of one stage's feature map lie.

    Attributes:
        cells: cells in the map.
        windows: windows of a cell; one starts on each of the first days.
        days: days of a cell in the dense part; 0 where all positions are edges.
        first_day: day of the series on which the dense part begins.
        stride: days between two positions.
        length: positions in a window.
        left: edge positions at the beginning of a window.
        right: edge positions at its end.
    """

    cells: int
    windows: int
    days: int
    first_day: int
    stride: int
    length: int
    left: int = 0
    right: int = 0

    @classmethod
    def of_series(cls, cells: int, days: int, window: int) -> "MapLayout":
        """The map before the first stage, which is the series itself."""
        return cls(cells, days - window + 1, days, 0, 1, window)

    @property
    def columns(self) -> int:
        """Columns of the whole map."""
        return self.cells * (self.days + (self.left + self.right) * self.windows)

    @property
    def has_inside(self) -> bool:
        """Whether some position is no edge, so that the dense part is looked at."""
        return self.left + self.right < self.length

    def edges(self) -> list[int]:
        """The edge positions in the order of their columns."""
        last = self.length - 1
        return [*range(self.left), *(last - i for i in range(self.right))]

    def run(self, position: int) -> tuple[int, int]:
        """Column of the first window of the first cell at a position, and columns to the next cell.

        The windows of a cell follow one another.
        """
        from_right = self.length - 1 - position
        if position < self.left:
            edge = position
        elif from_right < self.right:
            edge = self.left + from_right
        else:
            return position * self.stride - self.first_day, self.days
        return self.cells * (self.days + edge * self.windows), self.windows

    def runs(self) -> NDArray[np.int64]:
        """:meth:`run` of all positions, (length, 2)."""
        return np.array([self.run(position) for position in range(self.length)], np.int64)

    def convolved(self, taps: int) -> "MapLayout":
        """The map after a convolution with zero padding at the ends of each window."""
        half = taps // 2
        left = min(self.left + half, self.length)
        right = min(self.right + half, self.length - left)
        inside = left + right < self.length
        return replace(
            self,
            days=self.days - (taps - 1) * self.stride if inside else 0,
            first_day=self.first_day + half * self.stride,
            left=left,
            right=right,
        )

    def pooled(self, size: int) -> "MapLayout":
        """The map in which ``size`` positions at a time have become one."""
        length = self.length // size
        left = -(-self.left // size)
        right = min(-(-self.right // size), length - left)
        inside = left + right < length
        return replace(
            self,
            days=self.days - (size - 1) * self.stride if inside else 0,
            stride=self.stride * size,
            length=length,
            left=left,
            right=right,
        )


class StageSums(NamedTuple):
    """What a stage sums after its products.

    A *track* is a sum of runs of columns of the products, the dense part or one edge position
    after the convolution. An *output* is a sum of pieces of tracks.

    Attributes:
        terms: (tracks, taps, 3) tap, column and step to the next cell of each run that is added;
            after the last one the tap is ``NO_TAP``.
        sizes: (tracks,) columns of a track for each cell.
        pieces: (outputs, pool, 2) track and its first column.
        outputs: (outputs, 3) column in the new map, step to the next cell, columns of a cell.
    """

    terms: NDArray[np.int64]
    sizes: NDArray[np.int64]
    pieces: NDArray[np.int64]
    outputs: NDArray[np.int64]


def stage_sums(before: MapLayout, taps: int, size: int) -> tuple[MapLayout, StageSums]:
    """The map after a stage with so many taps and such a pooling, and the sums that make it."""
    between = before.convolved(taps)
    after = between.pooled(size)
    tracks = [_edge_terms(before, position, taps) for position in between.edges()]
    sizes = [before.windows] * len(tracks)
    pieces = [_edge_pieces(between, position, size) for position in after.edges()]
    outputs = [(*after.run(position), before.windows) for position in after.edges()]
    if between.has_inside:
        tracks.insert(0, [(tap, tap * before.stride, before.days) for tap in range(taps)])
        sizes.insert(0, between.days)
    if after.has_inside:
        pieces.insert(0, [(0, k * before.stride) for k in range(size)])
        outputs.insert(0, (0, after.days, after.days))
    table = np.full((len(tracks), taps, 3), NO_TAP, np.int64)
    for row, terms in zip(table, tracks, strict=True):
        row[: len(terms)] = terms
    return after, StageSums(
        table, np.array(sizes, np.int64), np.array(pieces, np.int64), np.array(outputs, np.int64)
    )


class Stages(NamedTuple):
    """Where everything lies on the way through the convolutions.

    Attributes:
        layouts: of the maps before the first stage and after each.
        sums: what each stage sums.
        runs: (positions, 2) see :meth:`MapLayout.runs`, of the last map.
    """

    layouts: list[MapLayout]
    sums: list[StageSums]
    runs: NDArray[np.int64]


@lru_cache(maxsize=64)
def stages(config: NetworkConfig, cells: int, days: int) -> Stages:
    """Stages of a network for some cells with series of so many days."""
    layouts, sums = [MapLayout.of_series(cells, days, config.window)], []
    for pool in config.pooling:
        layout, stage = stage_sums(layouts[-1], config.kernel_size, pool)
        layouts.append(layout)
        sums.append(stage)
    return Stages(layouts, sums, layouts[-1].runs())


def _edge_terms(before: MapLayout, position: int, taps: int) -> list[tuple[int, int, int]]:
    """Runs of an edge position: those of the taps that lie inside the window."""
    first = position - taps // 2
    inside = range(max(0, -first), min(taps, before.length - first))
    return [(tap, *before.run(first + tap)) for tap in inside]


def _edge_pieces(between: MapLayout, position: int, size: int) -> Sequence[tuple[int, int]]:
    """Pieces of tracks that a pooled edge position sums."""
    edges = between.edges()
    pieces = []
    for inner in range(position * size, (position + 1) * size):
        if inner in edges:
            pieces.append((between.has_inside + edges.index(inner), 0))
        else:
            pieces.append((0, between.run(inner)[0]))
    return pieces
