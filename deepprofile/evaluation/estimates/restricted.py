"""Estimates of different extent, brought to the cells and days that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.estimates.base import Estimate, MeanEstimate, Series, positions


@dataclass(frozen=True, eq=False)
class Restricted(Estimate):
    """An estimate on some of its cells and days.

    Attributes:
        whole: the estimate; it must have all cells and days of this one.
    """

    whole: Estimate

    def __post_init__(self) -> None:
        """Check the axes."""
        super().__post_init__()
        own, whole = (self.keys, self.days), (self.whole.keys, self.whole.days)
        if any((positions(few, all_) < 0).any() for few, all_ in zip(own, whole, strict=True)):
            raise ValueError(f"estimate {self.name!r} lacks some of the cells or days asked for")

    def covers(self, top: float, bottom: float) -> bool:
        """Whether the whole estimate covers the request."""
        return self.whole.covers(top, bottom)

    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values`."""
        found = self.whole.values(positions(self.keys[cells], self.whole.keys), top, bottom)
        return found[:, positions(self.days, self.whole.days)]

    def answered_by(self, top: float, bottom: float) -> str:
        """As the whole estimate says."""
        return self.whole.answered_by(top, bottom)


def mean_of(name: str, members: Sequence[Estimate]) -> MeanEstimate:
    """The plain mean of estimates on the cells and days that all of them have.

    Raises:
        ValueError: if there are none.
    """
    if not members:
        raise ValueError(f"mean {name!r} has no members: expected at least one")
    keys = reduce(np.intersect1d, [member.keys for member in members])
    days = reduce(np.intersect1d, [member.days for member in members])
    row, column = np.divmod(keys, grid.N_COLUMNS)
    time = days.astype("datetime64[D]")
    same = [Restricted(member.name, row, column, time, member) for member in members]
    return MeanEstimate(name, row, column, time, same)
