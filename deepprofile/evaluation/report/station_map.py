"""The interactive map of cells: what the page needs to draw it, and each cell's series."""

import json
from base64 import b64encode
from collections.abc import Hashable, Sequence
from io import BytesIO

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.image import imsave
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.evaluation.assessment import DailySeries
from deepprofile.evaluation.figures.maps import Window
from deepprofile.evaluation.figures.station_maps import (
    LAND_COLOUR,
    land_image,
    value_scale,
    window_of,
)
from deepprofile.evaluation.figures.style import METRIC_LABELS, colours, label
from deepprofile.evaluation.figures.violins import depth_groups
from deepprofile.evaluation.reference.depths import compared_text
from deepprofile.evaluation.report.blocks import Section, Widget
from deepprofile.evaluation.report.embedding import Packed, pack_rows, pack_series
from deepprofile.evaluation.report.inputs import ReportInputs
from deepprofile.evaluation.report.judged import called, splits
from deepprofile.evaluation.report.spread_sections import map_group

MAX_CELLS = 6000
"""Cells that a browser draws without delay."""
METRICS = ("r", "anomaly_r", "ubrmse", "bias", "rmse", "spearman", "kge")
CELL = ["row", "column"]
SERIES = ["reference", *CELL, "group", "top", "bottom"]
_SHADES = 64


def station_map(inputs: ReportInputs) -> Section:
    """A map whose points open the series of their cells."""
    section = Section("cells", "Map of cells and their time series")
    if inputs.assessment is None or inputs.assessment.metrics.empty:
        return section
    rows = inputs.assessment.metrics
    rows = rows[rows["rmse"].notna()]
    cells = rows[CELL].drop_duplicates().sort_values(CELL, ignore_index=True)
    if cells.empty:
        return section
    if len(cells) > MAX_CELLS:
        section.notes.append(
            f"{len(cells)} cells are too many for an interactive map, which takes {MAX_CELLS}."
        )
        return section
    kept = inputs.assessment.series
    series = _series_table(rows, cells, kept)
    at = _positions(series, cells, kept)
    packed = pack_series(kept, at) if kept is not None else Packed(1, [], [])
    data = _payload(inputs, rows, cells, series, packed)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    safe = text.replace("<", "\\u003c")
    return Section(section.name, section.title, widget=Widget(_caption(rows, kept, packed), safe))


def _caption(rows: pd.DataFrame, kept: DailySeries | None, packed: Packed) -> str:
    text = (
        "Each point is a cell of 9 km; its colour is the chosen metric (the mean over the "
        "series of the cell at that depth). A click, or Enter, opens its series. Move the map by "
        "dragging, zoom with the wheel or the buttons; arrow keys go from cell to cell."
    )
    if splits(rows):
        text += " Cells of every split are shown; that of a cell stands behind its row and column."
    if kept is None:
        return f"{text} Series were not kept."
    if not packed.texts:
        return f"{text} Series are too many to be kept in this page."
    if packed.step > 1:
        text += f" Series are means over {packed.step} days"
        longer = packed.step > kept.step
        return text + (", since shorter spans would make this page too large." if longer else ".")
    return f"{text} Series are daily values."


def _series_table(
    rows: pd.DataFrame, cells: pd.DataFrame, kept: DailySeries | None
) -> pd.DataFrame:
    """A line per series, by cell and depth, with the number of its cell and whether it is kept."""
    table = rows[SERIES].drop_duplicates()
    if kept is not None and len(kept.table):
        places = kept.table[SERIES].assign(kept=np.arange(len(kept.table)))
        table = table.merge(places.drop_duplicates(SERIES), on=SERIES, how="left")
    else:
        table = table.assign(kept=np.nan)
    table = table.merge(cells.assign(cell=np.arange(len(cells))), on=CELL)
    order = ["cell", "reference", "top", "bottom", "group"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def _positions(
    series: pd.DataFrame, cells: pd.DataFrame, kept: DailySeries | None
) -> list[NDArray[np.int64]]:
    """Positions of the kept series of each cell, in the order of the table."""
    there = series[series["kept"].notna()] if kept is not None else series.iloc[:0]
    found = {cell: part["kept"].to_numpy(np.int64) for cell, part in there.groupby("cell")}
    return [found.get(cell, np.zeros(0, dtype=np.int64)) for cell in range(len(cells))]


def _payload(
    inputs: ReportInputs,
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    series: pd.DataFrame,
    packed: Packed,
) -> dict[str, object]:
    estimates = list(dict.fromkeys(str(name) for name in rows["estimate"]))
    if inputs.subject in estimates:
        estimates = sorted(estimates, key=lambda name: name != inputs.subject)
    kept = inputs.assessment.series if inputs.assessment is not None else None
    palette = colours(rows["estimate"], inputs.subject)
    references = list(dict.fromkeys(series["reference"]))
    groups = depth_groups(rows)
    metrics = [name for name in METRICS if name in rows and rows[name].notna().any()]
    at = [cells["row"].to_numpy(np.int64), cells["column"].to_numpy(np.int64)]
    window = window_of(*at)
    chosen = rows[rows["estimate"] == estimates[0]]
    return {
        "estimates": [{"label": label(name), "colour": palette[name]} for name in estimates],
        "kept": [estimates.index(name) if name in estimates else -1 for name in kept.estimates]
        if kept is not None
        else [],
        "references": [_capital(called(name)) for name in references],
        "groups": groups,
        "first": groups.index(map_group(chosen)),
        "metrics": [_metric(name) for name in metrics],
        "shades": {name: _shades(name) for name in ("cividis", "RdBu")},
        "cells": _cells(rows, cells),
        "series": _series(series, references, groups, packed),
        "values": pack_rows(_values(rows, series, estimates, metrics)),
        "packed": {"step": packed.step, "days": packed.days, "texts": packed.texts},
        "window": list(window),
        "latitudes": _latitudes(),
        "limits": [-grid.X_WEST, grid.Y_NORTH],
        "land": _land(inputs.land, window),
    }


def _metric(name: str) -> dict[str, object]:
    _, shades = value_scale(name, np.zeros(0))
    title = METRIC_LABELS.get(name, name)
    digits = 4 if "m³" in title else 3
    return {
        "label": title,
        "digits": digits,
        "shades": shades,
    }


def _shades(name: str) -> list[str]:
    places = np.linspace(0, 1, _SHADES)
    return [to_hex(colour) for colour in matplotlib.colormaps[name](places)]


def _cells(rows: pd.DataFrame, cells: pd.DataFrame) -> dict[str, object]:
    row, column = cells["row"].to_numpy(np.int64), cells["column"].to_numpy(np.int64)
    return {
        "row": row.tolist(),
        "column": column.tolist(),
        "x": grid.x_centers()[column].round(1).tolist(),
        "y": grid.y_centers()[row].round(1).tolist(),
        "longitude": grid.longitudes()[column].round(3).tolist(),
        "latitude": grid.latitudes()[row].round(3).tolist(),
        "text": _texts(rows, cells, ("network", "cell_class", "split")),
        "more": _texts(rows, cells, ("land_cover", "texture", "climate")),
    }


def _texts(rows: pd.DataFrame, cells: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """What the table says of each cell in some columns, joined."""
    there = [name for name in names if name in rows]
    known = cells.merge(rows.drop_duplicates(CELL)[[*CELL, *there]], on=CELL, how="left")
    lines = known[there].fillna("").itertuples(index=False, name=None)
    return [", ".join(dict.fromkeys(str(text) for text in line if text)) for line in lines]


def _series(
    series: pd.DataFrame, references: Sequence[Hashable], groups: Sequence[str], packed: Packed
) -> list[list[object]]:
    """Of each series: cell, reference, group, what is compared, and whether it is in the page."""
    there = series["kept"].notna() & bool(packed.texts)
    return [
        [int(cell), references.index(reference), groups.index(group), compared_text(top, bottom),
         int(kept)]
        for cell, reference, group, top, bottom, kept in zip(
            series["cell"], series["reference"], series["group"], series["top"], series["bottom"],
            there, strict=True)
    ]  # fmt: skip


def _values(
    rows: pd.DataFrame, series: pd.DataFrame, estimates: list[str], metrics: list[str]
) -> NDArray[np.float64]:
    """Metrics and days (in units of 10,000), shape (metrics + 1, series x estimates)."""
    places = series[SERIES].assign(at=np.arange(len(series)))
    found = rows[[*SERIES, "estimate", "n", *metrics]].merge(places, on=SERIES)
    columns = found["estimate"].map({name: i for i, name in enumerate(estimates)})
    at = found["at"].to_numpy(np.int64) * len(estimates) + columns.to_numpy(np.int64)
    values = np.full((len(metrics) + 1, len(series) * len(estimates)), np.nan)
    for i, name in enumerate(metrics):
        values[i, at] = found[name]
    values[-1, at] = found["n"] / 1e4
    return values


def _latitudes() -> list[float]:
    """y in metres of each whole degree of latitude from -84 to 84."""
    north_up = slice(None, None, -1)
    degrees = np.arange(-84, 85)
    y = np.interp(degrees, grid.latitudes()[north_up], grid.y_centers()[north_up])
    return [float(value) for value in y.round()]


def _land(land: xr.DataArray | None, window: Window) -> dict[str, object] | None:
    if land is None:
        return None
    west, east, south, north = window
    wide, high = (east - west) / 4, (north - south) / 4
    image, edges = land_image(land, (west - wide, east + wide, south - high, north + high))
    colour = np.array([int(LAND_COLOUR[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    pixels = np.zeros((*image.shape, 4), dtype=np.uint8)
    pixels[image] = (*colour, 255)
    buffer = BytesIO()
    imsave(buffer, pixels, format="png")
    return {
        "image": f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}",
        "edges": list(edges),
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
