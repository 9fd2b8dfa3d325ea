"""Prediction of a long span of days, a segment at a time, in bounded memory.

Each shard of forcing is read once and goes straight into series that roll on: they hold the days
that the windows of one segment and the filling of gaps need. The result doesn't depend on the
length of the segments.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import Profiles, Rectangle, predict_series
from deepprofile.model.rolling import RollingSeries

Reader = Callable[[int, int], NDArray[np.float32]]
"""Forcing (days, variables, rows, columns) of the days from one to before another of one block."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive blocks to predict, and the days of forcing for them.

    Attributes:
        blocks: indices of the blocks; block i begins with day i · block_days.
        period: the first day of forcing and the one after the last; the last block may end
            with it.
        margins: days of forcing needed before and after the days that are predicted.
        block_days: days of a block.
    """

    blocks: range
    period: tuple[int, int]
    margins: tuple[int, int]
    block_days: int

    def days(self, blocks: range) -> slice:
        """Days of some of the blocks."""
        return slice(
            blocks[0] * self.block_days, min((blocks[-1] + 1) * self.block_days, self.period[1])
        )

    def needed(self, blocks: range) -> slice:
        """Days of forcing that some of the blocks need."""
        days, (before, after) = self.days(blocks), self.margins
        return slice(
            max(self.period[0], days.start - before), min(self.period[1], days.stop + after)
        )

    def segments(self, length: int) -> Iterator[range]:
        """The blocks, ``length`` of them at a time."""
        for start in range(0, len(self.blocks), length):
            yield self.blocks[start : start + length]

    def reads(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Days to read to hold those from ``start`` to before ``stop``: whole blocks, no more than
        the stretch needs, so that no block is read twice.
        """
        last = self.needed(self.blocks).stop
        while start < stop:
            end = min((start // self.block_days + 1) * self.block_days, last)
            yield start, end
            start = end

    def capacity(self, length: int) -> int:
        """Days of forcing that are held at most, with segments of ``length`` blocks."""
        before, after = self.margins
        whole = -(-after // self.block_days) * self.block_days
        needed = self.needed(self.blocks)
        return min(before + length * self.block_days + whole, len(range(needed.start, needed.stop)))


def stream_profiles(
    model: DeepProfile,
    rectangle: Rectangle,
    stretch: Stretch,
    read: Reader,
    *,
    max_gap: int,
    segment: int,
    precision: str = "float32",
) -> Iterator[tuple[int, Profiles]]:
    """Profiles of consecutive blocks, one after the other.

    Args:
        model: the network.
        rectangle: the cells.
        stretch: the blocks.
        read: called once for each block of forcing, in order.
        max_gap: gaps of at most so many days are filled by straight lines.
        segment: blocks that are predicted together.
        precision: see :func:`~deepprofile.model.sliding.sliding_coefficients`.

    Yields:
        Index of a block and its profiles.
    """
    capacity, first = stretch.capacity(segment), stretch.needed(stretch.blocks).start
    series = RollingSeries(rectangle.cells, model.config.n_variables, capacity, first, max_gap)
    for blocks in stretch.segments(segment):
        needed = stretch.needed(blocks)
        series.drop_before(needed.start)
        for days in stretch.reads(series.stop, needed.stop):
            series.append(read(*days))
        predicted = predict_series(
            model, series, rectangle.features, stretch.days(blocks), precision
        )
        for block in blocks:
            yield block, rectangle.profiles(predicted, stretch.days(range(block, block + 1)))
        del predicted  # before the next segment is read
