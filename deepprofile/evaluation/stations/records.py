"""What was read: sensors with their daily means, and what was set aside."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.stations.daily import Daily, Days


@dataclass(frozen=True)
class Rejected:
    """A file or sensor that gives no ground truth.

    Attributes:
        path: path inside the archive; of a table its path, and the sensor.
        reason: what is wrong with it.
        source: archive or table.
    """

    path: str
    reason: str
    source: str = ""


@dataclass(frozen=True)
class Sensor:
    """One sensor: a file of an archive, or a part of a table.

    Attributes:
        network: name of the network.
        station: name of the station.
        instrument: name of the instrument; empty where a table gives none.
        path: path inside the archive; of a table its path, and the sensor.
        longitude: degrees east, -180 to 180.
        latitude: degrees north.
        row: row of the 9 km cell.
        column: column of the 9 km cell.
        top: upper end of the depth that the sensor measures, metres.
        bottom: lower end, equal to ``top`` for a reading at a depth.
        source: archive or table.
        land_cover: class of the station, see `deepprofile.evaluation.stations.classes`.
        climate: another.
        texture: another.
    """

    network: str
    station: str
    instrument: str
    path: str
    longitude: float
    latitude: float
    row: int
    column: int
    top: float
    bottom: float
    source: str = ""
    land_cover: str = ""
    climate: str = ""
    texture: str = ""


@dataclass
class StationRecords:
    """Daily means of sensors.

    Attributes:
        sensors: a row per sensor with the fields of :class:`Sensor` as columns, and of its
            readings ``usual_readings``, ``n_readings`` and ``n_good``, see
            :class:`~deepprofile.evaluation.stations.daily.Daily`.
        time: the days (UTC), regular, shape (time,).
        values: daily means in m³ m⁻³, float32, NaN where a day has too few good readings,
            shape (sensors, time).
        rejected: files and sensors that gave nothing, each with its reason.
        notes: what was assumed for the others, or left out of them.
    """

    sensors: pd.DataFrame
    time: Days
    values: NDArray[np.float32]
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class SensorSeries(NamedTuple):
    """A sensor and its daily means, see `Daily`."""

    sensor: Sensor
    daily: Daily


class NoCellError(ValueError):
    """Coordinates that lie in no cell of the grid."""


class Place(NamedTuple):
    """Where a sensor lies, see :class:`Sensor`."""

    longitude: float
    latitude: float
    row: int
    column: int


def place_of(longitude: float, latitude: float) -> Place:
    """The place of a station and the cell that holds it.

    Args:
        longitude: degrees east, -180 to 180 or 0 to 360.
        latitude: degrees north.

    Raises:
        NoCellError: if there is no such place or it lies beyond the grid.
    """
    where = f"longitude {longitude:g}, latitude {latitude:g}"
    if not (np.isfinite(longitude) and np.isfinite(latitude)):
        raise NoCellError(f"{where}: coordinates are missing; expected degrees")
    if not (-180.0 <= longitude <= 360.0 and -90.0 <= latitude <= 90.0):
        raise NoCellError(
            f"{where} are no coordinates: expected degrees east (-180 to 360) and degrees north "
            "(-90 to 90); are they exchanged or in another unit?"
        )
    row, column = (int(index) for index in grid.cell_index(longitude, latitude))
    if row < 0:
        raise NoCellError(f"{where} lie in no cell: the grid ends at 85.04 degrees north and south")
    return Place(longitude - 360.0 if longitude > 180.0 else longitude, latitude, row, column)


def collect(
    series: Sequence[SensorSeries],
    rejected: list[Rejected],
    notes: list[str],
    start: date | None = None,
    stop: date | None = None,
) -> StationRecords:
    """Series as records on one time axis, with the remarks on them added to the notes.

    Args:
        series: the sensors.
        rejected: what gave nothing.
        notes: what else is to be said.
        start: first day to keep; the first of all by default.
        stop: day after the last one to keep.
    """
    readings = ("usual_readings", "n_readings", "n_good")
    rows = [
        asdict(sensor) | {name: getattr(daily, name) for name in readings}
        for sensor, daily in series
    ]
    columns = [*Sensor.__dataclass_fields__, *readings]
    sensors = pd.DataFrame(rows, columns=columns)
    notes = notes + [f"{s.path}: {remark}" for s, daily in series for remark in daily.remarks]
    time = all_days([daily.days for _, daily in series], start, stop)
    values = np.full((len(series), time.size), np.nan, dtype=np.float32)
    for line, (_, daily) in zip(values, series, strict=True):
        position = (daily.days - time[0]).astype(np.int64) if time.size else np.empty(0, np.int64)
        inside = (position >= 0) & (position < time.size)
        line[position[inside]] = daily.means[: position.size][inside]
    return StationRecords(sensors, time, values, rejected, notes)


def all_days(parts: Sequence[Days], start: date | None = None, stop: date | None = None) -> Days:
    """Every day from the first to the last of some regular series of days."""
    filled = [days for days in parts if days.size]
    if not filled and (start is None or stop is None):
        return np.empty(0, dtype="datetime64[D]")
    first = np.datetime64(start, "D") if start else min(days[0] for days in filled)
    last = np.datetime64(stop, "D") if stop else max(days[-1] for days in filled) + 1
    return np.arange(first, last, dtype="datetime64[D]")
