"""Stage ingest: granules become daily fields on the 9 km grid, blocks of days at a time.

The ledger notes for each block what each of its days was made from. A run reads the granules of
the days for which that has changed, takes the other days from the shards as published and writes
whole shards: the result is the same as that of reading everything.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepprofile.events import say
from deepprofile.products import PRODUCTS
from deepprofile.stages.context import Context
from deepprofile.stages.ingest_changes import Changes, spans, summarise_news
from deepprofile.stages.ingest_days import Arrival
from deepprofile.stages.ingest_jobs import (
    STAGE,
    IngestJob,
    IngestResult,
    place_of,
    product_template,
    write_block,
)
from deepprofile.stages.ingest_plan import plan
from deepprofile.stages.ingest_work import Work, find_work
from deepprofile.stages.publication import forget_unplanned, publish_stage, require_all
from deepprofile.stages.static import publish_static
from deepprofile.store import AllFailedError, JobFailure

__all__ = ["STAGE", "Changes", "place_of", "plan", "run", "update"]

_UNREADABLE = "of which a granule can't be read that takes the place of others"


def run(context: Context) -> str:
    """Ingest every product of the recipe; days that are in the cubes already are left out."""
    changes = update(context)
    require_all(STAGE, [failure for change in changes for failure in change.failed])
    return "; ".join(change.line for change in changes)


def update(context: Context) -> list[Changes]:
    """Ingest what has arrived, and say what changed in the cube of each product.

    Jobs that failed are in the result and in the ledger; the others are published, also where all
    jobs of a block or of a product fail.

    Raises:
        FileNotFoundError: if there are no granules of a product.
        StageError: if the land mask can't be made.
        CubeError: if a cube can't be published.
    """
    land = publish_static(context)
    return [_ingest_product(context, name, land) for name in context.recipe.products]


def _ingest_product(context: Context, name: str, land: NDArray[np.bool_]) -> Changes:
    work = find_work(context, PRODUCTS[name], land)
    _report(context, name, _merge([IngestResult(work.set_aside)]))
    if work.lost:
        context.console.print(
            f"  {name}: [yellow]granules are gone[/yellow] of {spans(work.lost)}, which stay "
            "as published",
            highlight=False,
        )
    url = context.paths.product(name)
    forget_unplanned(url, STAGE, work.jobs)
    failed: list[JobFailure] = []
    results: list[tuple[IngestJob, IngestResult]] = []
    snapshot, first = work.snapshot, True
    for group in _groups(work.jobs, context.recipe.ingest.blocks_per_commit):
        try:
            outcome = publish_stage(
                context,
                url,
                product_template(PRODUCTS[name], context.recipe.tiles),
                write_block,
                group,
                stage=STAGE,
                what="{} {} to {}".format(name, *work.ends(group)),
                n_days=group[-1].days[1],
                metadata=work.notes(first=first),
                summarise=partial(_summarise, work, first=first),
                planned_at=snapshot,
            )
        except AllFailedError as error:
            failed += error.failed
            continue
        first = False
        snapshot = outcome.snapshot_id
        failed += outcome.failed
        results += outcome.results
        _report(context, name, _merge(result for _, result in outcome.results))
    return _changes(name, work, results, failed, snapshot)


def _changes(
    name: str,
    work: Work,
    results: Sequence[tuple[IngestJob, IngestResult]],
    failed: Sequence[JobFailure],
    snapshot: str,
) -> Changes:
    counts, (added, remade) = summarise_news(work.news[job.key] for job, _ in results)
    found = _merge(result for _, result in results)
    unused = {item.url for item in work.set_aside} | set(found.set_aside)
    return Changes(
        name,
        jobs=len(work.jobs),
        new=counts[Arrival.NEW],
        late=counts[Arrival.LATE],
        replaced=counts[Arrival.REPLACED],
        set_aside=len(unused),
        added=tuple(added),
        remade=tuple(day for day in remade if day not in found.kept_days),
        lost=work.lost,
        kept=tuple(found.kept_days),
        failed=tuple(failed),
        snapshot_id=snapshot,
    )


def _groups(jobs: Sequence[IngestJob], n_blocks: int) -> Iterator[list[IngestJob]]:
    """Jobs that are published together: those of ``n_blocks`` blocks."""
    starts = sorted({job.block for job in jobs})
    for i in range(0, len(starts), n_blocks):
        chosen = set(starts[i : i + n_blocks])
        yield [job for job in jobs if job.block in chosen]


def _summarise(work: Work, results: list[tuple[Any, Any]], *, first: bool) -> dict[str, Any]:
    """What a commit notes of its jobs; the first one of a run names what the listing set aside."""
    found = _merge(result for _, result in results)
    listed = work.set_aside if first else []
    aside = {**{item.url: item.reason for item in listed}, **found.set_aside}
    kept = {str(day): _UNREADABLE for day in found.kept_days}
    return {
        "made_of": work.made_of(job for job, _ in results),
        "set_aside": [{"url": url, "reason": reason} for url, reason in aside.items()],
        "out_of_range": found.out_of_range,
        "short_days": found.short_days,
        "unread": work.unread_in(results),
        **({"kept_days": kept} if kept else {}),
    }


class _Found(NamedTuple):
    """What several jobs found amiss, see `IngestResult`; reasons by URL."""

    set_aside: dict[str, str]
    out_of_range: dict[str, int]
    short_days: list[str]
    kept_days: list[date]


def _merge(results: Iterable[IngestResult]) -> _Found:
    found, counts = list(results), Counter[str]()
    for result in found:
        counts.update(result.out_of_range)
    return _Found(
        {item.url: item.reason for result in found for item in result.set_aside},
        dict(counts),
        sorted({day for result in found for day in result.short_days}),
        sorted({day for result in found for day in result.kept_days}),
    )


def _report(context: Context, name: str, found: _Found) -> None:
    """Say at the end of a group what was set aside and what was out of range."""
    for url, reason in found.set_aside.items():
        line = f"  {name}: [yellow]set aside[/yellow] {url}: {reason}"
        facts = {"file": url, "reason": reason, "product": name}
        say(context.console, line, "set aside", logging.WARNING, **facts)
    lines = []
    if found.kept_days:
        days = spans(found.kept_days)
        lines.append(f"[yellow]kept as published[/yellow]: {days}, {_UNREADABLE}")
    if found.short_days:
        lines.append(f"[yellow]too few steps[/yellow] on {', '.join(found.short_days)}: missing")
    if found.out_of_range:
        named = ", ".join(f"{name} {n}" for name, n in sorted(found.out_of_range.items()))
        lines.append(f"[yellow]outside the valid range[/yellow], taken as missing: {named}")
    for line in lines:
        context.console.print(f"  {name}: {line}", highlight=False)
