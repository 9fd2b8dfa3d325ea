"""Run an assessment: ground truth, estimates, comparison by jobs, tables and the report."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import xarray as xr
from distributed import Client
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from deepprofile import places
from deepprofile.assessments.definition import Baselines, Definition, Sensor, Table
from deepprofile.assessments.estimates import (
    Source,
    check_products,
    check_weights,
    extents,
    open_estimates,
    sources_of,
)
from deepprofile.assessments.tables import store_tables
from deepprofile.evaluation.assess import Settings, assess, merge, step_for, write_tables
from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.estimates.base import cell_keys
from deepprofile.evaluation.reference.ground_truth import UNQUALIFIED
from deepprofile.evaluation.reference.series import cell_table, label_cells
from deepprofile.evaluation.report.judged import QUALIFIED, VALIDATION
from deepprofile.evaluation.report.page import ReportInputs, console_table, write_report
from deepprofile.progress import meter
from deepprofile.stages.compare import chosen_cells
from deepprofile.stages.context import StageError
from deepprofile.stages.publication import versions
from deepprofile.stages.stations import StationData, open_ground_truth, store_ground_truth
from deepprofile.store import run_jobs
from deepprofile.store.layout import TILE_COLUMNS, TILE_ROWS

CELLS_PER_JOB = 16
"""Station cells that one job compares: those of a tile lie side by side in cubes."""
STATIONS = "stations"
MAX_NOTED = 10
Cells = NDArray[np.int64]


@dataclass(frozen=True)
class AssessJob:
    """Some cells of the ground truth, all estimates.

    Attributes:
        number: of the job.
        cells: see `base.cell_keys`.
        ground_truth: URL of the ground truth.
        sources: the estimates.
        baselines: the means that are further estimates.
        settings: how they are compared.
        samples: see `_judged`.
    """

    number: int
    cells: tuple[int, ...]
    ground_truth: str
    sources: tuple[Source, ...]
    baselines: Baselines
    settings: Settings
    samples: str | None

    @property
    def key(self) -> str:
        """Name in messages."""
        return f"{len(self.cells)} cells, group {self.number}"


@dataclass(frozen=True)
class Result:
    """What an assessment leaves.

    Attributes:
        assessment: everything that was found.
        summary: medians over cells; those that qualify have the split ``"validation"``.
        report: URL of the report.
    """

    assessment: Assessment
    summary: pd.DataFrame
    report: str


def run_assessment(definition: Definition, client: Client, console: Console) -> Result:
    """Make the ground truth where it is not there, compare, write tables and the report.

    Raises:
        FileNotFoundError: if an archive, a table or a cube is not there.
        NotACubeError: if something else lies in place of a cube.
        StageError: if station data or a table can't be used, no station gives ground truth, no
            estimate shares a cell and a day with it, or a part could not be compared.
    """
    root = definition.root.rstrip("/")
    place = places.local_path(root)
    if place is not None and place.is_file():
        raise StageError(f"root {root}: is a file; expected a folder, which is made as needed")
    sources = sources_of(definition)
    check_weights(definition.baselines)
    url = f"{root}/ground_truth.zarr"
    truth = _ground_truth(definition, url, client, console)
    files = [one for one in definition.estimates if isinstance(one, Table)]
    notes = store_tables(files, root, url, client, console)
    check_products(definition, sources)
    apart = _overlaps(definition, sources, truth)
    found = _compare(definition, sources, url, truth, client, console)
    silent = _silent(definition, found.metrics)
    cells = _judged(cell_table(truth), definition.samples)
    notes += [*({**silent, **apart}).values(), *_left_out(cells, definition)]
    for note in notes[:MAX_NOTED]:
        console.print(f"  [yellow]note[/yellow] {escape(note)}", highlight=False)
    made = write_tables(f"{root}/report", found, min_cells=definition.evaluate.min_cells)
    places.write_csv(f"{root}/report/cells.csv", cells)
    with console.status("drawing the report"):
        page = write_report(f"{root}/report/report.html", _inputs(definition, truth, found, notes))
    _print(made["summary"], console)
    return Result(found, made["summary"], page)


def assess_cells(job: AssessJob) -> Assessment:
    """All estimates in the cells of one job."""
    whole = open_ground_truth(job.ground_truth)
    keys = np.array(job.cells, dtype=np.int64)
    mine = np.isin(_keys(whole), keys)
    reference = whole.isel(series=np.flatnonzero(mine)).load()
    reference = label_cells(reference, _judged(cell_table(reference), job.samples))
    estimates = open_estimates(job.sources, job.baselines, whole, keys)
    return assess(estimates, {STATIONS: reference}, job.settings)


def _ground_truth(definition: Definition, url: str, client: Client, console: Console) -> xr.Dataset:
    """The ground truth, made where it is not there; read where it is indexed."""
    period = definition.period
    stop = period.end + timedelta(days=1) if period.end else None
    data = StationData(definition.stations, definition.ground_truth, period.start, stop)
    sections = {"stations", "ground_truth", "period"}
    settings = json.dumps(definition.model_dump(mode="json", include=sections), sort_keys=True)
    store_ground_truth(data, url, settings, client, console)
    truth = open_ground_truth(url)
    if not truth.sizes["series"]:
        first = _noted(truth, "rejected")[:MAX_NOTED]
        lines = "".join(f"\n  {item['path']}: {item['reason']}" for item in first)
        days = f"{period.start or 'the first day'} to {period.end or 'the last'}"
        raise StageError(f"stations: no sensor gives a series to compare with from {days}.{lines}")
    return truth


def _compare(
    definition: Definition,
    sources: Sequence[Source],
    url: str,
    truth: xr.Dataset,
    client: Client,
    console: Console,
) -> Assessment:
    options, baselines = definition.evaluate, definition.baselines
    n_estimates = len(definition.names) + baselines.climatology
    settings = Settings(
        definition.subject,
        min_days=options.min_days,
        replicates=options.replicates,
        level=options.level,
        seed=options.seed,
        products=tuple(definition.products),
        step=step_for(truth.sizes["series"], truth.sizes["time"], n_estimates),
        climatology=baselines.climatology,
    )
    jobs = [
        AssessJob(number, cells, url, tuple(sources), baselines, settings, definition.samples)
        for number, cells in enumerate(_groups(truth))
    ]
    with meter(console, "comparing", len(jobs)) as progress:
        done, failed = run_jobs(
            client, assess_cells, jobs, on_done=lambda count, _: progress.update(count)
        )
    if failed:
        raise StageError(
            f"{len(failed)} of {len(jobs)} groups of cells could not be compared, so the tables "
            f"would not be complete. The first, {failed[0].job.key}: {failed[0].error}\n"
            f"{failed[0].traceback}"
        )
    return merge([part for _, part in sorted(done, key=lambda pair: pair[0].number)])


def _groups(truth: xr.Dataset) -> Iterator[tuple[int, ...]]:
    """Cells of the ground truth, tile by tile."""
    cells = cell_table(truth)
    cells = cells.assign(y=cells["row"] // TILE_ROWS, x=cells["column"] // TILE_COLUMNS)
    cells = cells.sort_values(["y", "x", "row", "column"])
    keys = cell_keys(cells["row"], cells["column"])
    for start in range(0, keys.size, CELLS_PER_JOB):
        yield tuple(keys[start : start + CELLS_PER_JOB].tolist())


def _keys(reference: xr.Dataset) -> Cells:
    return cell_keys(reference["row"].to_numpy(), reference["column"].to_numpy())


def _judged(cells: pd.DataFrame, samples: str | None) -> pd.DataFrame:
    """Cells with the split by which tables keep those that count apart from the rest.

    Args:
        cells: of the ground truth.
        samples: URL of the cube of samples of a model; None where no estimate was trained.
    """
    cells = cells.assign(split=np.where(cells["cell_class"] == UNQUALIFIED, UNQUALIFIED, QUALIFIED))
    if samples is None:
        return cells
    known = chosen_cells(samples)[["row", "column", "split"]].rename(columns={"split": "of_model"})
    found = cells.merge(known, on=["row", "column"], how="left")["of_model"].to_numpy()
    return cells.assign(split=np.where(pd.isna(found), cells["split"], found))


def _overlaps(
    definition: Definition, sources: Sequence[Source], truth: xr.Dataset
) -> dict[str, str]:
    """Of each estimate that shares no cell or no day with the ground truth, what it has.

    Raises:
        StageError: if none shares any.
    """
    found = extents(sources, definition.baselines, truth)
    n_cells, n_days = len(cell_table(truth)), truth.sizes["time"]
    depths = {one.name: one.depth for one in definition.estimates if isinstance(one, Sensor)}
    notes = {}
    for name, (cells, days) in found.items():
        if not cells and name in depths:
            notes[name] = (
                f"estimate {name}: no station has readings at {depths[name]:g} m, so nothing of "
                "it can be compared"
            )
        elif not cells or not days:
            notes[name] = (
                f"estimate {name}: has {cells} of {n_cells} station cells and {days} of {n_days} "
                "days, so nothing of it can be compared"
            )
    if len(notes) == len(found):
        raise StageError("; ".join(notes.values()))
    return notes


def _left_out(cells: pd.DataFrame, definition: Definition) -> list[str]:
    """How many cells do not count, and why."""
    few, rule = int((cells["split"] == UNQUALIFIED).sum()), definition.ground_truth
    if not few:
        return []
    return [
        f"{few} of {len(cells)} station cells do not qualify: they have no {rule.min_days} days at "
        f"one depth below {rule.min_depth:g} m (ground_truth.min_days, ground_truth.min_depth). "
        "They are in the files and in no median or figure"
    ]


def _silent(definition: Definition, metrics: pd.DataFrame) -> dict[str, str]:
    """Of each estimate that has no metric anywhere, why."""
    notes = {}
    for name in definition.names:
        lines = metrics[metrics["estimate"] == name]
        if lines.empty:
            notes[name] = f"estimate {name}: covers no depth of the ground truth"
        elif lines["rmse"].isna().all():
            reason = lines["reason"].value_counts().index[0]
            notes[name] = f"estimate {name}: no series can be compared; most often: {reason}"
    return notes


def _inputs(
    definition: Definition, truth: xr.Dataset, found: Assessment, notes: list[str]
) -> ReportInputs:
    days = truth["time"].to_numpy().astype("datetime64[D]")
    remarks = [*notes, *map(str, _noted(truth, "notes"))]
    rejected = pd.DataFrame(_noted(truth, "rejected"), columns=["path", "reason"])
    return ReportInputs(
        title=definition.name,
        subtitle=f"Station data from {days[0]} to {days[-1]}; written {datetime.now(UTC):%Y-%m-%d}",
        subject=definition.subject,
        assessment=found,
        rejected_stations=rejected,
        station_notes=pd.DataFrame({"note": remarks}),
        recipe=json.dumps(definition.model_dump(mode="json"), indent=2),
        versions=versions(),
        min_cells=definition.evaluate.min_cells,
    )


def _noted(truth: xr.Dataset, attribute: str) -> list[dict[str, str]]:
    """A list that the ground truth keeps in an attribute."""
    return list(json.loads(str(truth.attrs[attribute])))


def _print(summary: pd.DataFrame, console: Console) -> None:
    """Medians over the cells that qualify, or over all where none does."""
    judged = summary[summary["split"].isin([VALIDATION, QUALIFIED])]
    title = "Medians over core and extra cells"
    if judged.empty:
        judged, title = summary, "Medians over cells, none of which qualifies as core or extra"
    console.print(console_table(judged, title))
