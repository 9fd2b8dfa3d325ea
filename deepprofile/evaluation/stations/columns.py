"""Columns of a CSV table of readings, parsed; rows that can't be are counted and named."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow

REQUIRED = (
    "network",
    "station",
    "latitude",
    "longitude",
    "depth_from",
    "depth_to",
    "time",
    "soil_moisture",
)
OPTIONAL = ("flag", "instrument")
MISSING = {"", "na", "nan", "null", "none", "-"}
"""Texts of a soil moisture that is missing, in small letters."""
MAX_LINES = 5
"""Lines that a message names."""
_ZONE = r"\d[T ]\d{2}.*(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"
Texts = NDArray[np.object_]
Numbers = NDArray[np.float64]


class TableError(ValueError):
    """A table that can't be read as a whole."""


@dataclass(frozen=True)
class Columns:
    """Readable rows of a table; every array has the shape (rows,).

    Attributes:
        network: names.
        station: names.
        instrument: names, empty where there are none.
        latitude: degrees north, NaN where it is no number.
        longitude: degrees east, NaN where it is no number.
        top: ``depth_from`` in metres.
        bottom: ``depth_to`` in metres.
        time: UTC.
        has_zone: whether the time came with a zone.
        value: soil moisture in m³ m⁻³, NaN where missing.
        flag: quality flags; None without the column.
        notes: columns that are not used, and rows that were left out.
    """

    network: Texts
    station: Texts
    instrument: Texts
    latitude: Numbers
    longitude: Numbers
    top: Numbers
    bottom: Numbers
    time: NDArray[np.datetime64]
    has_zone: NDArray[np.bool_]
    value: Numbers
    flag: Texts | None
    notes: list[str] = field(default_factory=list)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Columns":
        """Some rows, without the notes."""
        chosen: dict[str, Any] = {
            f.name: None if getattr(self, f.name) is None else getattr(self, f.name)[rows]
            for f in fields(self)
            if f.name != "notes"
        }
        return Columns(**chosen)


def read_columns(path: Path) -> Columns:
    """Read a CSV file: UTF-8, comma between columns, names in the first line.

    Raises:
        TableError: if it is no such file or lacks a column of ``REQUIRED``.
    """
    names = _header(path)
    used = [name for name in names if name in (*REQUIRED, *OPTIONAL)]
    table, lines, broken = _load(path, names, used)
    frame = table.to_pandas()
    filled = ~np.logical_and.reduce([_blank(frame[name]) for name in used])
    frame, lines = frame[filled], lines[filled]
    parsed, wrong = _parse(frame)
    notes = _notes(sorted(set(names) - set(used)), broken, wrong, lines)
    return replace(parsed.take(~np.logical_or.reduce([*wrong.values()])), notes=notes)


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"is no CSV file in UTF-8: {error}") from None
    names = [name.strip().lower() for name in first]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise TableError(
            f"columns {', '.join(missing)} are missing; found {', '.join(names) or 'nothing'}. "
            f"Expected a first line with {', '.join(REQUIRED)}, separated by commas, and if there "
            f"are {' and '.join(OPTIONAL)}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"column {twice[0]} stands twice in the first line: expected it once")
    return names


def _load(
    path: Path, names: Sequence[str], used: Sequence[str]
) -> tuple[pa.Table, NDArray[np.int64], list[int]]:
    """All rows as categories of texts, the line of each, and lines with too many or few columns."""
    broken: list[int] = []

    def skip(row: Any) -> str:
        broken.append(int(row.number))
        return "skip"

    text = pa.dictionary(pa.int32(), pa.string())
    try:
        table = arrow.read_csv(
            str(path),
            read_options=arrow.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            parse_options=arrow.ParseOptions(invalid_row_handler=skip, ignore_empty_lines=False),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(used, text),
                include_columns=list(used),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise TableError(f"can't be read as CSV in UTF-8: {error}") from None
    lines = np.setdiff1d(np.arange(2, 2 + table.num_rows + len(broken)), broken)
    return table.unify_dictionaries(), lines, broken


def _parse(frame: pd.DataFrame) -> tuple[Columns, dict[str, NDArray[np.bool_]]]:
    """The columns, and by what is expected which rows do not have it."""
    time, has_zone = _times(frame["time"])
    value = _numbers(frame["soil_moisture"])
    known = [text.lower() in MISSING for text in _categories(frame["soil_moisture"])]
    missing = _spread(np.array(known, dtype=bool), frame["soil_moisture"])
    nameless = np.full(len(frame), "", dtype=object)
    parsed = Columns(
        network=_texts(frame["network"]),
        station=_texts(frame["station"]),
        instrument=_texts(frame["instrument"]) if "instrument" in frame else nameless,
        latitude=_numbers(frame["latitude"]),
        longitude=_numbers(frame["longitude"]),
        top=_numbers(frame["depth_from"]),
        bottom=_numbers(frame["depth_to"]),
        time=time,
        has_zone=has_zone,
        value=value,
        flag=_texts(frame["flag"]) if "flag" in frame else None,
    )
    wrong = {
        "a name of network and station": (parsed.network == "") | (parsed.station == ""),
        "numbers as depths": ~(np.isfinite(parsed.top) & np.isfinite(parsed.bottom)),
        "a time as ISO 8601": np.isnat(time),
        "a number as soil_moisture": np.isnan(value) & ~missing,
    }
    return parsed, wrong


def _categories(column: pd.Series) -> list[str]:
    """The different texts of a categorical column, without blanks around them."""
    return [str(text).strip() for text in column.cat.categories]


def _spread(found: NDArray[Any], column: pd.Series) -> NDArray[Any]:
    """What was found for each category, for each row."""
    return found[column.cat.codes.to_numpy()]


def _blank(column: pd.Series) -> NDArray[np.bool_]:
    return _spread(np.array([not text for text in _categories(column)], dtype=bool), column)


def _texts(column: pd.Series) -> Texts:
    return _spread(np.array(_categories(column), dtype=object), column)


def _numbers(column: pd.Series) -> Numbers:
    """Numbers, NaN where a text is none."""
    texts = pd.Series(_categories(column), dtype=str)
    return _spread(pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64), column)


def _times(column: pd.Series) -> tuple[NDArray[np.datetime64], NDArray[np.bool_]]:
    """Times in UTC, NaT where a text is none; and whether each has a zone."""
    texts = pd.Series(_categories(column), dtype=str)
    found = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    times = found.dt.tz_localize(None).to_numpy().astype("datetime64[s]")
    zones = texts.str.contains(_ZONE, regex=True).to_numpy(dtype=bool)
    return _spread(times, column), _spread(zones, column)


def _notes(
    unused: Sequence[str],
    broken: Sequence[int],
    wrong: dict[str, NDArray[np.bool_]],
    lines: NDArray[np.int64],
) -> list[str]:
    notes = []
    if unused:
        names = ", ".join(repr(name) for name in unused)
        notes.append(f"columns that are not used: {names}")
    reasons = {f"without {what}": lines[rows].tolist() for what, rows in wrong.items()}
    reasons["with too many or too few columns"] = sorted(broken)
    for reason, found in reasons.items():
        if found:
            some = ", ".join(map(str, found[:MAX_LINES]))
            more = f" and {len(found) - MAX_LINES} more" if len(found) > MAX_LINES else ""
            notes.append(f"rows {reason} are left out: {len(found)}, lines {some}{more}")
    return notes
