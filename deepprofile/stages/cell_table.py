"""The table of the chosen cells: where each lies, what it is for, and how many samples it gives.

One Parquet file under the root, for people and for other programs. Nothing here reads it but the
summary of the stage; it is made from the cube of samples, and anew when that or the window changes.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from numpy.typing import NDArray

from deepprofile import places
from deepprofile.recipe import Recipe
from deepprofile.stages.cell_days import WORDS
from deepprofile.stages.cells import OTHER
from deepprofile.stages.context import Context
from deepprofile.stages.publication import inputs_of
from deepprofile.stages.remote import Report, run_on_worker
from deepprofile.store import open_cube

PLACES = ("row", "column")
COUNTS = ("samples", *WORDS)
"""Columns that count the days of the period; they sum to it in every cell."""
GROUP = 32
"""Cells whose series are in memory at a time."""
COPIES = 3
"""Copies of them: as read, turned, and turned targets."""
_INPUTS = b"inputs"
_COLUMNS: dict[str, tuple[pa.DataType, str, str]] = {
    "cell": (pa.int32(), "1", "position in the cube of samples"),
    "row": (pa.int32(), "1", "row of the global grid, from the north"),
    "column": (pa.int32(), "1", "column of the global grid, from 180 degrees west"),
    "latitude": (pa.float64(), "degrees_north", "latitude of the cell's middle"),
    "longitude": (pa.float64(), "degrees_east", "longitude of the cell's middle"),
    "class": (pa.string(), "", "core, extra or other"),
    "network": (pa.string(), "", "networks of the cell's stations; empty for other cells"),
    "split": (pa.string(), "", "train, candidate or validation"),
    "samples": (pa.int32(), "d", "days with a full window and a target"),
    **{name: (pa.int32(), "d", f"days {text}") for name, text in WORDS.items()},
}


def counting_bytes(values: int) -> int:
    """Peak memory of the counting beside that of its worker, for so many values a cell."""
    return GROUP * COPIES * values * 4


def prepare_cell_table(context: Context, stations: pd.DataFrame) -> pd.DataFrame:
    """Make the table, where it is not there for these samples and this window.

    Args:
        context: the running recipe.
        stations: columns ``row``, ``column``, ``network``; other cells need no line.

    Returns:
        The table.
    """
    recipe, url = context.recipe, context.paths.cells
    network = [tuple(line) for line in stations[[*PLACES, "network"]].to_numpy().tolist()]
    inputs = inputs_of(
        [context.paths.samples],
        recipe.digest("period"),
        f"window {recipe.training.window}, gaps of {recipe.sample.max_gap_days}",
        json.dumps(network),
    )
    if _made_from(url) != inputs:
        run_on_worker(
            context, "counting samples", _make, recipe, context.paths.samples, url, network, inputs
        )
    return read_cell_table(url)


def read_cell_table(url: str) -> pd.DataFrame:
    """The table of the chosen cells, see docs/data-flow.md.

    Raises:
        FileNotFoundError: if there is none.
    """
    table: pd.DataFrame = pq.read_table(pa.BufferReader(places.read_bytes(url))).to_pandas()
    return table


def count_days(cube: xr.Dataset, recipe: Recipe) -> Iterator[NDArray[np.int64]]:
    """What becomes of the days of the period in each cell, some cells after the other.

    Args:
        cube: of samples, opened with ``chunks=None``.
        recipe: gives the period, the window and the longest gap that is filled.

    Yields:
        (cells of a group, counts) in the order of the cube and of COUNTS.
    """
    # torch takes 120 MB: processes that neither count nor train nor predict hold none
    from deepprofile.model.coverage import coverage
    from deepprofile.model.samples import Samples

    days, gap = recipe.period.days, recipe.sample.max_gap_days
    period = slice(days.start, min(days.stop, cube.sizes["time"]))
    names = ("series", "auxiliary", "target", "weight")
    for first in range(0, cube.sizes["cell"], GROUP):
        part = cube.isel(cell=slice(first, first + GROUP))
        series, auxiliary, target, weight = (part[name].values for name in names)
        samples = Samples.from_arrays(series, auxiliary, target, weight, gap)
        yield coverage(samples, recipe.training.window, period).days


def _make(
    report: Report,
    recipe: Recipe,
    samples: str,
    url: str,
    network: Sequence[tuple[int, int, str]],
    inputs: str,
) -> None:
    """Count and write; the file appears whole, with what it was made from."""
    cube = open_cube(samples, chunks=None)
    n_cells, found = cube.sizes["cell"], []
    for group in count_days(cube, recipe):
        found.append(group)
        done = sum(map(len, found))
        report(done / n_cells, f"{done:,} of {n_cells:,} cells")
    table = _described(cube, np.concatenate(found), network)
    with places.written(url) as path:
        pq.write_table(table.replace_schema_metadata({_INPUTS: inputs.encode()}), path)


def _described(
    cube: xr.Dataset, counts: NDArray[np.int64], network: Sequence[tuple[int, int, str]]
) -> pa.Table:
    names = {(row, column): name for row, column, name in network}
    kinds = cube["cell_class"].values
    columns: dict[str, Any] = {
        "cell": np.arange(cube.sizes["cell"]),
        **{name: cube[name].values for name in (*PLACES, "latitude", "longitude", "split")},
        "class": kinds,
        "network": [
            "" if kind == OTHER else names.get((int(row), int(column)), "")
            for row, column, kind in zip(
                cube["row"].values, cube["column"].values, kinds, strict=True
            )
        ],
        **{name: counts[:, number] for number, name in enumerate(COUNTS)},
    }
    fields = [
        pa.field(name, kind, False, {"units": units, "description": text})
        for name, (kind, units, text) in _COLUMNS.items()
    ]
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _made_from(url: str) -> str:
    """What the table was made from; empty where there is none that can be read."""
    try:
        schema = pq.read_schema(pa.BufferReader(places.read_bytes(url)))
    except (FileNotFoundError, pa.ArrowInvalid):
        return ""
    return str((schema.metadata or {}).get(_INPUTS, b""), "utf-8")
