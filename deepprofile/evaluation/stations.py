"""Station archives of the International Soil Moisture Network, read as daily means per sensor.

The format (header+values or CEOP in separate files, in a zip file or a folder) is read by the
``ismn`` package, one file after the other through its ``DataFile``: nothing is written beside the
archive, no sensor is lost to a depth limit, and a bad file is known with its reason.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from ismn.base import IsmnRoot
from ismn.filehandlers import DataFile
from numpy.typing import NDArray

from deepprofile import grid, places

VALID_MIN, VALID_MAX = 0.0, 1.0
"""Range of soil moisture in m³ m⁻³ outside which a reading is never used, whatever its flag."""
GOOD_FLAGS = ("G",)
MIN_FRACTION = 0.75
"""Share of a sensor's usual number of readings that makes a day."""
_DATA_SUFFIX = ".stm"
_SIDE_SUFFIXES = {".csv", ".xml", ".log"}
_SIDE_FILES = {"readme.txt", "ismn_qualityflags_description.txt"}
Days = NDArray[np.datetime64]


@dataclass(frozen=True)
class Rejected:
    """A file that gives no ground truth.

    Attributes:
        path: path inside the archive.
        reason: what is wrong with it.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Sensor:
    """One sensor file of an archive.

    Attributes:
        network: name of the network.
        station: name of the station.
        instrument: name of the instrument.
        path: path inside the archive.
        longitude: degrees east.
        latitude: degrees north.
        row: row of the 9 km cell.
        column: column of the 9 km cell.
        top: upper end of the depth that the sensor measures, metres.
        bottom: lower end, equal to ``top`` for a reading at a depth.
        usual_readings: readings of a usual day, of any flag.
        n_readings: readings in all.
        n_good: readings whose flags are all good and whose value is possible.
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
    usual_readings: int
    n_readings: int
    n_good: int


@dataclass
class StationRecords:
    """Daily means of every sensor of an archive.

    Attributes:
        sensors: a row per sensor with the fields of :class:`Sensor` as columns.
        time: the days (UTC), regular, shape (time,).
        values: daily means in m³ m⁻³, float32, NaN where a day has too few good readings,
            shape (sensors, time).
        rejected: files that gave nothing, each with its reason.
    """

    sensors: pd.DataFrame
    time: Days
    values: NDArray[np.float32]
    rejected: list[Rejected] = field(default_factory=list)


def read_archive(
    path: str | Path,
    *,
    flags: Collection[str] = GOOD_FLAGS,
    min_fraction: float = MIN_FRACTION,
    stations: Collection[str] | None = None,
    start: date | None = None,
    stop: date | None = None,
    on_progress: Callable[[float, str], None] | None = None,
) -> StationRecords:
    """Read the soil moisture of an ISMN archive as daily means.

    A day's value is the mean of its good readings over the UTC day. It exists where there are at
    least ``min_fraction`` of the readings of a usual day of the same sensor: one day divided by
    the median interval between its readings of any flag (24 for an hourly sensor).

    Args:
        path: zip file or folder, header+values or CEOP in separate files; a path or a URL, of
            which a temporary copy is made.
        flags: ISMN quality flags of good readings. A reading with several flags (``"D05,D04"``)
            is good only if all of them are.
        min_fraction: see above, between 0 and 1.
        stations: names of the stations to read; all by default.
        start: first day to keep; the first of the archive by default.
        stop: day after the last one to keep.
        on_progress: called with the share done and the file's path.

    Returns:
        The records; files that can't be read or hold no good reading are in ``rejected``.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if it is neither a zip file nor a folder, or holds no soil moisture at all.
    """
    with places.local_copy(path) as local, closing(_open(local)) as root:
        names, rejected = _list_files(root, stations)
        series: list[tuple[Sensor, Days, NDArray[np.float32]]] = []
        for i, name in enumerate(names):
            result = _read_sensor(root, name, frozenset(flags), min_fraction)
            if isinstance(result, Rejected):
                rejected.append(result)
            else:
                series.append(result)
            if on_progress:
                on_progress((i + 1) / len(names), name)
    if not names:
        raise ValueError(
            f"{path} holds no soil-moisture file{' of the stations asked for' if stations else ''}:"
            " expected ISMN files named like NETWORK_NETWORK_STATION_sm_..._.stm"
        )
    return _assemble(series, rejected, start, stop)


def daily_means(
    time: NDArray[np.datetime64],
    values: NDArray[np.floating],
    good: NDArray[np.bool_],
    min_fraction: float = MIN_FRACTION,
) -> tuple[Days, NDArray[np.float32], int]:
    """Means of the good readings of each UTC day.

    Args:
        time: times of all readings (UTC), none twice, any order, shape (readings,), at least one.
        values: readings in m³ m⁻³.
        good: True where a reading may be used.
        min_fraction: share of the usual number of readings that makes a day.

    Returns:
        The days from the first to the last reading, the means (NaN for a day with too few) and
        the usual number of readings: one day divided by the median interval between readings.
    """
    day = time.astype("datetime64[D]").astype(np.int64)
    first = int(day.min())
    position = day - first
    n_days = int(position.max()) + 1
    usual = _usual_readings(time)
    count = np.bincount(position[good], minlength=n_days)
    total = np.bincount(position[good], weights=values[good], minlength=n_days)
    enough = count >= max(min_fraction * usual, 1)
    means = np.full(n_days, np.nan, dtype=np.float32)
    means[enough] = total[enough] / count[enough]
    days = (first + np.arange(n_days)).astype("datetime64[D]")
    return days, means, usual


def _usual_readings(time: NDArray[np.datetime64]) -> int:
    if time.size < 2:
        return 1
    seconds = np.sort(time).astype("datetime64[s]").astype(np.int64)
    return max(round(86400 / float(np.median(np.diff(seconds)))), 1)


def good_readings(flags: pd.Series, good: Collection[str]) -> NDArray[np.bool_]:
    """True where every flag of a reading ("D05,D04" has two) is one of ``good``."""
    text = flags.astype(str)
    accepted = {
        combined: all(flag.strip() in good for flag in combined.split(","))
        for combined in text.unique()
    }
    return text.map(accepted).to_numpy(dtype=bool)


def _open(path: Path) -> IsmnRoot:
    if not path.exists():
        raise FileNotFoundError(f"there is no station archive at {path}: expected a zip or folder")
    root = IsmnRoot(path)
    if root.zip is None and not path.is_dir():
        raise ValueError(f"{path} is not a station archive: expected a zip file or a folder")
    return root


def _list_files(
    root: IsmnRoot, stations: Collection[str] | None
) -> tuple[list[str], list[Rejected]]:
    """Soil-moisture files in order, and files that don't belong into an archive."""
    if root.zip:
        found = [name for name in root.zip.namelist() if not name.endswith("/")]
    else:
        files = (file for file in root.path.rglob("*") if file.is_file())
        found = [file.relative_to(root.path).as_posix() for file in files]
    names, rejected = [], []
    for name in sorted(found):
        try:
            path = PurePosixPath(places.inside("", name))
        except places.PlaceError:
            rejected.append(Rejected(name, "its name leads out of the archive"))
            continue
        if path.suffix.lower() == _DATA_SUFFIX:
            if _wanted(path.name, stations):
                names.append(name)
        elif path.suffix.lower() not in _SIDE_SUFFIXES and path.name.lower() not in _SIDE_FILES:
            rejected.append(Rejected(name, "not a file of an ISMN archive (.stm, .csv, .xml)"))
    return names, rejected


def _wanted(name: str, stations: Collection[str] | None) -> bool:
    """Whether a file holds soil moisture of a wanted station; an odd name is for the reader."""
    parts = name.split("_")
    if len(parts) < 4:
        return True
    return "sm" in parts[3:] and (stations is None or parts[2] in stations)


def _read_sensor(
    root: IsmnRoot, name: str, flags: frozenset[str], min_fraction: float
) -> tuple[Sensor, Days, NDArray[np.float32]] | Rejected:
    try:
        file = DataFile(root, name)
        table = file.read_data()
        values = pd.to_numeric(table["soil_moisture"]).to_numpy(dtype=np.float64)
    except Exception as error:  # the parser of a third party on a bad file can raise anything
        lines = str(error).strip().splitlines() or [""]
        return Rejected(name, f"can't be read: {type(error).__name__}: {lines[-1]}")
    table, values = _without_repeats(table, values)
    possible = (values >= VALID_MIN) & (values <= VALID_MAX)
    good = good_readings(table["soil_moisture_flag"], flags) & possible
    if not good.any():
        return Rejected(name, _nothing_good(table["soil_moisture_flag"], flags))
    days, means, usual = daily_means(table.index.to_numpy(), values, good, min_fraction)
    sensor = _describe(file, name, usual, len(values), int(good.sum()))
    if isinstance(sensor, Rejected):
        return sensor
    return sensor, days, means


def _without_repeats(
    table: pd.DataFrame, values: NDArray[np.float64]
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Readings without those that repeat a time or have none; the first of equal times stays."""
    keep = ~table.index.duplicated() & table.index.notna()
    return table[keep], values[keep]


def _nothing_good(found: pd.Series, flags: frozenset[str]) -> str:
    counts = ", ".join(f"{flag} {n}" for flag, n in found.value_counts().head(5).items())
    return f"no possible reading with a good flag ({', '.join(sorted(flags))}); found {counts}"


def _describe(
    file: DataFile, name: str, usual: int, n_readings: int, n_good: int
) -> Sensor | Rejected:
    meta = file.metadata
    longitude, latitude = float(meta["longitude"].val), float(meta["latitude"].val)
    row, column = grid.cell_index(longitude, latitude)
    if int(row) < 0:
        return Rejected(name, f"longitude {longitude}, latitude {latitude} lie in no cell")
    depth = meta["instrument"].depth
    return Sensor(
        network=PurePosixPath(name).name.split("_")[1],
        station=str(meta["station"].val),
        instrument=str(meta["instrument"].val),
        path=name,
        longitude=longitude,
        latitude=latitude,
        row=int(row),
        column=int(column),
        top=float(depth.start),
        bottom=float(depth.end),
        usual_readings=usual,
        n_readings=n_readings,
        n_good=n_good,
    )


def _assemble(
    series: list[tuple[Sensor, Days, NDArray[np.float32]]],
    rejected: list[Rejected],
    start: date | None,
    stop: date | None,
) -> StationRecords:
    """Lay all sensors on one time axis."""
    columns = list(Sensor.__dataclass_fields__)
    sensors = pd.DataFrame([asdict(sensor) for sensor, _, _ in series], columns=columns)
    bounds = [day for _, days, _ in series for day in (days[0], days[-1] + np.timedelta64(1, "D"))]
    if not bounds and (start is None or stop is None):
        empty = np.empty(0, dtype="datetime64[D]")
        return StationRecords(sensors, empty, np.empty((0, 0), np.float32), rejected)
    first = np.datetime64(start, "D") if start else min(bounds)
    last = np.datetime64(stop, "D") if stop else max(bounds)
    time = np.arange(first, last, dtype="datetime64[D]")
    values = np.full((len(series), time.size), np.nan, dtype=np.float32)
    for line, (_, days, means) in zip(values, series, strict=True):
        position = (days - first).astype(np.int64)
        inside = (position >= 0) & (position < time.size)
        line[position[inside]] = means[inside]
    return StationRecords(sensors, time, values, rejected)


def merge_records(records: Sequence[StationRecords]) -> StationRecords:
    """The records of several archives as one, on all their days.

    Raises:
        ValueError: if there are none.
    """
    if not records:
        raise ValueError("no station archive was read: expected the records of at least one")
    first = min(part.time[0] for part in records)
    last = max(part.time[-1] for part in records)
    time = np.arange(first, last + np.timedelta64(1, "D"), dtype="datetime64[D]")
    n_sensors = sum(len(part.sensors) for part in records)
    values = np.full((n_sensors, time.size), np.nan, np.float32)
    row = 0
    for part in records:
        day = int((part.time[0] - first) / np.timedelta64(1, "D"))
        values[row : row + len(part.values), day : day + part.time.size] = part.values
        row += len(part.values)
    sensors = pd.concat([part.sensors for part in records], ignore_index=True)
    return StationRecords(sensors, time, values, [r for part in records for r in part.rejected])
