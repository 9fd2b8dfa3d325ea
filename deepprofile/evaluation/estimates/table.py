"""Estimates from a table of daily values, for whatever has no cube: a CSV or a Parquet file.

A row is the value of a cell and day in a layer, or at a depth where ``top`` equals ``bottom``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile import places
from deepprofile.evaluation.estimates.base import (
    LayerEstimate,
    Series,
    positions,
)
from deepprofile.evaluation.estimates.table_rows import Rows, TableError, checked_rows
from deepprofile.evaluation.reference.depths import SLACK, compared_text
from deepprofile.grid import N_COLUMNS
from deepprofile.profile import MAX_DEPTH

NAMES = (
    *("row", "column", "longitude", "latitude"),
    *("time", "top", "bottom", "soil_moisture"),
)
"""Columns of a table; the cell is named by the first two or by the next two."""
_READERS = {".csv": "CSV", ".parquet": "Parquet"}
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TableEstimate(LayerEstimate):
    """Means of layers, and values at depths.

    A depth is answered by the value at this depth, or else by the layer that holds it; a layer by
    layers alone. Both as `layers.request_weights` says.

    Attributes:
        depths: depths in metres of the values at a depth.
        at_depths: their soil moisture, shape (cells, time, depths), m³ m⁻³.
    """

    depths: Sequence[float]
    at_depths: Array

    def __post_init__(self) -> None:
        """Check the axes, layers and depths."""
        super().__post_init__()
        expected = (len(self.row), len(self.time), len(self.depths))
        if self.at_depths.shape != expected:
            raise ValueError(
                f"estimate {self.name!r}: values at depths have shape {self.at_depths.shape}, "
                f"expected {expected}"
            )

    def covers(self, top: float, bottom: float) -> bool:
        """Whether there is a value at the depth, or layers that stand for the request."""
        return self._depth(top, bottom) is not None or super().covers(top, bottom)

    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values`."""
        depth = self._depth(top, bottom)
        if depth is None:
            return super().values(cells, top, bottom)
        return self.at_depths[cells, :, depth].astype(np.float64)

    def answered_by(self, top: float, bottom: float) -> str:
        """The depth or the layers."""
        exact = self._depth(top, bottom) is not None
        return compared_text(top, bottom) if exact else super().answered_by(top, bottom)

    def _depth(self, top: float, bottom: float) -> int | None:
        near = np.abs(np.asarray(self.depths, dtype=np.float64) - top) < SLACK
        return int(np.argmax(near)) if top == bottom and near.any() else None


def read_table_estimate(
    url: str | Path, name: str, keys: NDArray[np.int64] | None = None
) -> tuple[TableEstimate, list[str]]:
    """The estimate of a table.

    Args:
        url: a file ``*.csv`` (UTF-8, commas, names in the first line) or ``*.parquet``, with the
            columns ``time`` (the day, UTC), ``top`` and ``bottom`` in metres, ``soil_moisture``
            in m³ m⁻³ and either ``row`` and ``column`` of the 9 km cell or ``longitude`` and
            ``latitude`` of a point in it. Other columns are not used.
        name: of the estimate.
        keys: cells that are kept, see `base.cell_keys`; all where None.

    Returns:
        The estimate, and notes on what was left out.

    Raises:
        FileNotFoundError: if there is no such file.
        TableError: if it is none, lacks a column, or a row is wrong: numbers or times that can't
            be read, a place beyond the grid, depths below 3 m or upside down, soil moisture in
            percent, a cell, day and layer that stand twice.
    """
    rows = checked_rows(str(url), _load(url))
    reaching = rows.bottom > MAX_DEPTH + SLACK
    notes = []
    if reaching.any():
        bounds = sorted(set(zip(rows.top[reaching], rows.bottom[reaching], strict=True)))
        named = ", ".join(f"{top:g} to {bottom:g} m" for top, bottom in bounds)
        notes.append(f"{url}: layers that reach below {MAX_DEPTH:g} m are not used: {named}")
    rows = rows.take(~reaching)
    return _estimate(name, rows, keys), notes


def table_estimate(
    name: str,
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    time: NDArray[np.datetime64],
    bounds: NDArray[np.float64],
    values: Array,
) -> TableEstimate:
    """An estimate of layers and depths that lie side by side.

    Args:
        name: in tables.
        row: shape (cells,).
        column: shape (cells,).
        time: days, shape (time,).
        bounds: (top, bottom) in metres, equal for values at a depth, shape (bounds, 2).
        values: m³ m⁻³, shape (cells, time, bounds).
    """
    layered = bounds[:, 0] < bounds[:, 1]
    layers = [(float(top), float(bottom)) for top, bottom in bounds[layered]]
    depths = [float(top) for top, _ in bounds[~layered]]
    above, at_depths = values[:, :, layered], values[:, :, ~layered]
    return TableEstimate(name, row, column, time, layers, above, depths, at_depths)


def _load(url: str | Path) -> pd.DataFrame:
    """The used columns of a file, with their names in small letters."""
    suffix = PurePosixPath(str(url)).suffix.lower()
    if suffix not in _READERS:
        raise TableError(f"{url}: is no table: expected a file *.csv or *.parquet")
    if not places.exists(url):
        raise FileNotFoundError(f"{url}: there is no such table")
    with places.local_copy(url) as path:
        try:
            frame = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
        except (ValueError, OSError) as error:  # all that pandas and Arrow raise on a bad file
            raise TableError(f"{url}: can't be read as {_READERS[suffix]}: {error}") from None
    frame.columns = [str(column).strip().lower() for column in frame.columns]
    return frame[[column for column in frame.columns if column in NAMES]]


def _estimate(name: str, rows: Rows, keys: NDArray[np.int64] | None) -> TableEstimate:
    """The rows of some cells on the days and with the layers of all."""
    days = np.unique(rows.day)
    bounds = np.unique(np.stack([rows.top, rows.bottom], axis=1), axis=0)
    if keys is not None:
        rows = rows.take(positions(rows.key, np.unique(keys)) >= 0)
    own = np.unique(rows.key)
    values = np.full((own.size, days.size, len(bounds)), np.nan, dtype=np.float32)
    at = np.searchsorted(own, rows.key), np.searchsorted(days, rows.day), _codes(rows, bounds)
    values[at] = rows.value
    row, column = np.divmod(own, N_COLUMNS)
    return table_estimate(name, row, column, days.astype("datetime64[D]"), bounds, values)


def _codes(rows: Rows, bounds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Position of each row's bounds."""
    code = np.zeros(rows.key.size, dtype=np.int64)
    for i, (top, bottom) in enumerate(bounds):
        code[(rows.top == top) & (rows.bottom == bottom)] = i
    return code
