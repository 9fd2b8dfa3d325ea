"""The reading at one depth as the estimate of all others: what a single sensor would tell."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import Estimate, Series
from deepprofile.evaluation.estimates.own_series import distinct_cells, own_values, series_at
from deepprofile.evaluation.reference import depths

DEPTH = 0.10
SENSOR = "sensor"


@dataclass(frozen=True, eq=False)
class SensorEstimate(Estimate):
    """A reference's reading at one depth, taken for the whole column below it and above.

    It does not answer for its own series, which it would meet exactly; of the sensor at 1 m
    that is also the one compared over 90-100 cm. The 0-100 cm column holds it as one sensor of
    several and is answered.

    Attributes:
        reference: see :mod:`deepprofile.evaluation.reference.series`.
        bounds: (top, bottom) in metres over which estimates are compared with the reading.
    """

    reference: xr.Dataset
    bounds: tuple[float, float]

    @classmethod
    def of(
        cls, reference: xr.Dataset, depth: float = DEPTH, name: str = SENSOR
    ) -> "SensorEstimate":
        """The reading at a depth in every cell that has it, on the reference's days.

        Args:
            reference: the reference.
            depth: metres; up to 0.05 m it is the surface, the mean of 0 to 0.05 m.
            name: in tables.

        Raises:
            ValueError: if no depth group holds the depth.
        """
        group = depths.depth_group(depth, depth)
        if group is None:
            known = ", ".join(one.name for one in depths.DEPTH_GROUPS)
            raise ValueError(
                f"depth {depth:g} m of estimate {name!r} belongs to no depth group, so there are "
                f"no readings of it: expected metres within one of {known}"
            )
        bounds = depths.compared_bounds(group, depth, depth)
        row, column = distinct_cells(reference, series_at(reference, *bounds))
        return cls(name, row, column, reference["time"].to_numpy(), reference, bounds)

    def covers(self, top: float, bottom: float) -> bool:
        """Whether there is a reading at all, and the request is not the reading itself."""
        own = [self.bounds]
        if self.bounds == (depths.COLUMN_BOTTOM, depths.COLUMN_BOTTOM):
            own.append(depths.DEEP_LAYER)
        return len(self.row) > 0 and not any(
            np.allclose((top, bottom), one, rtol=0, atol=depths.SLACK) for one in own
        )

    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values`; the same for every request."""
        if not self.covers(top, bottom):
            raise ValueError(
                f"estimate {self.name!r} says nothing about {top} to {bottom} m: it is made of "
                f"readings {depths.compared_text(*self.bounds)}, and never answers for those"
            )
        return own_values(self.reference, self.keys[cells], *self.bounds)

    def answered_by(self, top: float, bottom: float) -> str:
        """The reading."""
        return f"reading {depths.compared_text(*self.bounds)}"
