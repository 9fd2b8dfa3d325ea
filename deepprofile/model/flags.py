"""Flags of predicted profiles: why a day of a cell has its value, or has none."""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Flag(IntEnum):
    """State of one cell and day; where several hold, the largest stands."""

    VALID = 0
    GAP_FILLED = 1
    """Some day of the window was filled across a short gap; the profile is there."""
    MISSING_FORCING = 2
    """Some value of the window is missing; no profile."""
    NO_FULL_WINDOW = 3
    """Fewer days than a window lie before this day; no profile."""
    NOT_LAND = 4
    """Not a land cell, or without auxiliary features; no profile."""


def flag_attributes() -> dict[str, Any]:
    """CF attributes of a variable that holds these flags."""
    return {
        "long_name": "state of the profile",
        "standard_name": "status_flag",
        "flag_values": np.array([flag.value for flag in Flag], np.uint8),
        "flag_meanings": " ".join(flag.name.lower() for flag in Flag),
    }


def window_flags(
    missing: NDArray[np.bool_],
    filled: NDArray[np.bool_],
    window: int,
) -> NDArray[np.uint8]:
    """Flags of the days on which a window ends.

    Args:
        missing: (cells, T) true where a variable of the day is missing after filling.
        filled: (cells, T) true where a variable of the day was filled.
        window: days in a window.

    Returns:
        (cells, T - window + 1), each VALID, GAP_FILLED or MISSING_FORCING.
    """
    flags = np.where(_any_in_window(filled, window), Flag.GAP_FILLED, Flag.VALID)
    flags = np.where(_any_in_window(missing, window), Flag.MISSING_FORCING, flags)
    return flags.astype(np.uint8)


def _any_in_window(days: NDArray[np.bool_], window: int) -> NDArray[np.bool_]:
    count = np.cumsum(np.pad(days, ((0, 0), (1, 0))), axis=1)
    return count[:, window:] > count[:, :-window]
