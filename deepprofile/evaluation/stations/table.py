"""CSV tables of readings, for networks that are not in the ISMN.

A row is a reading. The columns that it has are named in `deepprofile.evaluation.stations.columns`
and come in any order. What is wrong with rows, sensors or a file is said, and the rest is used.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from deepprofile import places
from deepprofile.evaluation.stations.columns import (
    Columns,
    TableError,
    read_columns,
)
from deepprofile.evaluation.stations.daily import GOOD_FLAGS, MIN_FRACTION, to_daily
from deepprofile.evaluation.stations.records import (
    NoCellError,
    Place,
    Rejected,
    Sensor,
    SensorSeries,
    StationRecords,
    collect,
    place_of,
)

DEEPEST = 3.0
"""Depth in metres beyond which depths are taken for centimetres."""
_SUFFIX = ".csv"


def list_tables(url: str | Path) -> tuple[list[str], list[Rejected]]:
    """CSV files of a table, sorted.

    Args:
        url: a file, or a folder whose files named ``*.csv`` are parts of the table.

    Returns:
        The files, and those of a folder that have another name.

    Raises:
        FileNotFoundError: if there is no such file, or none in the folder.
    """
    found = list(places.find(url))
    if len(found) == 1 and PurePosixPath(found[0]).name == PurePosixPath(str(url)).name:
        return found, []
    tables = [name for name in found if name.lower().endswith(_SUFFIX)]
    if not tables:
        there = f"; found {len(found)} other files" if found else ""
        raise FileNotFoundError(f"there is no table at {url}: expected a file *.csv{there}")
    others = sorted(set(found) - set(tables))
    return tables, [Rejected(name, "not a table (.csv)", str(url)) for name in others]


def read_table(
    url: str | Path,
    *,
    flags: Collection[str] = GOOD_FLAGS,
    min_fraction: float = MIN_FRACTION,
    start: date | None = None,
    stop: date | None = None,
) -> StationRecords:
    """Read a CSV file of readings as daily means.

    Rows with the same network, station, instrument, ``depth_from`` and ``depth_to`` are one
    sensor.

    Args:
        url: a file; path or URL.
        flags: flags of good readings, where the file has a column ``flag``; an empty flag is
            none of them. Without the column every possible reading is good.
        min_fraction: see `deepprofile.evaluation.stations.read_sensors`.
        start: first day to keep; the first of the file by default.
        stop: day after the last one to keep.

    Returns:
        The records. A file that can't be used as a whole, and each sensor that can't, is in
        ``rejected``; rows that can't are in ``notes``.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    try:
        with places.local_copy(url) as path:
            columns = read_columns(path)
    except TableError as error:
        return collect([], [Rejected(str(url), str(error), str(url))], [], start, stop)
    series: list[SensorSeries] = []
    rejected: list[Rejected] = []
    centimetres = _in_centimetres(columns)
    for part in _sensors(columns):
        name = f"{url}: {part.name}"
        wrong = _wrong(part, centimetres)
        result = wrong or _series(part, name, str(url), frozenset(flags), min_fraction)
        if isinstance(result, str):
            rejected.append(Rejected(name, result, str(url)))
        else:
            series.append(result)
    notes = [f"{url}: {note}" for note in columns.notes]
    if series and not columns.has_zone.all():
        notes.append(f"{url}: times without a zone are taken as UTC")
    if not columns.time.size:
        rejected.append(Rejected(str(url), f"no row can be read; {'; '.join(notes)}", str(url)))
    return collect(series, rejected, notes, start, stop)


class _Key(NamedTuple):
    network: str
    station: str
    instrument: str
    top: float
    bottom: float


@dataclass(frozen=True)
class _Part:
    """The rows of one sensor.

    Attributes:
        key: what names the sensor.
        columns: its rows.
    """

    key: _Key
    columns: Columns

    @property
    def name(self) -> str:
        key = self.key
        depth = f"{key.top:g}" if key.top == key.bottom else f"{key.top:g} to {key.bottom:g}"
        return " ".join(part for part in (*key[:3], f"{depth} m") if part)


def _sensors(columns: Columns) -> Iterator[_Part]:
    keys = pd.DataFrame({name: getattr(columns, name) for name in _Key._fields})
    for key, rows in keys.groupby(list(_Key._fields), sort=True).indices.items():
        yield _Part(_Key(*key), columns.take(np.asarray(rows)))  # type: ignore[misc]


def _in_centimetres(columns: Columns) -> set[tuple[str, str]]:
    """Stations with a depth beyond 3 m and none above 1 m: all their depths are centimetres."""
    depths = pd.DataFrame(
        {"network": columns.network, "station": columns.station, "bottom": columns.bottom}
    )
    bounds = depths.groupby(["network", "station"])["bottom"].agg(["min", "max"])
    wrong = bounds[(bounds["max"] > DEEPEST) & (bounds["min"] >= 1.0)]
    return {(str(network), str(station)) for network, station in wrong.index}


def _wrong(part: _Part, centimetres: set[tuple[str, str]]) -> str:
    """What is wrong with a sensor as a whole; empty where nothing is."""
    key, columns = part.key, part.columns
    found = f"depth_from {key.top:g}, depth_to {key.bottom:g}"
    if key.top < 0 or key.top > key.bottom:
        return f"{found}: expected metres below the surface, depth_from not below depth_to"
    if key.bottom > DEEPEST or (key.network, key.station) in centimetres:
        return (
            f"{found}: expected metres, at most {DEEPEST:g}; they look like centimetres. Divide "
            "the depths by 100"
        )
    zones = int(columns.has_zone.sum())
    if 0 < zones < columns.has_zone.size:
        return (
            f"{zones} times have a zone and {columns.has_zone.size - zones} have none: expected "
            "all or none. Add the zone, such as Z or -06:00, to all times"
        )
    possible = columns.value[columns.value >= 0]
    median = float(np.median(possible)) if possible.size else 0.0
    if median > 1.0:
        return (
            f"the median of soil_moisture is {median:g}: expected m3 m-3, at most 1; it looks like "
            "percent. Divide soil_moisture by 100"
        )
    return ""


def _series(
    part: _Part, name: str, source: str, flags: frozenset[str], min_fraction: float
) -> SensorSeries | str:
    columns = part.columns
    try:
        place = _place(columns)
    except NoCellError as error:
        return str(error)
    found = None if columns.flag is None else pd.Series(columns.flag)
    daily = to_daily(columns.time, columns.value, found, flags, min_fraction)
    if isinstance(daily, str):
        return daily if found is None else f"{daily}. {_FLAG_ADVICE}"
    own = {**part.key._asdict(), **place._asdict()}
    return SensorSeries(Sensor(path=name, source=source, **own), daily)


_FLAG_ADVICE = "Name the good ones in ground_truth.good_flags, or leave the column flag out"


def _place(columns: Columns) -> Place:
    pairs = np.stack([columns.longitude, columns.latitude], axis=1)
    known = np.unique(pairs[np.isfinite(pairs).all(axis=1)], axis=0)
    if not len(known):
        raise NoCellError("longitude and latitude are missing or no numbers: expected degrees")
    if len(known) > 1:
        some = ", ".join(f"{x:g} {y:g}" for x, y in known[:3].tolist())
        raise NoCellError(
            f"{len(known)} different places (longitude latitude {some}): expected one for a sensor"
        )
    return place_of(*known[0].tolist())
