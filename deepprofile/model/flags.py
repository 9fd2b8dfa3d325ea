"""Flags of predicted profiles: why a day of a cell has its value, or has none."""

from enum import IntEnum
from typing import Any

import numba
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
    MISSING_FEATURES = 4
    """A land cell without all its auxiliary features; no profile."""
    NOT_LAND = 5
    """Not a land cell; no profile."""


_VALID, _GAP_FILLED, _MISSING_FORCING = (
    int(flag) for flag in (Flag.VALID, Flag.GAP_FILLED, Flag.MISSING_FORCING)
)


def flag_attributes() -> dict[str, Any]:
    """CF attributes of a variable that holds these flags."""
    return {
        "long_name": "state of the profile",
        "standard_name": "status_flag",
        "flag_values": np.array([flag.value for flag in Flag], np.uint8),
        "flag_meanings": " ".join(flag.name.lower() for flag in Flag),
    }


def window_flags(
    missing: NDArray[np.integer | np.bool_],
    filled: NDArray[np.integer | np.bool_],
    window: int,
) -> NDArray[np.uint8]:
    """Flags of the days on which a window ends.

    Args:
        missing: (cells, T) how many variables of the day are missing after filling, or whether.
        filled: (cells, T) how many variables of the day were filled, or whether.
        window: days in a window.

    Returns:
        (cells, T - window + 1), each VALID, GAP_FILLED or MISSING_FORCING.
    """
    n_windows = max(0, missing.shape[1] - window + 1)
    flags = np.empty((len(missing), n_windows), np.uint8)
    _flag_windows(missing, filled, window, flags)
    return flags


@numba.njit(nogil=True, cache=True)
def _flag_windows(
    missing: NDArray[np.integer | np.bool_],
    filled: NDArray[np.integer | np.bool_],
    window: int,
    flags: NDArray[np.uint8],
) -> None:
    """Walk along each series, and remember the last day that was missing or filled."""
    for cell in range(len(missing)):
        last_missing = last_filled = -1
        for day in range(missing.shape[1]):
            if missing[cell, day]:
                last_missing = day
            if filled[cell, day]:
                last_filled = day
            start = day - window + 1
            if start < 0:
                continue
            flags[cell, start] = _VALID
            if last_missing >= start:
                flags[cell, start] = _MISSING_FORCING
            elif last_filled >= start:
                flags[cell, start] = _GAP_FILLED
