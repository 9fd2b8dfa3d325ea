"""Land cover, climate and soil texture of stations, from the archive's own static variables."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from ismn.const import CSV_COLS, KOEPPENGEIGER, LANDCOVER

from deepprofile.evaluation.stations.texture import usda_texture

LABELS = ("land_cover", "climate", "texture")
MIXED = "mixed"
"""Class of a cell in which no class has more stations than every other."""
_LAND_COVER_MAPS = ("CCI_landcover_2010", "CCI_landcover_2005", "CCI_landcover_2000")
_LAND_COVER_NAMES = {code: name for name, code in LANDCOVER.items()}
_CLIMATE_MAP = "koeppen_geiger_2007"
_FRACTIONS = ("clay fraction", "sand fraction", "silt fraction")
_QUANTITIES = (*_FRACTIONS, "land cover classification", "climate classification")
_SUM_TOLERANCE = 5.0
"""Percent by which the three fractions may miss 100."""


@dataclass(frozen=True)
class StationClasses:
    """Static classes of a station; an empty text where unknown.

    Attributes:
        land_cover: name of the class of ESA CCI Land Cover, first level of its legend.
        climate: code of the Köppen-Geiger class, such as ``"Dfb"``.
        texture: texture class of the topsoil in the USDA triangle.
    """

    land_cover: str = ""
    climate: str = ""
    texture: str = ""


def read_classes(path: Path) -> StationClasses:
    """Classes of a station from the file of its static variables.

    It is read here, since the ``ismn`` package takes as long for it as for the readings of a
    sensor, and gives nothing at all where land cover is missing.

    Raises:
        ValueError: if the file holds none of the variables.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = csv.DictReader(file, CSV_COLS, delimiter=";", quoting=csv.QUOTE_NONE)
        rows = [row for row in lines if row["quantity_name"] in _QUANTITIES and row["value"]]
    if not rows:
        raise ValueError(f"no line begins with one of {', '.join(_QUANTITIES)}")
    by_source = {row["quantity_source_name"]: row["value"] for row in rows}
    climate = by_source.get(_CLIMATE_MAP, "")
    known = climate if climate in KOEPPENGEIGER else ""
    return StationClasses(_land_cover(by_source), known, _texture(rows))


def cell_labels(sensors: pd.DataFrame) -> pd.DataFrame:
    """Classes of cells: that of most of its stations, ``MIXED`` where none has most.

    Args:
        sensors: a row per sensor with row, column, network, station and, where known,
            land_cover, climate and texture; an empty text is unknown and does not count.

    Returns:
        Row and column of each cell, and the three classes; an empty text where unknown.
    """
    known = sensors.assign(**{name: "" for name in LABELS if name not in sensors})
    if known.empty:
        return pd.DataFrame(known[["row", "column", *LABELS]])
    by_station = known.groupby(["row", "column", "network", "station"], as_index=False)
    stations = by_station[list(LABELS)].agg(_first_known)
    cells = stations.groupby(["row", "column"], as_index=False)
    return pd.DataFrame(cells[list(LABELS)].agg(_majority))


def _first_known(names: pd.Series) -> str:
    return next((str(name) for name in names if name), "")


def _majority(names: pd.Series) -> str:
    first, *others = Counter(str(name) for name in names if name).most_common(2) or [("", 1)]
    return MIXED if others and others[0][1] == first[1] else first[0]


def _land_cover(by_source: Mapping[str, str]) -> str:
    """Of the latest map that has the station.

    The second digit of a code is a regional detail, which the map gives only in places.
    """
    codes = [_number(by_source.get(name, "")) for name in _LAND_COVER_MAPS]
    names = [_LAND_COVER_NAMES.get(code // 10 * 10) for code in codes]
    return next((str(name) for name in names if name), "")


def _texture(rows: Sequence[Mapping[str, str]]) -> str:
    """Of the shallowest layer that has fractions."""
    shares = [_shallowest(rows, name) for name in _FRACTIONS]
    total = sum(shares)
    if not abs(total - 100.0) <= _SUM_TOLERANCE:
        return ""
    clay, sand, _ = (100.0 * share / total for share in shares)
    return str(usda_texture(clay, sand))


def _shallowest(rows: Sequence[Mapping[str, str]], quantity: str) -> float:
    found = [row for row in rows if row["quantity_name"] == quantity]
    found.sort(key=lambda row: _number(row["depth_from[m]"]))
    return _number(found[0]["value"]) if found else np.nan


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
