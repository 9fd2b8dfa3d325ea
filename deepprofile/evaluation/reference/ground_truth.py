"""Ground truth from stations: daily series per 9 km cell and depth, and the class of each cell."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.reference import depths
from deepprofile.evaluation.reference.series import CELL, Counts, Values, build_reference
from deepprofile.evaluation.stations import LABELS, StationRecords, cell_labels

MIN_DAYS = 180
"""Valid days that a depth, a station or a cell must have to count."""
MIN_DEPTH = 0.10
"""Depth in metres that a cell must have a sensor below."""
CORE_STATIONS = 3
"""Working stations from which a cell is a core cell."""
FIXED_SHARE = 0.5
"""Share of the best member's days that a fixed set keeps when a member joins."""
FIRST_DEPTH, LAST_DEPTH = 0.10, 0.50
"""A column needs its first sensor at or above the one and its last at or below the other."""
UNQUALIFIED = "unqualified"
_STATION = [*CELL, "network", "station"]
RULES = {
    "comparison": (
        "A reading at a depth is compared with the estimate at that depth, a reading of a layer "
        "with the mean of that layer; readings within 0 to 0.05 m with the mean of 0 to 0.05 m; "
        "readings at 1 m also with the mean of 0.9 to 1 m. The coordinate compared says which."
    ),
    "column": (
        "Mean of 0 to 1 m by midpoints (Zhu et al. 2026, Eq. A1) over a fixed set of sensors for "
        f"each station, the first at {FIRST_DEPTH:g} m or above, the last at {LAST_DEPTH:g} m or "
        "below, none below 1 m; then over a fixed set of stations."
    ),
    "observed_share": (
        "Share of 0 to 1 m that lies between the first and the last sensor of the fixed set, mean "
        "over the stations."
    ),
    "averaging": (
        "Sensors of a station at one nominal depth, then depths of a station within 0 to 0.05 m, "
        "then stations of a 9 km cell; each mean over those that have a value on the day."
    ),
}
"""How series are made and compared, in the attributes of the reference."""


def ground_truth(
    records: StationRecords,
    *,
    min_days: int = MIN_DAYS,
    min_depth: float = MIN_DEPTH,
    core_stations: int = CORE_STATIONS,
) -> xr.Dataset:
    """Daily ground truth of every cell that holds a station.

    Sensors of one station at one depth are averaged (a replaced sensor continues the series),
    then the depths of a station inside 0-5 cm, then the stations of a cell at one depth. The
    number of stations may change from day to day and is kept. The 0-100 cm column is a mean over
    a fixed set of sensors instead, because one that drops out would make it jump.

    A *valid day* has a daily value. A cell qualifies where one of its depths below
    ``min_depth`` has ``min_days`` valid days. A *working* station has ``min_days`` days on which
    any of its sensors between 0 and 1 m gives a value. A qualifying cell is ``"core"`` with
    ``core_stations`` working stations or more, ``"extra"`` with fewer; every other cell is
    ``"unqualified"``.

    Args:
        records: daily means per sensor.
        min_days: valid days asked for.
        min_depth: depth in metres, see above; a negative one lets every depth qualify a cell.
        core_stations: working stations of a core cell.

    Returns:
        A reference, see :mod:`deepprofile.evaluation.reference.series`; ``n_working`` is the cell's
        number of working stations, ``network`` names those of all its stations, ``land_cover``,
        ``climate`` and ``texture`` are those of most of them. The attributes say by which rules
        series are made and compared. Series without any valid day are left out.
    """
    placed = _placed(records.sensors)
    known = np.isfinite(records.values[placed.index.to_numpy()]).any(axis=1)
    sensors = placed.assign(n_sensors=known.astype(np.int64))
    at_depth = _average(sensors, records.values, [*_STATION, "top", "bottom"])
    grouped = _group_stations(at_depth)
    cells = _average(grouped.table, grouped.values, [*CELL, "group", "top", "bottom"])
    parts = (cells, _deep(cells), _columns(at_depth, min_days))
    classes = _classify_cells(at_depth, min_days, min_depth, core_stations)
    labels = cell_labels(pd.DataFrame(placed[known]))
    table = pd.concat([part.table for part in parts], ignore_index=True)
    table = table.merge(classes, on=CELL, how="left").merge(labels, on=CELL, how="left")
    table[list(LABELS)] = table[list(LABELS)].fillna("")
    reference = build_reference(
        records.time,
        table,
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )
    settings = {"min_days": min_days, "min_depth": min_depth, "core_stations": core_stations}
    return reference.assign_attrs(**RULES, **settings)


def not_grouped(records: StationRecords) -> pd.DataFrame:
    """Sensors that no depth group holds, with the columns of ``records.sensors``.

    Their readings still count for the 0-100 cm column and for the class of the cell, unless they
    lie below 1 m.
    """
    placed = _placed(records.sensors)
    return records.sensors.drop(index=placed.index[_groups(placed).notna()])


def fixed_set(valid: NDArray[np.bool_], share: float = FIXED_SHARE) -> NDArray[np.bool_]:
    """Members whose common days make a series of unchanging composition.

    Members are tried from the one with most valid days on; one joins if the days common to all
    stay at least ``share`` of the first member's.

    Args:
        valid: True where a member has a value, shape (members, time).
        share: between 0 (everyone joins) and 1.

    Returns:
        True for the members of the set, shape (members,).
    """
    chosen = np.zeros(valid.shape[0], dtype=bool)
    if not valid.any():
        return chosen
    order = np.argsort(-valid.sum(axis=1), kind="stable")
    common = valid[order[0]]
    least = share * common.sum()
    for member in order:
        shared = common & valid[member]
        if shared.any() and shared.sum() >= least:
            chosen[member], common = True, shared
    return chosen


class _Series(NamedTuple):
    """Series with a table that describes them line by line.

    Attributes:
        table: a row per series, indexed 0, 1, ...
        values: daily values, shape (series, time).
        counts: number of values behind each, same shape.
    """

    table: pd.DataFrame
    values: Values
    counts: Counts


def _placed(sensors: pd.DataFrame) -> pd.DataFrame:
    """Sensors with nominal depths, those that reach below the column left out."""
    placed = sensors.assign(
        top=sensors["top"].map(depths.nominal_depth),
        bottom=sensors["bottom"].map(depths.nominal_depth),
    )
    return placed[placed["bottom"] <= depths.COLUMN_BOTTOM]


def _groups(table: pd.DataFrame) -> pd.Series:
    groups = [
        depths.depth_group(top, bottom)
        for top, bottom in zip(table["top"], table["bottom"], strict=True)
    ]
    return pd.Series(groups, index=table.index, dtype=object)


def _average(table: pd.DataFrame, values: Values, keys: Sequence[str]) -> _Series:
    """Daily means of the series that agree in ``keys``, sorted by them.

    The index of ``table`` points into ``values``; its ``n_sensors`` add up. Means without any
    value are left out.
    """
    code = table.groupby(list(keys), sort=True).ngroup().to_numpy()
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    rows = values[table.index.to_numpy()[order]]
    valid = np.isfinite(rows)
    rows[~valid] = 0.0
    total = np.add.reduceat(rows, starts, axis=0, dtype=np.float64)
    count = np.add.reduceat(valid, starts, axis=0, dtype=np.uint16)
    means = np.full(total.shape, np.nan, dtype=np.float32)
    np.divide(total, count, out=means, where=count > 0, casting="same_kind")
    known = np.flatnonzero((count > 0).any(axis=1))
    merged = pd.DataFrame(table.groupby(list(keys), as_index=False)["n_sensors"].sum())
    return _Series(merged.iloc[known].reset_index(drop=True), means[known], count[known])


def _group_stations(at_depth: _Series) -> _Series:
    """Series per station and compared bounds: depths inside 0-5 cm become one."""
    table = at_depth.table.assign(group=_groups(at_depth.table))
    table = table[table["group"].notna()]
    triples = zip(table["group"], table["top"], table["bottom"], strict=True)
    bounds = np.array([depths.compared_bounds(*triple) for triple in triples]).reshape(-1, 2)
    table = table.assign(top=bounds[:, 0], bottom=bounds[:, 1])
    return _average(table, at_depth.values, [*_STATION, "group", "top", "bottom"])


def _deep(cells: _Series) -> _Series:
    """Series at 100 cm once more, to be compared with the mean of the deepest layer."""
    deepest = (cells.table["top"] == depths.COLUMN_BOTTOM).to_numpy()
    top, bottom = depths.DEEP_LAYER
    copies = pd.DataFrame(cells.table[deepest])
    copies = copies.assign(group=depths.DEEP_GROUP, top=top, bottom=bottom)
    return _Series(copies, cells.values[deepest], cells.counts[deepest])


def _columns(at_depth: _Series, min_days: int) -> _Series:
    """0-100 cm means of each cell over a fixed set of stations and sensors."""
    points = at_depth.table[at_depth.table["top"] == at_depth.table["bottom"]]
    n_time = at_depth.values.shape[1]
    found: list[tuple[object, ...]] = []
    means: list[Values] = []
    counts: list[Counts] = []
    for cell, sensors in points.groupby(CELL):
        columns = _station_columns(sensors, at_depth.values)
        stations = np.array([column.values for column in columns]).reshape(len(columns), n_time)
        chosen = np.flatnonzero(fixed_set(np.isfinite(stations)))
        known = np.isfinite(stations[chosen]).all(axis=0)
        if len(chosen) and known.sum() >= min_days:
            shares = [columns[i].observed_share for i in chosen]
            found.append((*cell, sum(columns[i].n_sensors for i in chosen), np.mean(shares)))
            means.append(stations[chosen].mean(axis=0))
            counts.append(np.where(known, len(chosen), 0).astype(np.uint16))
    table = pd.DataFrame(found, columns=[*CELL, "n_sensors", "observed_share"])
    table = table.assign(group=depths.COLUMN_GROUP, top=0.0, bottom=depths.COLUMN_BOTTOM)
    shape = (len(found), n_time)
    return _Series(
        table,
        np.array(means, dtype=np.float32).reshape(shape),
        np.array(counts, dtype=np.uint16).reshape(shape),
    )


class _Column(NamedTuple):
    """0-100 cm mean of one station.

    Attributes:
        values: shape (time,).
        n_sensors: sensors of the fixed set.
        observed_share: see `depths.observed_share`.
    """

    values: Values
    n_sensors: int
    observed_share: float


def _station_columns(sensors: pd.DataFrame, values: Values) -> list[_Column]:
    """Columns of the stations of a cell whose depths allow one."""
    found = [_station_column(s, values) for _, s in sensors.groupby(["network", "station"])]
    return [column for column in found if column is not None]


def _station_column(sensors: pd.DataFrame, values: Values) -> _Column | None:
    """0-100 cm mean of one station by the midpoint rule, None where its depths don't allow one."""
    sensors = sensors.sort_values("top")
    series = values[sensors.index.to_numpy()]
    chosen = fixed_set(np.isfinite(series))
    z = sensors["top"].to_numpy()[chosen]
    if z[0] > FIRST_DEPTH or z[-1] < LAST_DEPTH:
        return None
    mean = np.asarray(depths.column_weights(z).astype(np.float32) @ series[chosen])
    n_sensors = int(sensors["n_sensors"].to_numpy()[chosen].sum())
    return _Column(mean, n_sensors, depths.observed_share(z))


def _classify_cells(
    at_depth: _Series, min_days: int, min_depth: float, core_stations: int
) -> pd.DataFrame:
    """Class, number of working stations and networks of each cell."""
    stations = _average(at_depth.table, at_depth.values, _STATION)
    working = stations.table.assign(n_working=_valid_days(stations) >= min_days)
    cells = working.groupby(CELL, as_index=False).agg(
        n_working=("n_working", "sum"), network=("network", _joined)
    )
    deep = at_depth.table[at_depth.table["bottom"] > min_depth]
    cell_depths = _average(deep, at_depth.values, [*CELL, "top", "bottom"])
    days = cell_depths.table.assign(days=_valid_days(cell_depths))
    cells = cells.merge(days.groupby(CELL, as_index=False)["days"].max(), on=CELL, how="left")
    qualifies = (cells["days"] >= min_days) & (cells["n_working"] > 0)
    classes = np.where(cells["n_working"] >= core_stations, "core", "extra")
    classes = np.where(qualifies, classes, UNQUALIFIED)
    return pd.DataFrame(cells[[*CELL, "n_working", "network"]]).assign(cell_class=classes)


def _joined(names: pd.Series) -> str:
    return ", ".join(sorted(set(names)))


def _valid_days(series: _Series) -> NDArray[np.int64]:
    return np.asarray(np.isfinite(series.values).sum(axis=1))
