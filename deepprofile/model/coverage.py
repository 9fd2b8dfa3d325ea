"""What becomes of every day of every cell: a training sample, or why not."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deepprofile.model.samples import Samples, full_windows

FATES = ("sample", "before_first_window", "missing_features", "gap_in_forcing", "no_target")
"""What may become of a cell-day; the first that applies of the last four, otherwise a sample."""


@dataclass(frozen=True)
class Coverage:
    """What became of the cell-days of a period.

    Attributes:
        days: (cells, fates) number of days, in the order of FATES; the rows sum to the period.
        without_target: (cells,) whether a cell has no target on any day of the period.
        without_value: (variables,) whether a variable has no value in any cell.
    """

    days: NDArray[np.int64]
    without_target: NDArray[np.bool_]
    without_value: NDArray[np.bool_]

    def counts(self, cells: NDArray[np.bool_]) -> dict[str, int]:
        """Days of some cells by what became of them."""
        return dict(zip(FATES, self.days[cells].sum(axis=0).tolist(), strict=True))


def coverage(samples: Samples, window: int, period: slice) -> Coverage:
    """What becomes of each day of a period.

    Args:
        samples: series, gaps filled already, targets and features; nothing before the period.
        window: days in a window.
        period: first day and the one after the last, indices of the series.
    """
    n_cells, _, n_variables = samples.series.shape
    days = np.zeros((n_cells, len(FATES)), np.int64)
    without_target = np.zeros(n_cells, bool)
    seen = torch.zeros(n_variables, dtype=torch.bool)
    early = torch.arange(period.start, period.stop) < period.start + window - 1
    for cell in range(n_cells):  # one cell at a time: no second copy of all series
        missing = torch.isnan(samples.series[cell])
        seen |= ~missing[period].all(0)
        full = full_windows(~missing.any(1)[None], window)[0, period]
        target = ~torch.isnan(samples.target[cell, period]).all(1)
        no_features = torch.isnan(samples.auxiliary[cell]).any().expand_as(early)
        reasons = torch.stack([early, no_features, ~full, ~target])
        fate = torch.where(reasons.any(0), 1 + reasons.int().argmax(0), 0)
        days[cell] = torch.bincount(fate, minlength=len(FATES)).numpy()
        without_target[cell] = not target.any()
    return Coverage(days, without_target, ~seen.numpy())
