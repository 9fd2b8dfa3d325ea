"""What products are made of: fields, granules, and daily values on the 9 km grid."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepprofile.profile import Layer


@dataclass(frozen=True)
class Field:
    """One variable of a product.

    Attributes:
        name: our name of it.
        units: units of the values we give.
        valid_min: smallest valid value, in ``units``; a value below it becomes missing.
        valid_max: largest valid value, in ``units``.
        source: name of the variable in the file.
        layer: the soil layer it describes, if it describes one.
        scale: factor from the units in the file to ``units``.
        file_units: units in the file, where they are not ``units``.
    """

    name: str
    units: str
    valid_min: float
    valid_max: float
    source: str
    layer: Layer | None = None
    scale: float = 1.0
    file_units: str | None = None


@dataclass(frozen=True)
class Granule:
    """One file of a product.

    Attributes:
        url: local path or fsspec URL.
        start: time of its first step, UTC.
        last: time of its last step, UTC.
        steps: number of time steps it holds.
        version: version of the processing, as the file or its name gives it.
        hours: days since 1970-01-01 on which it has steps, each with the hours of its steps as
            bits; empty where the first and the last step are all that there are.
    """

    url: str
    start: np.datetime64
    last: np.datetime64
    steps: int = 1
    version: str = ""
    hours: tuple[tuple[int, int], ...] = ()

    def overlaps(self, start: date, stop: date) -> bool:
        """Whether a step may lie in the days from ``start`` up to, not including, ``stop``."""
        return bool(self.last >= np.datetime64(start, "s") and self.start < np.datetime64(stop))


def hours_of(times: NDArray[np.datetime64]) -> tuple[tuple[int, int], ...]:
    """Days since 1970-01-01, in order, each with the hours of its times as bits."""
    found: dict[int, int] = {}
    for hour in np.unique(times.astype("datetime64[h]").astype(np.int64)).tolist():
        found[hour // 24] = found.get(hour // 24, 0) | 1 << hour % 24
    return tuple(found.items())


@dataclass(frozen=True)
class SetAside:
    """A file, or a part of it, that was not used, and why."""

    url: str
    reason: str


class GranuleError(ValueError):
    """A granule cannot be used; the others can."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class MissingVariableError(GranuleError):
    """A granule lacks a variable that was asked for."""


class GranuleChangedError(RuntimeError):
    """A granule changed while it was read: nothing of it was used; reading it again helps."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(
            f"{url} changed while it was read: {what}. Nothing of this reading is used; it can be "
            "read again when whatever writes it is done."
        )


@dataclass
class DailyFields:
    """Daily means on a window of the 9 km grid.

    Attributes:
        values: float32, shape (days, fields, rows, columns), NaN where missing. The mean of a
            field takes that field's own valid steps and is missing where they are too few.
        n_steps: uint8, shape (days, rows, columns): steps on which every field was valid. For a
            regridded product the smallest number among the neighbours that contribute.
        hours: uint32, shape (days,): bit h is set if a step in hour h of the day was read.
        set_aside: granules that were not used.
        out_of_range: for each field, the number of values outside its valid range, counted on the
            part of the source grid that was read.
        short_days: days with too few steps in the files, and how many there were.
    """

    values: NDArray[np.float32]
    n_steps: NDArray[np.uint8]
    hours: NDArray[np.uint32]
    set_aside: list[SetAside] = field(default_factory=list)
    out_of_range: dict[str, int] = field(default_factory=dict)
    short_days: list[tuple[date, int]] = field(default_factory=list)


class Reader(Protocol):
    """Reads the steps of granules on one window, on the product's own grid."""

    def steps(
        self, granule: Granule, start: np.datetime64, stop: np.datetime64
    ) -> Iterator[tuple[np.datetime64, NDArray[np.float32]]]:
        """Time and values (fields, …, …) of each step from ``start`` up to ``stop``.

        Values are in the units of the file, NaN where missing, in an array that may be used again
        for the next step. The two last dimensions are the same for every granule.

        Raises:
            GranuleError: if the granule cannot be used.
        """
        ...

    def to_grid(
        self, mean: NDArray[np.float32], n_steps: NDArray[np.uint8], required: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Daily means and numbers of steps on the window of the 9 km grid."""
        ...
