"""Archives of the International Soil Moisture Network.

The format (header+values or CEOP in separate files, in a zip file or a folder) is read by the
``ismn`` package, one file after the other through its ``DataFile``: nothing is written beside the
archive, no sensor is lost to a depth limit, and a bad file is known with its reason. A large
archive is read in parts: `list_sensors` names the files, `read_sensors` reads some of them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from ismn.filehandlers import DataFile

from deepprofile import places
from deepprofile.evaluation.stations.classes import StationClasses, read_classes
from deepprofile.evaluation.stations.daily import GOOD_FLAGS, MIN_FRACTION, to_daily
from deepprofile.evaluation.stations.members import DAMAGED, Members, opened
from deepprofile.evaluation.stations.records import (
    NoCellError,
    Rejected,
    Sensor,
    SensorSeries,
    StationRecords,
    collect,
    place_of,
)

_DATA_SUFFIX = ".stm"
_SIDE_SUFFIXES = {".csv", ".xml", ".log"}
_SIDE_FILES = {"readme.txt", "ismn_qualityflags_description.txt"}
_STATIC = "static_variables.csv"


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
    """Read the soil moisture of an ISMN archive as daily means, one file after the other.

    Args:
        path: see `list_sensors`.
        flags: see `read_sensors`.
        min_fraction: see `read_sensors`.
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
    names, strange = list_sensors(path, stations)
    records = read_sensors(
        path,
        names,
        flags=flags,
        min_fraction=min_fraction,
        start=start,
        stop=stop,
        on_progress=on_progress,
    )
    records.rejected[:0] = strange
    return records


def list_sensors(
    path: str | Path, stations: Collection[str] | None = None
) -> tuple[list[str], list[Rejected]]:
    """Names of the files of an archive that hold soil moisture, sorted.

    Args:
        path: zip file or folder, header+values or CEOP in separate files; a path or a URL.
        stations: names of the stations to list; all by default.

    Returns:
        The names, and the files that don't belong into an archive.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if it is neither a zip file nor a folder, or holds no soil moisture at all.
    """
    names, rejected = [], []
    with opened(path) as archive:
        found = archive.names()
    for name in found:
        reason = _strange(name)
        if reason:
            rejected.append(Rejected(name, reason, str(path)))
        elif name.lower().endswith(_DATA_SUFFIX) and _wanted(PurePosixPath(name).name, stations):
            names.append(name)
    if not names:
        raise ValueError(
            f"{path} holds no soil-moisture file{' of the stations asked for' if stations else ''}:"
            " expected ISMN files named like NETWORK_NETWORK_STATION_sm_..._.stm"
        )
    return names, rejected


def read_sensors(
    path: str | Path,
    names: Sequence[str],
    *,
    flags: Collection[str] = GOOD_FLAGS,
    min_fraction: float = MIN_FRACTION,
    start: date | None = None,
    stop: date | None = None,
    on_progress: Callable[[float, str], None] | None = None,
) -> StationRecords:
    """Read some sensor files of an ISMN archive as daily means.

    A day's value is the mean of its good readings over the UTC day. It exists where there are at
    least ``min_fraction`` of the readings of a usual day of the same sensor: one day divided by
    the median interval between its readings of any flag (24 for an hourly sensor).

    Args:
        path: see `list_sensors`. Of a remote archive the files named travel, and the directory.
        names: files, as `list_sensors` gives them.
        flags: ISMN quality flags of good readings. A reading with several flags (``"D05,D04"``)
            is good only if all of them are.
        min_fraction: see above, between 0 and 1.
        start: first day to keep; the first of these files by default.
        stop: day after the last one to keep.
        on_progress: called with the share done and the file's path.

    Returns:
        The records in the order of ``names``; files that can't be read or hold no good reading
        are in ``rejected``.

    Raises:
        FileNotFoundError: if there is nothing at ``path``, or no such file in it.
        ValueError: if it is neither a zip file nor a folder.
    """
    series: list[SensorSeries] = []
    rejected: list[Rejected] = []
    known: dict[str, StationClasses | str] = {}
    with opened(path) as archive:
        for i, name in enumerate(names):
            result = _read_sensor(archive, name, frozenset(flags), min_fraction)
            if isinstance(result, str):
                rejected.append(Rejected(name, result, str(path)))
            else:
                static = _static_name(name)
                if static not in known:
                    known[static] = _classes_in(archive, static)
                labels = known[static]
                own = {} if isinstance(labels, str) else asdict(labels)
                sensor = replace(result.sensor, source=str(path), **own)
                series.append(SensorSeries(sensor, result.daily))
            if on_progress:
                on_progress((i + 1) / len(names), name)
    wrong = {name: found for name, found in known.items() if found and isinstance(found, str)}
    notes = [f"{name}: {reason}" for name, reason in wrong.items()]
    return collect(series, rejected, notes, start, stop)


def _strange(name: str) -> str:
    """Why a file doesn't belong into an archive; empty where it does."""
    try:
        path = PurePosixPath(places.inside("", name))
    except places.PlaceError:
        return "its name leads out of the archive"
    known = path.suffix.lower() in {_DATA_SUFFIX, *_SIDE_SUFFIXES}
    if known or path.name.lower() in _SIDE_FILES:
        return ""
    return "not a file of an ISMN archive (.stm, .csv, .xml)"


def _wanted(name: str, stations: Collection[str] | None) -> bool:
    """Whether a file holds soil moisture of a wanted station; an odd name is for the reader."""
    parts = name.split("_")
    if len(parts) < 4:
        return True
    return "sm" in parts[3:] and (stations is None or parts[2] in stations)


def _read_sensor(
    archive: Members, name: str, flags: frozenset[str], min_fraction: float
) -> SensorSeries | str:
    try:
        root = archive.place(name)
    except DAMAGED as error:
        return _unreadable(error)
    try:
        file = DataFile(root, name)
        table = file.read_data()
        values = pd.to_numeric(table["soil_moisture"]).to_numpy(dtype=np.float64)
        time = table.index.to_numpy()
        daily = to_daily(time, values, table["soil_moisture_flag"], flags, min_fraction)
        return daily if isinstance(daily, str) else SensorSeries(_describe(file, name), daily)
    except NoCellError as error:
        return str(error)
    except Exception as error:  # the parser of a third party on a bad file can raise anything
        return _unreadable(error)
    finally:
        archive.release(name)


def _unreadable(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"can't be read: {type(error).__name__}: {lines[-1]}"


def _describe(file: DataFile, name: str) -> Sensor:
    meta = file.metadata
    place = place_of(float(meta["longitude"].val), float(meta["latitude"].val))
    depth = meta["instrument"].depth
    return Sensor(
        network=PurePosixPath(name).name.split("_")[1],
        station=str(meta["station"].val),
        instrument=str(meta["instrument"].val),
        path=name,
        **place._asdict(),
        top=float(depth.start),
        bottom=float(depth.end),
    )


def _static_name(name: str) -> str:
    """Path of the static variables of a sensor's station."""
    path = PurePosixPath(name)
    return str(path.with_name("_".join([*path.name.split("_")[:3], _STATIC])))


def _classes_in(archive: Members, name: str) -> StationClasses | str:
    """Classes of a station; an empty text without the file, the reason where it can't be read."""
    unknown = "the station's land cover, climate and soil texture are unknown"
    try:
        root = archive.place(name)
    except FileNotFoundError:
        return ""
    except DAMAGED as error:
        return f"{_unreadable(error)}; {unknown}"
    try:
        return read_classes(Path(root.path) / name)
    except ValueError as error:
        return f"{_unreadable(error)}; {unknown}"
    finally:
        archive.release(name)
