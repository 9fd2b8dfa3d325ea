"""The stages of a recipe, in order: each is one module with ``run`` and ``plan``."""

import time
from collections.abc import Sequence
from types import ModuleType

from rich.table import Table

from deepprofile.recipe import Recipe
from deepprofile.stages import collocate, evaluate, ingest, predict, sample, synthesize, train
from deepprofile.stages.context import Context, StageError
from deepprofile.store import check_memory

STAGES: dict[str, ModuleType] = {
    "synthesize": synthesize,
    "ingest": ingest,
    "collocate": collocate,
    "sample": sample,
    "train": train,
    "predict": predict,
    "evaluate": evaluate,
}

__all__ = ["STAGES", "Context", "StageError", "names", "plan_table", "run", "select"]


def names() -> str:
    """Names of all stages in order, for messages."""
    return ", ".join(STAGES)


def select(recipe: Recipe, chosen: Sequence[str] | None) -> list[str]:
    """Stages to run, in order.

    Args:
        recipe: decides whether the demo Earth is made.
        chosen: names that the user gave; None or empty means all.

    Raises:
        StageError: for a name that is no stage, or ``synthesize`` without a synthetic Earth.
    """
    unknown = [name for name in chosen or () if name not in STAGES]
    if unknown:
        raise StageError(f"there is no stage {unknown[0]!r}; the stages are {names()}")
    if recipe.synthetic is None and "synthesize" in (chosen or ()):
        raise StageError(
            "stage synthesize needs a section 'synthetic' in the recipe; this one reads real files"
        )
    return [
        name
        for name in STAGES
        if name in (chosen or STAGES) and (recipe.synthetic or name != "synthesize")
    ]


def run(chosen: Sequence[str], context: Context) -> None:
    """Run stages one after another, each with its title, progress, summary and time.

    Raises:
        JobError: if a job of a stage would not fit into the smallest worker; nothing was started.
        StageError: if a stage can't go on.
    """
    for name in chosen:
        check_memory(context.client, STAGES[name].plan(context.recipe).job_memory, name)
    for name in chosen:
        started = time.monotonic()
        context.console.print(f"[bold]{name}[/bold]")
        summary = STAGES[name].run(context)
        seconds = time.monotonic() - started
        context.console.print(f"  {summary} [dim]({seconds:.1f} s)[/dim]", highlight=False)


def plan_table(recipe: Recipe) -> Table:
    """What every stage would do, as a table; no data is touched."""
    table = Table(title=f"{recipe.name}: {recipe.period.start} to {recipe.period.end}")
    for heading in ("stage", "jobs", "read", "written", "memory of a job", "note"):
        table.add_column(heading, justify="left" if heading in ("stage", "note") else "right")
    for name in select(recipe, None):
        plan = STAGES[name].plan(recipe)
        table.add_row(
            name,
            f"{plan.jobs:,}",
            _size(plan.bytes_read),
            _size(plan.bytes_written),
            _size(plan.job_memory),
            plan.note,
        )
    return table


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if n_bytes >= 100 or unit == "B" else f"{n_bytes:.1f} {unit}"
