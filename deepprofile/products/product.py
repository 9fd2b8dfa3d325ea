"""What every product can do: list its granules and turn them into daily fields."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import ClassVar

from deepprofile.products.base import DailyFields, Field, Granule, Reader, SetAside
from deepprofile.products.daily import DailyMeans, required_steps
from deepprofile.products.files import local_path
from deepprofile.profile import Layer

MIN_FRACTION = 0.75
"""Share of a day's steps that a daily mean needs."""


class Product(ABC):
    """A source of daily fields.

    Attributes:
        name: the product's name, such as ``"smap_l4"``.
        steps_per_day: steps of a full day.
        most_threads: readers that may work at the same time.
        fields: the fields that are read, in order.
    """

    name: ClassVar[str]
    steps_per_day: ClassVar[int]
    most_threads: ClassVar[int] = 1
    fields: tuple[Field, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The soil layers among the fields, in order."""
        return tuple(f.layer for f in self.fields if f.layer is not None)

    @abstractmethod
    def granules(self, url: str, start: date, stop: date) -> tuple[list[Granule], list[SetAside]]:
        """Granules under ``url`` with steps in the days from ``start`` up to, not incl., ``stop``.

        Args:
            url: folder, local or any fsspec URL; it is searched recursively.
            start: first day, UTC.
            stop: the day after the last.

        Returns:
            Granules in the order in which they are to be read, and the files set aside: older
            versions of a granule, files that cannot be read.

        Raises:
            FileNotFoundError: if nothing under ``url`` is a granule of this product.
        """

    @abstractmethod
    def reader(self, rows: slice, columns: slice) -> Reader:
        """Reader of the product on a window of the 9 km grid."""

    def read_daily(
        self,
        granules: Sequence[Granule],
        first_day: date,
        n_days: int,
        rows: slice,
        columns: slice,
        *,
        min_fraction: float = MIN_FRACTION,
        threads: int | None = None,
    ) -> DailyFields:
        """Daily means over UTC days on a window of the 9 km grid.

        One granule is in memory at a time, with threads one in each. A granule that cannot be used
        is set aside and its day is built from what remains. The result does not depend on the
        number of threads.

        Args:
            granules: as ``granules`` gives them; where two hold the same step the first is taken.
            first_day: first day, UTC.
            n_days: number of days.
            rows: rows of the grid, ``start`` and ``stop`` given.
            columns: columns of the grid, ``start`` and ``stop`` given.
            min_fraction: share of ``steps_per_day`` that a daily mean needs; at least one step is.
            threads: number of threads that read days of their own; by default 1 for local
                granules, where more are no quicker (HDF5 works in one at a time), and
                ``most_threads`` for others, which wait more than they work; never more than that.
                Each takes memory for a step and a day's sums: 16 to 17 bytes for each cell of
                each field.

        Raises:
            GranuleChangedError: if a granule changed while it was read; trying again helps.
            MissingVariableError: if every granule lacks a variable that was asked for.
            ValueError: if ``min_fraction`` is not between 0 and 1 or ``threads`` below 1.
        """
        if threads is None:
            remote = any(local_path(granule.url) is None for granule in granules)
            threads = self.most_threads if remote else 1
        if threads < 1:
            raise ValueError(f"threads is {threads}: expected 1 or more")
        required = required_steps(min_fraction, self.steps_per_day)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        means = DailyMeans(self.fields, required, first_day, n_days, shape)
        return means.read(
            [partial(self.reader, rows, columns)] * min(threads, self.most_threads), granules
        )


def select_layers(fields: Sequence[Field], layers: Sequence[Layer] | None) -> tuple[Field, ...]:
    """The fields of the wanted layers, in the order wanted; all fields for None.

    Raises:
        ValueError: if a wanted layer is not among the fields.
    """
    if layers is None:
        return tuple(fields)
    known = {f.layer: f for f in fields}
    for layer in layers:
        if layer not in known:
            raise ValueError(
                f"there is no layer {layer.name}; available: "
                + ", ".join(f.layer.name for f in fields if f.layer is not None)
            )
    return tuple(known[layer] for layer in layers)
