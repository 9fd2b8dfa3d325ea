"""Records of several sources as one, in which no sensor counts twice.

Two series are of the same sensor where network, station, nominal depths and instrument agree; a
series without an instrument's name agrees with every instrument in another source. The one with
more good readings stays as it is, with equal numbers the first. Of the other only days before and
after that one's stay, so that an archive of later years goes on where an earlier one ends.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepprofile.evaluation.reference.depths import nominal_depth
from deepprofile.evaluation.stations.records import Rejected, StationRecords, all_days

_STATION = ["network", "station"]


def merge_records(records: Sequence[StationRecords]) -> StationRecords:
    """The records of several archives and tables as one, on all their days.

    No sensor counts twice, see above. The result is the same
    however the sensors are shared out among the records, as long as their order is.

    Raises:
        ValueError: if there are none.
    """
    if not records:
        raise ValueError("no station archive was read: expected the records of at least one")
    time = all_days([part.time for part in records])
    filled = [part for part in records if len(part.sensors)] or [records[0]]
    values = np.full((sum(len(part.sensors) for part in filled), time.size), np.nan, np.float32)
    row = 0
    for part in filled:
        day = int((part.time[0] - time[0]).astype(np.int64)) if part.time.size else 0
        values[row : row + len(part.values), day : day + part.time.size] = part.values
        row += len(part.values)
    sensors = pd.concat([part.sensors for part in filled], ignore_index=True)
    rejected = list(dict.fromkeys(item for part in records for item in part.rejected))
    notes = list(dict.fromkeys(note for part in records for note in part.notes))
    return _settle_repeats(StationRecords(sensors, time, values, rejected, notes))


def _settle_repeats(records: StationRecords) -> StationRecords:
    """Records in which no sensor counts twice on a day; what is left out is named.

    Args:
        records: of any sources; its values are changed.
    """
    sensors, values = records.sensors, records.values
    gone = np.zeros(len(sensors), dtype=bool)
    rejected, notes = list(records.rejected), list(records.notes)
    for worse, better in _repeats(sensors):
        removed = _trim(values[worse], values[better])
        if not removed:
            continue
        line = sensors.iloc[worse]
        reason = _reason(line, sensors.iloc[better])
        left = int(np.isfinite(values[worse]).sum())
        if left:
            notes.append(f"{line['path']}: {reason}; {left} days outside that one's are used")
        elif not gone[worse]:
            gone[worse] = True
            rejected.append(Rejected(str(line["path"]), reason, str(line["source"])))
    notes += _moved(sensors)
    kept = pd.DataFrame(sensors[~gone]).reset_index(drop=True)
    return StationRecords(kept, records.time, values[~gone], rejected, notes)


def _repeats(sensors: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """Positions of series of the same sensor, the one with fewer good readings first."""
    if sensors.empty:
        return
    depths = [sensors[end].map(nominal_depth) for end in ("top", "bottom")]
    keys = [sensors[name] for name in _STATION]
    for positions in sensors.groupby([*keys, *depths], sort=False).indices.values():
        if len(positions) < 2:
            continue
        part = sensors.iloc[positions]
        ranks = np.argsort(-part["n_good"].to_numpy(), kind="stable")
        for i, worse in enumerate(ranks):
            for better in ranks[:i]:
                if _agree(part.iloc[worse], part.iloc[better]):
                    yield int(positions[worse]), int(positions[better])


def _agree(one: pd.Series, other: pd.Series) -> bool:
    if one["instrument"] == other["instrument"]:
        return True
    nameless = not one["instrument"] or not other["instrument"]
    return nameless and bool(one["source"] != other["source"])


def _trim(worse: NDArray[np.float32], better: NDArray[np.float32]) -> int:
    """Remove the days from the first to the last of the better series; returns their number."""
    known = np.flatnonzero(np.isfinite(better))
    if not known.size:
        return 0
    span = worse[known[0] : known[-1] + 1]
    removed = int(np.isfinite(span).sum())
    span[:] = np.nan
    return removed


def _reason(line: pd.Series, better: pd.Series) -> str:
    number, most = int(line["n_good"]), int(better["n_good"])
    more = f"more good readings ({most} against {number})"
    how = more if most > number else "as many good readings and comes first"
    return f"the same sensor as {better['path']} of {better['source']}, which has {how}"


def _moved(sensors: pd.DataFrame) -> list[str]:
    """Stations whose sensors lie in several cells."""
    cells = sensors[[*_STATION, "row", "column"]].drop_duplicates()
    counts = cells.groupby(_STATION, as_index=False).size()
    moved = counts[counts["size"] > 1]
    return [
        f"station {network} {station}: its sensors lie in {count} different 9 km cells; each "
        "counts in its own"
        for network, station, count in moved.itertuples(index=False)
    ]
