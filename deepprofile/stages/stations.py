"""Ground truth of stations, read by many jobs and kept as a Zarr store."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from distributed import Client
from rich.console import Console
from rich.markup import escape

from deepprofile import places
from deepprofile.evaluation.reference.class_maps import ClassMapError, map_classes
from deepprofile.evaluation.reference.ground_truth import ground_truth, not_grouped
from deepprofile.evaluation.reference.series import cell_table, label_cells
from deepprofile.evaluation.stations import (
    Rejected,
    StationRecords,
    list_sensors,
    list_tables,
    merge_records,
    read_sensors,
    read_table,
)
from deepprofile.events import say
from deepprofile.products.files import tags_text
from deepprofile.progress import meter
from deepprofile.recipe import GroundTruth, Stations
from deepprofile.stages.context import Context, StageError
from deepprofile.stages.publication import fingerprint_of
from deepprofile.store import run_jobs
from deepprofile.store.layout import day_at

STATION_COLUMNS = ["row", "column", "cell_class", "network"]
FORM = "3: with static classes and rules"
"""What the ground truth holds; where another one lies, the archives are read anew."""
SENSORS_PER_JOB = 16
"""Sensor files that one job reads: their daily means of ten years are a quarter of a megabyte."""
MAX_PRINTED = 10


@dataclass(frozen=True)
class ReadJob:
    """Some sensor files of an archive, or a table.

    Attributes:
        number: of the job.
        source: the archive or the file of a table; path or URL.
        sensors: names of the files inside the archive; empty for a table.
    """

    number: int
    source: str
    sensors: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name in messages."""
        what = f"{self.sensors[0]} and {len(self.sensors) - 1} more of " if self.sensors else ""
        return f"{self.number}: {what}{self.source}"


@dataclass(frozen=True)
class StationData:
    """Readings that become a ground truth, and how.

    Attributes:
        stations: archives and tables.
        ground_truth: what counts as good and as a core cell.
        start: first day; the first of all where None.
        stop: day after the last; the day after the last of all where None.
    """

    stations: Stations
    ground_truth: GroundTruth
    start: date | None = None
    stop: date | None = None


def prepare_ground_truth(context: Context) -> pd.DataFrame:
    """Read the station archives and tables, where this is not done for this recipe.

    Returns:
        One line a station cell: row, column, cell_class, network. Empty without stations.

    Raises:
        StageError: if an archive is none or holds no soil moisture, or a part of an archive or a
            table could not be read.
        FileNotFoundError: if an archive or a table is not there.
    """
    recipe, url = context.recipe, context.paths.ground_truth
    if recipe.stations is None:
        return pd.DataFrame({name: [] for name in STATION_COLUMNS}).astype(
            {"row": int, "column": int}
        )
    days = recipe.period.days
    data = StationData(recipe.stations, recipe.ground_truth, day_at(days.start), day_at(days.stop))
    settings = recipe.digest("stations", "ground_truth", "period")
    store_ground_truth(data, url, settings, context.client, context.console)
    return cell_table(open_ground_truth(url))[STATION_COLUMNS]


def store_ground_truth(
    data: StationData, url: str, settings: str, client: Client, console: Console
) -> None:
    """Read station data into a store, where it does not hold them already.

    Args:
        data: what to read.
        url: the store.
        settings: all that the result depends on beside the files themselves, as a text.
        client: client of the cluster.
        console: told what is set aside or noted.

    Raises:
        StageError: as `prepare_ground_truth`.
        FileNotFoundError: as `prepare_ground_truth`.
    """
    maps = data.ground_truth.class_maps.values()
    sources = [*data.stations.urls, *data.stations.tables]
    sources += [url for chosen in maps for url in (chosen.url, chosen.table) if url]
    tags = [tags_text(source) for source in sources]
    digest = fingerprint_of([FORM, settings, *tags])
    if _digest(url) == digest:
        return
    records = _read(data, client, console)
    truth = _with_maps(_ground_truth(records, data.ground_truth), data.ground_truth)
    _write(truth, url, digest)
    _say(console, records)


def open_ground_truth(url: str) -> xr.Dataset:
    """The ground truth, see `evaluation.reference.ground_truth`; read where it is indexed."""
    dataset: xr.Dataset = xr.open_zarr(
        places.zarr_store(url), chunks=None, consolidated=False, zarr_format=3
    )
    texts = {
        name: (coordinate.dims, np.array(coordinate.values.tolist(), dtype=str))
        for name, coordinate in dataset.coords.items()
        if coordinate.dtype.kind in "OT"
    }
    return dataset.assign_coords(texts)


def ground_truth_attributes(url: str) -> dict[str, Any]:
    """Attributes of the ground truth; empty where there is none."""
    if not places.exists(f"{url}/zarr.json"):
        return {}
    return dict(zarr.open_group(places.zarr_store(url), mode="r", zarr_format=3).attrs)


def read_part(job: ReadJob, data: StationData) -> StationRecords:
    """The records of one job."""
    flags, min_fraction = data.ground_truth.good_flags, data.ground_truth.min_fraction
    start, stop = data.start, data.stop
    if not job.sensors:
        return read_table(
            job.source, flags=flags, min_fraction=min_fraction, start=start, stop=stop
        )
    return read_sensors(
        job.source, job.sensors, flags=flags, min_fraction=min_fraction, start=start, stop=stop
    )


def _digest(url: str) -> str:
    return str(ground_truth_attributes(url).get("inputs", ""))


def _read(data: StationData, client: Client, console: Console) -> StationRecords:
    """The records of all archives and tables, in the order in which they are named."""
    jobs, strange = _jobs(data)
    with meter(console, "reading stations", len(jobs)) as progress:
        done, failed = run_jobs(
            client,
            read_part,
            jobs,
            args=(data,),
            on_done=lambda count, _: progress.update(count),
        )
    if failed:
        raise StageError(
            f"{len(failed)} of {len(jobs)} parts of the station data could not be read. The first, "
            f"{failed[0].job.key}: {failed[0].error}\n{failed[0].traceback}"
        )
    merged = merge_records([part for _, part in sorted(done, key=lambda pair: pair[0].number)])
    merged.rejected[:0] = strange
    return merged


def _jobs(data: StationData) -> tuple[list[ReadJob], list[Rejected]]:
    """The jobs, and files that are none of an archive or a table."""
    jobs: list[ReadJob] = []
    strange: list[Rejected] = []
    for archive in data.stations.urls:
        try:
            names, others = list_sensors(archive)
        except ValueError as error:
            raise StageError(f"stations.urls: {error}") from None
        strange += others
        jobs += [ReadJob(len(jobs) + i, archive, part) for i, part in enumerate(_parts(names))]
    for table in data.stations.tables:
        files, others = list_tables(table)
        strange += others
        jobs += [ReadJob(len(jobs) + i, file) for i, file in enumerate(files)]
    return jobs, strange


def _parts(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(names), SENSORS_PER_JOB):
        yield tuple(names[start : start + SENSORS_PER_JOB])


def _ground_truth(records: StationRecords, settings: GroundTruth) -> xr.Dataset:
    truth = ground_truth(
        records,
        min_days=settings.min_days,
        min_depth=settings.min_depth,
        core_stations=settings.core_stations,
    )
    rejected = [{"path": item.path, "reason": item.reason} for item in records.rejected]
    outside = [
        {"path": str(path), "reason": "its depth belongs to no depth group"}
        for path in not_grouped(records)["path"]
    ]
    return truth.assign_attrs(
        rejected=json.dumps(rejected + outside),
        notes=json.dumps(records.notes),
        good_flags=", ".join(settings.good_flags),
        min_fraction=settings.min_fraction,
    )


def _with_maps(truth: xr.Dataset, settings: GroundTruth) -> xr.Dataset:
    """The ground truth with classes from maps where any are given."""
    cells = cell_table(truth)[["row", "column"]]
    for label, chosen in settings.class_maps.items():
        row, column = (cells[name].to_numpy() for name in ("row", "column"))
        try:
            names = map_classes(chosen.url, chosen.legend, row, column, table=chosen.table)
        except (ClassMapError, ModuleNotFoundError) as error:
            raise StageError(f"ground_truth.class_maps.{label}: {error}") from None
        truth = label_cells(truth, cells.assign(**{label: names}))
    return truth


def _say(console: Console, records: StationRecords) -> None:
    """Name what was set aside or is to be known, some of each; all of it is in the store."""
    for r in records.rejected[:MAX_PRINTED]:
        line = f"  [yellow]set aside[/yellow] {escape(f'{r.path}: {r.reason}')}"
        say(console, line, "set aside", logging.WARNING, file=str(r.path), reason=r.reason)
    more = len(records.rejected) - MAX_PRINTED
    if more > 0:
        line = f"  … and {more} more; all are in the report"
        say(console, line, "set aside", logging.WARNING, count=more)
    notes = [f"[yellow]note[/yellow] {escape(note)}" for note in records.notes]
    for line in notes[:MAX_PRINTED]:
        console.print(f"  {line}", highlight=False)
    if len(notes) > MAX_PRINTED:
        where = "the attributes of the ground truth"
        console.print(f"  … and {len(notes) - MAX_PRINTED} more; all are in {where}")


def _write(truth: xr.Dataset, url: str, digest: str) -> None:
    """Write the ground truth; the digest comes last, since it vouches for the values."""
    texts = {name: c.astype(object) for name, c in truth.coords.items() if c.dtype.kind == "U"}
    with places.written_folder(url, anew=True) as folder:
        truth.assign_coords(texts).to_zarr(folder, mode="w", consolidated=False, zarr_format=3)
    group = zarr.open_group(places.zarr_store(url), mode="r+", zarr_format=3)
    group.attrs["inputs"] = digest
