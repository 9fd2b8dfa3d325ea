"""Tables of estimates, brought once to stores of which jobs read single cells."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
import zarr
from distributed import Client
from numpy.typing import NDArray
from rich.console import Console

from deepprofile import places
from deepprofile.assessments.definition import Table
from deepprofile.evaluation.estimates.base import cell_keys, positions
from deepprofile.evaluation.estimates.table import (
    TableEstimate,
    read_table_estimate,
    table_estimate,
)
from deepprofile.products.files import tags_text
from deepprofile.progress import meter
from deepprofile.stages.context import StageError
from deepprofile.stages.publication import fingerprint_of
from deepprofile.stages.stations import open_ground_truth
from deepprofile.store import run_jobs

FORM = "1"
"""What a store holds; where another one lies, the table is read anew."""
CELLS_PER_CHUNK = 16
DAYS_PER_CHUNK = 4096
Cells = NDArray[np.int64]


@dataclass(frozen=True)
class TableJob:
    """A table to be read.

    Attributes:
        table: what the definition says of it.
        store: URL of the store.
        ground_truth: URL of the ground truth, whose cells are kept.
        digest: fingerprint of the table and of the ground truth.
    """

    table: Table
    store: str
    ground_truth: str
    digest: str

    @property
    def key(self) -> str:
        """Name in messages."""
        return f"estimate {self.table.name}"


def table_store(root: str, name: str) -> str:
    """URL of the store of a table."""
    return f"{root.rstrip('/')}/estimates/{name}.zarr"


def store_tables(
    tables: Sequence[Table], root: str, ground_truth: str, client: Client, console: Console
) -> list[str]:
    """Bring tables to their stores, where they are not there already; a job reads each.

    Args:
        tables: the tables.
        root: of the assessment.
        ground_truth: URL of the ground truth, whose cells are kept.
        client: client of the cluster.
        console: shows the progress.

    Returns:
        What was left out of each table, see `read_table_estimate`.

    Raises:
        FileNotFoundError: if a table is not there.
        StageError: if a table can't be used; the message says why.
    """
    known = str(_attributes(ground_truth)["inputs"])
    jobs = []
    for table in tables:
        if not places.exists(table.url):
            raise FileNotFoundError(f"estimate {table.name}: there is no table at {table.url}")
        digest = fingerprint_of([FORM, table.url, tags_text(table.url), known])
        jobs.append(TableJob(table, table_store(root, table.name), ground_truth, digest))
    outstanding = [job for job in jobs if _attributes(job.store).get("inputs") != job.digest]
    with meter(console, "reading tables", len(outstanding)) as progress:
        _, failed = run_jobs(
            client, store_table, outstanding, on_done=lambda done, _: progress.update(done)
        )
    if failed:
        wrong = "\n".join(sorted(f"{one.job.key}: {one.error}" for one in failed))
        raise StageError(f"{len(failed)} of {len(tables)} tables can't be used:\n{wrong}")
    return [
        note for job in jobs for note in json.loads(str(_attributes(job.store).get("notes", "[]")))
    ]


def store_table(job: TableJob) -> None:
    """Read a table and keep it in its store; the digest comes last and vouches for the rest."""
    truth = open_ground_truth(job.ground_truth)
    keys = np.unique(cell_keys(truth["row"].to_numpy(), truth["column"].to_numpy()))
    made, notes = read_table_estimate(job.table.url, job.table.name, keys)
    bounds = np.array([*made.layers, *((depth, depth) for depth in made.depths)]).reshape(-1, 2)
    values = np.concatenate([made.soil_moisture, made.at_depths], axis=-1)
    dataset = xr.Dataset(
        {"soil_moisture": (("cell", "time", "layer"), values, {"units": "m3 m-3"})},
        coords={
            "row": ("cell", made.row),
            "column": ("cell", made.column),
            "time": np.asarray(made.time, dtype="datetime64[ns]"),
            "top": ("layer", bounds[:, 0], {"units": "m"}),
            "bottom": ("layer", bounds[:, 1], {"units": "m"}),
        },
        attrs={"notes": json.dumps(notes)},
    )
    sizes = (CELLS_PER_CHUNK, DAYS_PER_CHUNK, max(len(bounds), 1))
    chunks = [min(most, max(size, 1)) for most, size in zip(sizes, values.shape, strict=True)]
    with places.written_folder(job.store, anew=True) as folder:
        dataset.to_zarr(
            folder,
            mode="w",
            consolidated=False,
            zarr_format=3,
            encoding={"soil_moisture": {"chunks": chunks}},
        )
    zarr.open_group(places.zarr_store(job.store), mode="r+").attrs["inputs"] = job.digest


def open_table(name: str, store: str, keys: Cells) -> TableEstimate:
    """The estimate of a table in those of some cells that it has.

    Args:
        name: of the estimate.
        store: URL of its store.
        keys: the cells, see `base.cell_keys`.
    """
    dataset = _opened(store)
    at = positions(keys, cell_keys(dataset["row"].to_numpy(), dataset["column"].to_numpy()))
    dataset = dataset.isel(cell=at[at >= 0])
    names = ("row", "column", "time", "soil_moisture")
    row, column, time, values = (dataset[name].to_numpy() for name in names)
    bounds = np.stack([dataset["top"].to_numpy(), dataset["bottom"].to_numpy()], axis=1)
    return table_estimate(name, row, column, time, bounds, values)


def table_axes(store: str) -> tuple[Cells, NDArray[np.datetime64]]:
    """Cells, see `base.cell_keys`, and days that a table has; its values are not read."""
    dataset = _opened(store)
    keys = cell_keys(dataset["row"].to_numpy(), dataset["column"].to_numpy())
    return keys, dataset["time"].to_numpy().astype("datetime64[D]")


def has_layers(store: str) -> bool:
    """Whether a table has layers, and not only values at depths."""
    dataset = _opened(store)
    return bool((dataset["top"] < dataset["bottom"]).any())


def _opened(store: str) -> xr.Dataset:
    found: xr.Dataset = xr.open_zarr(
        places.zarr_store(store), chunks=None, consolidated=False, zarr_format=3
    )
    return found


def _attributes(store: str) -> dict[str, object]:
    if not places.exists(f"{store}/zarr.json"):
        return {}
    return dict(zarr.open_group(places.zarr_store(store), mode="r", zarr_format=3).attrs)
