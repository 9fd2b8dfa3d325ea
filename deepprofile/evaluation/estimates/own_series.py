"""Series of a reference by their bounds and cells, for estimates that are made from them."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import Series, cell_keys, positions
from deepprofile.evaluation.reference.depths import SLACK

Cells = NDArray[np.int64]


def series_at(reference: xr.Dataset, top: float, bottom: float) -> Cells:
    """Positions of the series that estimates are compared with over these bounds in metres."""
    found = np.abs(reference["top"].to_numpy() - top) < SLACK
    return np.flatnonzero(found & (np.abs(reference["bottom"].to_numpy() - bottom) < SLACK))


def distinct_cells(reference: xr.Dataset, series: Cells | None = None) -> tuple[Cells, Cells]:
    """Rows and columns of the cells of some series, of all where None, each once and sorted."""
    places = np.stack([reference["row"].to_numpy(), reference["column"].to_numpy()], axis=1)
    row, column = np.unique(places if series is None else places[series], axis=0).T
    return row, column


def own_values(reference: xr.Dataset, keys: Cells, top: float, bottom: float) -> Series:
    """What a reference says of cells; the mean where a cell has two series of these bounds.

    Args:
        reference: a reference; of one that is read where it is indexed, these series are read.
        keys: the cells, see `base.cell_keys`, each once.
        top: metres.
        bottom: metres.

    Returns:
        Shape (cells, time), NaN where the reference has no value.
    """
    series, at = series_of_cells(reference, keys, top, bottom)
    values = reference["soil_moisture"].isel(series=series).to_numpy()
    return cell_means(values, at, len(keys))


def series_of_cells(
    reference: xr.Dataset, keys: Cells, top: float, bottom: float
) -> tuple[Cells, Cells]:
    """Series of these bounds in some cells, and the position of each one's cell in ``keys``."""
    found = series_at(reference, top, bottom)
    row, column = (reference[name].to_numpy()[found] for name in ("row", "column"))
    at = positions(cell_keys(row, column), keys)
    return found[at >= 0], at[at >= 0]


def cell_means(values: NDArray[np.floating], at: Cells, n_cells: int) -> Series:
    """Means over the series of each cell that have a value on the day.

    Args:
        values: shape (series, time), NaN where missing.
        at: position of the cell of each series.
        n_cells: number of cells.

    Returns:
        Shape (cells, time), NaN where no series has a value.
    """
    known = np.isfinite(values)
    total = np.zeros((n_cells, values.shape[-1]))
    count = np.zeros(total.shape, dtype=np.int64)
    np.add.at(total, at, np.where(known, values, 0.0))
    np.add.at(count, at, known)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
