"""Training samples: whole series of cells, from which windows are cut when they are needed.

A window of 360 days x 39 variables is 56 kB, a cell-day 156 bytes: series are held once, as
(cells, days, variables), so that a window is one contiguous piece of memory. Cutting a batch of
128 windows takes 0.5 ms this way; from (cells, variables, days) it takes twice as long and the
network would have to transpose it besides.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepprofile.model.gaps import MAX_GAP, fill_gaps


class Batch(NamedTuple):
    """Samples as the network and the loss take them.

    Attributes:
        series: (B, variables, window) in raw units.
        auxiliary: (B, features) in raw units.
        target: (B, layers) in m³ m⁻³, NaN where missing.
        weight: (B, layers).
    """

    series: Tensor
    auxiliary: Tensor
    target: Tensor
    weight: Tensor


class Limits(NamedTuple):
    """Minimum and maximum of each variable and of each auxiliary feature."""

    series: tuple[Tensor, Tensor]
    auxiliary: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Samples:
    """Series, features, targets and weights of a set of cells.

    Attributes:
        series: (cells, days, variables) f4, contiguous, NaN where missing.
        auxiliary: (cells, features) f4.
        target: (cells, days, layers) f4, NaN where missing.
        weight: (cells, layers) f4.
        n_filled: cell-days of a variable that :meth:`from_arrays` filled.
    """

    series: Tensor
    auxiliary: Tensor
    target: Tensor
    weight: Tensor
    n_filled: int = 0

    @classmethod
    def from_arrays(
        cls,
        series: NDArray[np.float32],
        auxiliary: NDArray[np.float32],
        target: NDArray[np.float32],
        weight: NDArray[np.float32],
        max_gap: int = MAX_GAP,
    ) -> "Samples":
        """Samples from arrays in the order of the samples cube, short gaps filled.

        Args:
            series: (cells, variables, days).
            auxiliary: (cells, features).
            target: (cells, layers, days).
            weight: (cells, layers).
            max_gap: longest gap of the series in days that is filled by a straight line.

        Raises:
            ValueError: if the shapes don't belong together, a weight is missing or negative, or
                any other value is infinite.
        """
        _check_arrays(series, auxiliary, target, weight)
        n_cells, n_variables, n_days = series.shape
        turned = np.empty((n_cells, n_days, n_variables), np.float32)
        n_filled = 0
        for cell in range(n_cells):  # one cell at a time: no second copy of all series
            filled = fill_gaps(series[cell : cell + 1], max_gap)
            turned[cell] = filled.series[0].T
            n_filled += int(filled.n_filled.sum())
        return cls(
            torch.from_numpy(turned),
            torch.tensor(auxiliary, dtype=torch.float32),
            torch.tensor(np.ascontiguousarray(target.transpose(0, 2, 1)), dtype=torch.float32),
            torch.tensor(weight, dtype=torch.float32),
            n_filled,
        )

    def to(self, device: str | torch.device) -> "Samples":
        """The same samples on another device."""
        return Samples(
            self.series.to(device),
            self.auxiliary.to(device),
            self.target.to(device),
            self.weight.to(device),
            self.n_filled,
        )

    def gather(self, index: Tensor, window: int) -> Batch:
        """Cut the windows of some samples, without a loop over them.

        Args:
            index: (B, 2) cell and last day of each window.
            window: days in a window.
        """
        cell, end = index.to(self.series.device, torch.int64).unbind(1)
        return Batch(
            cut_windows(self.series, cell, end, window),
            self.auxiliary[cell],
            self.target[cell, end],
            self.weight[cell],
        )

    def sample_index(self, window: int, cells: NDArray[np.bool_] | None = None) -> Tensor:
        """All samples: windows without a missing value that end on a day with any target.

        Args:
            window: days in a window.
            cells: (cells,) which cells to take; all by default.

        Returns:
            (n, 2) int32, cell and last day, ordered by cell and day.
        """
        complete = ~torch.isnan(self.series).any(2) & ~torch.isnan(self.auxiliary).any(1)[:, None]
        usable = full_windows(complete, window)
        usable &= ~torch.isnan(self.target).all(2)
        if cells is not None:
            usable &= torch.as_tensor(cells, dtype=torch.bool, device=usable.device)[:, None]
        return usable.nonzero().to(torch.int32)

    def limits(self, index: Tensor, window: int) -> Limits:
        """Minimum and maximum over all days that the windows of ``index`` cover.

        Raises:
            ValueError: if the index is empty.
        """
        if not len(index):
            raise ValueError("no training sample: limits cannot be taken from an empty index")
        used = self._days_used(index, window)
        cells = used.any(1).nonzero().flatten().tolist()
        lows = torch.stack([self.series[cell][used[cell]].amin(0) for cell in cells])
        highs = torch.stack([self.series[cell][used[cell]].amax(0) for cell in cells])
        auxiliary = self.auxiliary[cells]
        return Limits((lows.amin(0), highs.amax(0)), (auxiliary.amin(0), auxiliary.amax(0)))

    def mean_target(self, index: Tensor) -> float:
        """Mean of all targets of the samples in m³ m⁻³, whatever the layer."""
        cell, end = index.to(self.target.device, torch.int64).unbind(1)
        return float(torch.nanmean(self.target[cell, end].double()))

    def _days_used(self, index: Tensor, window: int) -> Tensor:
        """(cells, days) true where some window covers the day."""
        n_cells, n_days, _ = self.series.shape
        cell, end = index.to(self.series.device, torch.int64).unbind(1)
        edges = torch.zeros((n_cells, n_days + 1), dtype=torch.int32, device=cell.device)
        one = torch.ones((), dtype=torch.int32, device=cell.device)
        edges.index_put_((cell, end - window + 1), one, accumulate=True)
        edges.index_put_((cell, end + 1), -one, accumulate=True)
        return edges.cumsum(1)[:, :-1] > 0


def cut_windows(series: Tensor, cell: Tensor, end: Tensor, window: int) -> Tensor:
    """Windows of a contiguous ``series`` (cells, days, variables) as (B, variables, window).

    Args:
        series: (cells, days, variables), contiguous.
        cell: (B,) int64, cell of each window.
        end: (B,) int64, last day of each window; at least ``window`` - 1.
        window: days in a window.
    """
    _, n_days, n_variables = series.shape
    windows = series.view(-1).unfold(0, window * n_variables, n_variables)
    chosen = windows.index_select(0, cell * n_days + end - window + 1)
    return chosen.view(-1, window, n_variables).transpose(1, 2)


def full_windows(complete: Tensor, window: int) -> Tensor:
    """Days on which a whole window of complete days ends.

    Args:
        complete: (cells, days) bool.
        window: days in a window.

    Returns:
        (cells, days) bool.
    """
    count = complete.cumsum(1)
    before = torch.nn.functional.pad(count, (window, 0))[:, : complete.shape[1]]
    return count - before == window


def _check_arrays(
    series: NDArray[np.float32],
    auxiliary: NDArray[np.float32],
    target: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    shapes = [array.shape for array in (series, auxiliary, target, weight)]
    dimensions = [len(shape) for shape in shapes]
    if dimensions != [3, 2, 3, 2] or (
        len({shape[0] for shape in shapes}) > 1
        or series.shape[2] != target.shape[2]
        or target.shape[1] != weight.shape[1]
    ):
        raise ValueError(
            "series {}, auxiliary {}, target {} and weight {} don't belong together: expected "
            "(cells, variables, days), (cells, features), (cells, layers, days), "
            "(cells, layers)".format(*shapes)
        )
    for name, array in (("series", series), ("auxiliary", auxiliary), ("target", target)):
        _check_finite(name, array)
    wrong = np.flatnonzero(~(weight >= 0).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} cells have a weight that is missing or negative, the first is cell "
            f"{wrong[0]}: {weight[wrong[0]]}. Fill invalid cells with the median weights of the "
            "valid ones first."
        )


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    for cell, values in enumerate(array):
        where = np.argwhere(np.isinf(values))
        if len(where):
            raise ValueError(
                f"{name} of cell {cell} holds an infinite value at index {where[0].tolist()}: "
                "expected finite values, or NaN where missing"
            )
