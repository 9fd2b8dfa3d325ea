"""Days of an export on which no cell has a profile: allowed beside others, and named."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from deepprofile.export.part import Part
from deepprofile.export.request import ExportError

PREDICTED = ("valid", "gap_filled")
"""Meanings of flags with which a profile is there."""
_SHOWN = 5


@dataclass(frozen=True)
class EmptyDays:
    """Days on which no cell has a profile.

    Attributes:
        days: the days; there may be none.
        cell_days: how many of their cells have each meaning of the flag, which says why.
    """

    days: list[date]
    cell_days: Mapping[str, int]

    def __str__(self) -> str:
        """The first days, the number of all others, and the reasons."""
        shown = ", ".join(map(str, self.days[:_SHOWN]))
        others = len(self.days) - _SHOWN
        more = f" and {others} more day{'s' if others > 1 else ''}" if others > 0 else ""
        counted = (f"{n:,} {name.replace('_', ' ')}" for name, n in self.cell_days.items())
        return f"{shown}{more} (cells by flag: {', '.join(counted)})"


def find_empty_days(part: Part, counts: NDArray[np.int64]) -> EmptyDays:
    """Find the days without a profile; a map of nothing but NaN is never what was meant.

    Args:
        part: what is exported.
        counts: values of its flag, shape (days, 256), see `Part.count_flags`.

    Raises:
        ExportError: if there is no day with a profile; the message says why.
    """
    predicted = [value for value, meaning in part.meanings.items() if meaning in PREDICTED]
    empty = np.flatnonzero(counts[:, predicted].sum(axis=1) == 0)
    found = EmptyDays([part.days[i] for i in empty], part.named_counts(counts[empty].sum(axis=0)))
    if len(found.days) == len(part.days):
        raise ExportError(
            f"no cell of the part asked for has a profile on {found}. Ask for other days or "
            "bounds; the first days of an archive have none until the window of the network is "
            "full."
        )
    return found
