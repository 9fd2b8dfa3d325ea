"""Rows of a table of estimates, checked: what is wrong with one is said with its line."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.estimates.base import cell_keys
from deepprofile.evaluation.stations.columns import MAX_LINES, TableError
from deepprofile.evaluation.stations.table import DEEPEST

__all__ = ["Rows", "TableError", "checked_rows"]

_DIGITS = 6
"""Digits of depths in metres: they may come as float32, or as centimetres over 100."""
_REQUIRED = ("time", "top", "bottom", "soil_moisture")
_BOUNDS = ("top", "bottom")
_CELL, _POINT = ("row", "column"), ("longitude", "latitude")
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Values of cells; every array has the shape (rows,).

    Attributes:
        key: the cell, see `base.cell_keys`.
        day: days since 1970-01-01 (UTC).
        top: metres.
        bottom: metres.
        value: m³ m⁻³, NaN where missing.
    """

    key: NDArray[np.int64]
    day: NDArray[np.int64]
    top: Numbers
    bottom: Numbers
    value: Numbers

    def take(self, chosen: Mask) -> "Rows":
        """Some rows."""
        return Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))


def checked_rows(source: str, frame: pd.DataFrame) -> Rows:
    """The rows of a table.

    Args:
        source: of the table, for messages.
        frame: its columns, see `deepprofile.evaluation.estimates.table`.

    Raises:
        TableError: if a column is missing or a row is wrong.
    """
    place = _place_columns(source, frame)
    if frame.empty:
        raise TableError(f"{source}: has no rows")
    text = frame["soil_moisture"]
    value, numbers = _number(text), {name: _number(frame[name]) for name in (*place, *_BOUNDS)}
    time = pd.to_datetime(frame["time"], utc=True, errors="coerce", **_format(frame["time"]))
    top, bottom = (numbers[name].round(_DIGITS) for name in _BOUNDS)
    for name, found in numbers.items():
        _refuse(source, ~np.isfinite(found), f"a number as {name}", frame[name])
    _refuse(source, time.isna().to_numpy(), "a time as ISO 8601", frame["time"])
    unreadable = (np.isnan(value) & text.notna().to_numpy()) | np.isinf(value)
    _refuse(source, unreadable, "a number as soil_moisture", text)
    _refuse(source, (top < 0) | (top > bottom), "0 <= top <= bottom", frame["top"])
    hint = f"metres, at most {DEEPEST:g}, as bottom (they look like centimetres; divide by 100)"
    _refuse(source, bottom > DEEPEST, hint, frame["bottom"])
    _check_fraction(source, value)
    key = _cells(source, frame, *(numbers[name] for name in place))
    day = time.dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    rows = Rows(key, day, top, bottom, value)
    _check_once(source, rows)
    return rows


def _place_columns(source: str, frame: pd.DataFrame) -> tuple[str, str]:
    """The columns that name the cell."""
    missing = [name for name in _REQUIRED if name not in frame]
    pairs = [pair for pair in (_CELL, _POINT) if set(pair) <= set(frame.columns)]
    if not pairs:
        missing.append("row and column (or longitude and latitude)")
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    if missing or twice:
        wrong = [f"lacks {', '.join(missing)}"] if missing else []
        wrong += [f"has {', '.join(twice)} twice"] if twice else []
        raise TableError(
            f"{source}: {' and '.join(wrong)}; found the columns {', '.join(frame.columns)}. "
            f"Expected {', '.join(_REQUIRED)} and row and column, or longitude and latitude"
        )
    return pairs[0]


def _number(column: pd.Series) -> Numbers:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _format(column: pd.Series) -> dict[str, Any]:
    return {} if pd.api.types.is_datetime64_any_dtype(column) else {"format": "ISO8601"}


def _refuse(source: str, wrong: Mask, expected: str, found: pd.Series) -> None:
    if not wrong.any():
        return
    rows = np.flatnonzero(wrong)
    some = ", ".join(f"row {row + 1}: {found.iloc[row]}" for row in rows[:MAX_LINES].tolist())
    more = f" and {rows.size - MAX_LINES} more" if rows.size > MAX_LINES else ""
    raise TableError(f"{source}: expected {expected}; found {some}{more}")


def _check_fraction(source: str, value: Numbers) -> None:
    known = value[np.isfinite(value)]
    median = float(np.median(known)) if known.size else 0.0
    if median > 1.0:
        raise TableError(
            f"{source}: the median of soil_moisture is {median:g}: expected m3 m-3, at most 1; it "
            "looks like percent. Divide soil_moisture by 100"
        )


def _cells(source: str, frame: pd.DataFrame, first: Numbers, second: Numbers) -> NDArray[np.int64]:
    if set(_CELL) <= set(frame.columns):
        within = (first >= 0) & (first < grid.N_ROWS) & (second >= 0) & (second < grid.N_COLUMNS)
        whole = (first == first.round()) & (second == second.round())
        expected = f"rows from 0 to {grid.N_ROWS - 1}, columns from 0 to {grid.N_COLUMNS - 1}"
        _refuse(source, ~(within & whole), expected, _pairs(first, second))
        return cell_keys(first.astype(np.int64), second.astype(np.int64))
    possible = (first >= -180) & (first <= 360)
    row, column = grid.cell_index(first, second)
    expected = "longitude from -180 to 360 and latitude within 85.04 degrees, where the grid ends"
    _refuse(source, ~possible | (row < 0), expected, _pairs(first, second))
    return cell_keys(row, column)


def _pairs(first: Numbers, second: Numbers) -> pd.Series:
    return pd.Series(zip(first.tolist(), second.tolist(), strict=True))


def _check_once(source: str, rows: Rows) -> None:
    frame = pd.DataFrame({f.name: getattr(rows, f.name) for f in fields(rows) if f.name != "value"})
    twice = frame.duplicated().to_numpy()
    if twice.any():
        at = int(np.flatnonzero(twice)[0])
        row, column = divmod(int(rows.key[at]), grid.N_COLUMNS)
        raise TableError(
            f"{source}: {int(twice.sum())} rows give a cell, day and layer that another row gives, "
            f"such as row {at + 1}: cell row {row}, column {column}, "
            f"{np.datetime64(int(rows.day[at]), 'D')}, {rows.top[at]:g} to {rows.bottom[at]:g} m. "
            "Expected one value a day: average times of a day, and points in one 9 km cell, first"
        )
