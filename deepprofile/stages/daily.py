"""The daily run: take in what has arrived, predict what it touches, and say so in one line."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime

from distributed import Client
from filelock import FileLock, Timeout
from rich.console import Console

from deepprofile import events
from deepprofile.exit_codes import Code
from deepprofile.places import UnreachableError
from deepprofile.places_root import writable
from deepprofile.products import PRODUCTS, Granule
from deepprofile.recipe import Period, Recipe, last_full_day
from deepprofile.stages import chain, ingest, predict
from deepprofile.stages.changes import (
    Seen,
    bytes_written,
    commits_since,
    look,
    share_with_profile,
)
from deepprofile.stages.context import Context, FailedJobsError, Paths, StageError
from deepprofile.stages.devices import settle_device
from deepprofile.stages.ingest_changes import Changes
from deepprofile.stages.models import describe_model, refuse_other_model
from deepprofile.stages.publication import require_all
from deepprofile.stages.static import is_complete, read_land
from deepprofile.store import (
    ConflictError,
    PublicationError,
    StoreError,
    check_memory,
)
from deepprofile.store.faults import explained
from deepprofile.store.layout import day_at, day_index
from deepprofile.store.ledger import done_in
from deepprofile.store.repository import local_path

SOURCE = "smap_l4"
"""The one product that profiles need."""
LOCK = "daily.lock"
"""Name of the lock under a local root."""
ALONE = 1
"""Blocks that are computed together: a block has the same bits whatever it is made with."""

Connect = Callable[[], AbstractContextManager[Client]]


@dataclass(frozen=True)
class Report:
    """How a daily run ended.

    Attributes:
        code: the exit code.
        line: what changed, on one line.
        problem: why the code is not 0; may be of several lines.
    """

    code: Code
    line: str
    problem: str = ""


def run_daily(recipe: Recipe, asked: date | None, connect: Connect, console: Console) -> Report:
    """Ingest, predict and publish what has arrived up to a day.

    Args:
        recipe: the recipe; its period may have no end.
        asked: the day that is wanted; None takes what has arrived up to yesterday (UTC) and wants
            none of it.
        connect: connects to the cluster; not called if another run holds the root.
        console: where progress and granules set aside are said.

    Returns:
        The report: everything done or nothing to do, something failed, another run at work, or no
        granule of the day wanted.

    Raises:
        StageError: if the recipe, the model or the cubes don't allow a daily run.
        CubeError: if a cube can't be as it is.
        JobError: if a job would not fit into the smallest worker.
        PlaceError: if the root can't be written.
        OSError: if there are no granules or no model.
    """
    started = time.monotonic()
    _check_day(recipe, asked)
    chain.check_inputs(_up_to(recipe, recipe.period.end), chain.GROWING)
    try:
        with writable(recipe.root):
            model = describe_model(Paths(recipe.root).model)  # a root without one is not made
            with _sole(recipe.root):
                run = _Run(recipe, asked, console, started)
                return run.go(connect, str(model["fingerprint"]))
    except _HeldError as error:
        line = _line(recipe.name, "another run is at work, nothing done", {"status": "busy"})
        return Report(Code.BUSY, line, str(error))
    except (StoreError, UnreachableError) as error:
        line = _line(recipe.name, "the store failed", {"status": "failed"})
        return Report(Code.FAILED, line, str(error))


class _HeldError(Exception):
    """Another daily run holds the root."""


class _Run:
    """One daily run."""

    def __init__(
        self, recipe: Recipe, asked: date | None, console: Console, started: float
    ) -> None:
        self._asked, self._console, self._started = asked, console, started
        self._taken_in = Changes(SOURCE)
        self._paths = Paths(recipe.root)
        self._forcing = look(self._paths.product(SOURCE))
        self._profiles = look(self._paths.coefficients)
        self._wanted = asked or min(last_full_day(), recipe.period.end)
        granules = _arrived(recipe, self._wanted)
        self._steps = sum(_touches(granule, self._wanted) for granule in granules)
        self._recipe = _up_to(recipe, self._last_day(recipe, granules))

    def go(self, connect: Connect, model: str) -> Report:
        """Do the work with the model of this fingerprint, and report it."""
        refuse_other_model(self._paths.coefficients, model)
        code, problem = Code.DONE, ""
        with connect() as client:
            try:
                with explained(self._paths.root):
                    self._work(Context(self._recipe, client, self._console))
            except ConflictError as error:
                code, problem = Code.BUSY, str(error)
            except (FailedJobsError, PublicationError, StoreError, OSError) as error:
                code, problem = Code.FAILED, str(error)
            if code is Code.DONE and self._asked and not self._steps:
                code, problem = Code.NOT_YET, f"no granule of {self._asked} has arrived yet"
            report = Report(code, self._describe(code), problem)
            events.conclude(exit_code=int(code))  # known before the client is closed
        return report

    def _work(self, context: Context) -> None:
        if is_complete(context):  # what it was made from may be gone or replaced by now
            recipe = context.recipe.model_copy(update={"terrain": None})
            context = Context(recipe, context.client, context.console)
        settled = settle_device(context)
        planned = {ingest: ingest.plan(context.recipe), predict: predict.plan(settled.recipe)}
        check_memory(context.client, [plan.need(stage.STAGE) for stage, plan in planned.items()])
        with events.stage(ingest.STAGE) as running:
            (self._taken_in,) = ingest.update(context)
            require_all(ingest.STAGE, self._taken_in.failed)
            running.summary = self._taken_in.line
        with events.stage(predict.STAGE) as running:
            running.summary = predict.run(settled, ALONE)

    def _last_day(self, recipe: Recipe, granules: list[Granule]) -> date:
        """The last day with granules; never before that of the cube, which does not shrink."""
        days = [day_index(granule.last.astype("datetime64[D]").item()) for granule in granules]
        stop = max([self._forcing.stop, *(min(day, day_index(self._wanted)) + 1 for day in days)])
        if stop <= recipe.period.days.start:
            raise StageError(
                f"no granule from {recipe.period.start} to {self._wanted} below "
                f"{recipe.products[SOURCE].url}. Check products.{SOURCE}.url and period.start."
            )
        return day_at(stop - 1)

    def _describe(self, code: Code) -> str:
        forcing, profiles = look(self._forcing.url), look(self._profiles.url)
        taken_in = self._taken_in
        predicted = commits_since(self._profiles, profiles)
        pieces = [name.split(" block ") for name in done_in(reversed(predicted))]
        added = profiles.n_days - self._profiles.n_days
        changed = forcing.snapshot != self._forcing.snapshot or bool(predicted)
        valid = self._valid(profiles)
        values: dict[str, object] = {
            "status": _status(code, changed),
            "date": self._wanted,
            "steps": self._steps,
            "days_added": added,
            "last": day_at(profiles.stop - 1) if profiles.stop else "none",
            "granules_new": taken_in.new,
            "granules_late": taken_in.late,
            "granules_replaced": taken_in.replaced,
            "granules_set_aside": taken_in.set_aside,
            "days_kept": len(taken_in.lost + taken_in.kept),
            "tiles": len({tile for tile, *_ in pieces}),
            "blocks": len({block for *_, block in pieces}),
            "bytes": bytes_written(self._forcing, forcing)
            + bytes_written(self._profiles, profiles),
            "snapshot": profiles.snapshot or "none",
            "valid": "none" if valid is None else f"{valid:.4f}",
            "seconds": f"{time.monotonic() - self._started:.1f}",
        }
        facts = {key: value for key, value in values.items() if key not in {"seconds", "valid"}}
        last_day = str(values["last"]) if profiles.stop else None
        events.conclude(**facts, last_day=last_day, profile_ratio=valid)
        return _line(self._recipe.name, _summary(code, changed, added, profiles, valid), values)

    def _valid(self, profiles: Seen) -> float | None:
        """Share of land cells with a profile on the last day; None where there are no profiles."""
        if not profiles.n_days:
            return None
        return share_with_profile(profiles.url, read_land(self._paths.static))


@contextmanager
def _sole(root: str) -> Iterator[None]:
    """Hold a local root for one daily run; in an object store conditional publications decide."""
    folder = local_path(root)
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise _HeldError(
            f"{root}: another daily run is at work (it holds {lock.lock_file}). It does what has "
            "arrived; what comes later is for the next run."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_day(recipe: Recipe, asked: date | None) -> None:
    today = datetime.now(UTC).date()
    if asked is None:
        return
    if asked > today:
        raise StageError(f"--date {asked} is in the future: today is {today} (UTC)")
    if asked < recipe.period.start:
        raise StageError(f"--date {asked} is before the period's first day, {recipe.period.start}")
    if asked > recipe.period.end and not recipe.period.grows:
        raise StageError(
            f"--date {asked} is after period.end, {recipe.period.end}. Remove period.end from the "
            "recipe to let its period grow day by day."
        )


def _arrived(recipe: Recipe, last: date) -> list[Granule]:
    """Granules of the period up to a day."""
    product, first = PRODUCTS[SOURCE], recipe.period.start
    granules, _ = product.granules(recipe.products[SOURCE].url, first, day_at(day_index(last) + 1))
    return granules


def _touches(granule: Granule, day: date) -> bool:
    first, last = (time.astype("datetime64[D]").item() for time in (granule.start, granule.last))
    return bool(first <= day <= last)


def _up_to(recipe: Recipe, last: date) -> Recipe:
    """The recipe of this run: one product, a period with an end."""
    update = {
        "period": Period(start=recipe.period.start, end=last),
        "products": {SOURCE: recipe.products[SOURCE]},
    }
    return recipe.model_copy(update=update)


def _status(code: Code, changed: bool) -> str:
    if code is Code.DONE:
        return "done" if changed else "nothing"
    return {Code.FAILED: "failed", Code.BUSY: "busy", Code.NOT_YET: "not_yet"}[code]


def _summary(code: Code, changed: bool, added: int, profiles: Seen, valid: float | None) -> str:
    what = f"{added} day{'' if added == 1 else 's'} added" if changed else "nothing new"
    last = f", profiles up to {day_at(profiles.stop - 1)}" if profiles.stop else ", no profiles yet"
    last += " (none on that day: its forcing is incomplete)" if valid == 0 else ""
    why = {
        Code.FAILED: "; NOT ALL WAS DONE",
        Code.BUSY: "; another run publishes, the rest is for it or the next run",
        Code.NOT_YET: "; the day asked for has not arrived yet",
    }.get(code, "")
    return what + last + why


def _line(name: str, summary: str, values: dict[str, object]) -> str:
    return f"{name}: {summary} | " + " ".join(f"{key}={value}" for key, value in values.items())
