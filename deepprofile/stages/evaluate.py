"""Stage evaluate: compare with stations (and the demo Earth's truth), write tables and report."""

import pandas as pd

from deepprofile.evaluation.assess import STEPS, Settings, merge, step_for, write_tables
from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.report.page import console_table, write_report
from deepprofile.products import PRODUCTS
from deepprofile.progress import meter
from deepprofile.recipe import Recipe
from deepprofile.stages.compare import (
    DEEPPROFILE,
    STATIONS,
    TRUTH,
    CompareJob,
    compare,
    count_series,
    reference_tiles,
)
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.extent import land_of
from deepprofile.stages.material import report_inputs
from deepprofile.stages.static import read_land
from deepprofile.stages.stations import prepare_ground_truth
from deepprofile.store import run_jobs
from deepprofile.store.layout import BLOCK_DAYS, TILE_CELLS
from deepprofile.store.writer import IN_FLIGHT

STAGE = "evaluate"
PRINTED_SPLIT = "validation"
BASELINES = 3
"""Estimates beside the profile and the products: two means and the climatology."""


def run(context: Context) -> str:
    """Compare, print the medians over validation cells, write tables and the report."""
    found = _compare(context)
    if found.metrics.empty:
        raise StageError(
            "there is nothing to compare with: the recipe has neither stations nor a synthetic "
            "Earth in its region. Give stations.urls."
        )
    if found.series is None:
        context.console.print(
            "  [yellow]note[/yellow] the report shows no series of cells: even as means of "
            f"{STEPS[-1]} days they need too much memory"
        )
    report = context.paths.report
    tables = write_tables(report, found, min_cells=context.recipe.evaluate.min_cells)
    page = write_report(f"{report}/report.html", report_inputs(context, found))
    _print(context, tables["summary"])
    return f"report: {page}"


def plan(recipe: Recipe) -> Plan:
    """Reads the layers and profiles of the tiles that hold cells with a reference."""
    n_days = recipe.period.days.stop - recipe.period.days.start
    tiles = land_of(recipe).tiles if recipe.stations or recipe.synthetic else 0
    layers = sum(len(PRODUCTS[name].layers) for name in recipe.products)
    values = layers + recipe.training.n_coefficients
    read = tiles * n_days * values * TILE_CELLS * 4
    memory = 2 * IN_FLIGHT * BLOCK_DAYS * recipe.training.n_coefficients * TILE_CELLS * 4
    note = "at most: tiles without stations are left out"
    return Plan(tiles, read, 0, memory, note, {"read": read})


def _compare(context: Context) -> Assessment:
    jobs = _jobs(context)
    with meter(context.console, "comparing", len(jobs)) as progress:
        results, failed = run_jobs(
            context.client, compare, jobs, on_done=lambda done, _: progress.update(done)
        )
    if failed:
        raise StageError(
            f"{len(failed)} tiles could not be compared, so the report would not be complete. "
            f"The first, {failed[0].job.key}: {failed[0].error}\n{failed[0].traceback}"
        )
    return merge([part for _, part in results])


def _jobs(context: Context) -> list[CompareJob]:
    recipe, paths = context.recipe, context.paths
    ground_truth = paths.ground_truth if recipe.stations else ""
    truth = paths.truth if recipe.synthetic else ""
    if not ground_truth and not truth:
        return []
    prepare_ground_truth(context)
    known = reference_tiles(ground_truth, truth)
    settings = _settings(recipe, count_series(ground_truth, truth))
    land = read_land(paths.static)
    return [
        CompareJob(
            tile,
            {name: paths.product(name) for name in recipe.products},
            tuple(recipe.collocation.products),
            paths.coefficients,
            paths.collocation,
            paths.samples,
            ground_truth,
            truth,
            settings,
        )
        for tile in recipe.tiles.land_tiles(land)
        if tile in known
    ]


def _settings(recipe: Recipe, n_series: int) -> Settings:
    """How tiles are assessed: with equal spans, that the series of all fit into memory."""
    asked = recipe.evaluate
    n_days = recipe.period.days.stop - recipe.period.days.start
    return Settings(
        DEEPPROFILE,
        min_days=asked.min_days,
        replicates=asked.replicates,
        level=asked.level,
        products=tuple(recipe.products),
        step=step_for(n_series, n_days, 1 + len(recipe.products) + BASELINES),
        climatology=asked.climatology,
    )


def _print(context: Context, summary: pd.DataFrame) -> None:
    """The tables of held-out cells, against each reference."""
    for reference in (TRUTH, STATIONS):
        chosen = (summary["reference"] == reference) & (summary["split"] == PRINTED_SPLIT)
        if chosen.any():
            title = f"Medians over {PRINTED_SPLIT} cells against {reference}"
            context.console.print(console_table(summary[chosen], title))
