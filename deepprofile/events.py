"""Events of a run: what happened, with fields, for logs and metrics.

An event is a record of Python's logging, under `LOGGER`. Whoever attaches a handler gets all of
them; without one they cost next to nothing. People read what is printed; where records take the
place of printed lines (`--log-format json`), `say` prints nothing and `RecordConsole` makes records
of lines.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

LOGGER = logging.getLogger("deepprofile.events")
"""Records have the attributes ``event`` (its name) and ``fields``."""
LOGGER.setLevel(logging.DEBUG)
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False
JOBS_SECONDS = 1.0
"""Least time between two events ``jobs`` of one list of jobs."""
_COLOURS = {"yellow": logging.WARNING, "red": logging.ERROR}


@dataclass
class _Present:
    """The one run of this process."""

    fields: dict[str, Any] = field(default_factory=dict)
    ending: dict[str, Any] = field(default_factory=dict)
    records: bool = False
    workers: int | None = None


_PRESENT = _Present()


def emit(event: str, message: str = "", level: int = logging.INFO, **fields: Any) -> None:
    """Say that something happened.

    Args:
        event: its name, of a fixed set.
        message: for people; empty means the name.
        level: as in `logging`.
        fields: what else is known of it: texts, numbers, lists of them.
    """
    extra = {"event": event, "fields": {**_PRESENT.fields, **fields}}
    LOGGER.log(level, "%s", message or event, extra=extra)


def present_fields() -> dict[str, Any]:
    """Fields that every event has at present."""
    return _PRESENT.fields


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Give fields to all events of this process while the context is open."""
    before = _PRESENT.fields
    _PRESENT.fields = {**before, **fields}
    try:
        yield
    finally:
        _PRESENT.fields = before


def bind(**fields: Any) -> None:
    """Give fields to all events until the context of `bound` around this ends."""
    _PRESENT.fields = {**_PRESENT.fields, **fields}


def conclude(**fields: Any) -> None:
    """Give fields to the last event of a run, such as its results."""
    _PRESENT.ending = {**_PRESENT.ending, **fields}


def ending() -> dict[str, Any]:
    """Fields for the last event of a run."""
    return _PRESENT.ending


@contextmanager
def one_run(**fields: Any) -> Iterator[None]:
    """Events of one run: with these fields, and nothing that is left of a run before."""
    _PRESENT.ending, _PRESENT.workers = {}, None
    try:
        with bound(**fields):
            yield
    finally:
        _PRESENT.ending, _PRESENT.workers = {}, None


@contextmanager
def records_for_lines() -> Iterator[None]:
    """Have records take the place of printed lines while the context is open."""
    _PRESENT.records = True
    try:
        yield
    finally:
        _PRESENT.records = False


def are_records() -> bool:
    """Whether records take the place of printed lines."""
    return _PRESENT.records


def say(
    console: Console, markup: str, event: str, level: int = logging.INFO, **fields: Any
) -> None:
    """Print a line for people, or make a record of it; an event in any case.

    Args:
        console: where people read.
        markup: the line, in rich's markup.
        event: name of the event.
        level: its level.
        fields: its fields.
    """
    if not _PRESENT.records:
        console.print(markup, highlight=False)
    emit(event, Text.from_markup(markup).plain.strip(), level, **fields)


def notice(event: str, text: str, level: int = logging.WARNING, **fields: Any) -> None:
    """Warn on standard error, in plain text or as a record; an event in any case."""
    if not _PRESENT.records:
        print(text, file=sys.stderr, flush=True)
    emit(event, text, level, **fields)


class RecordConsole(Console):
    """A console for which lines are records ``message``; tables are printed for people."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See `rich.console.Console.print`. Yellow makes a warning, red an error."""
        if not all(isinstance(one, str) for one in objects):
            super().print(*objects, **options)
            return
        plain = options.get("markup") is False
        texts = [Text(one) if plain else Text.from_markup(one) for one in objects]
        whole = Text(" ").join(texts)
        levels = [_COLOURS.get(str(span.style), logging.INFO) for span in whole.spans]
        emit("message", whole.plain.strip(), max(levels, default=logging.INFO))


class Stage:
    """A stage that runs; its summary is set when there is one."""

    summary = ""


@contextmanager
def stage(name: str, console: Console | None = None) -> Iterator[Stage]:
    """Events of a stage, from ``stage started`` to ``stage finished`` or ``stage stopped``.

    Args:
        name: the stage.
        console: where title, summary and time are printed; None: nowhere.
    """
    shown = console or Console(quiet=True)
    with bound(stage=name):
        started, running = time.monotonic(), Stage()
        try:
            say(shown, f"[bold]{name}[/bold]", "stage started")
            yield running
            seconds = time.monotonic() - started
            line = f"  {running.summary} [dim]({seconds:.1f} s)[/dim]"
            summary = Text.from_markup(running.summary).plain
            say(shown, line, "stage finished", seconds=round(seconds, 3), summary=summary)
        except BaseException as error:
            seconds, kind = round(time.monotonic() - started, 3), type(error).__name__
            facts = {"seconds": seconds, "error": kind, "reason": _reason(error)}
            emit("stage stopped", f"{name}: {kind}", logging.ERROR, **facts)
            raise


def _reason(error: BaseException) -> str:
    """Why a stage stopped, on one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


class JobCount:
    """Counts the jobs of one list: events ``jobs``, each with what has changed since the last.

    Their fields are ``added``, ``done`` and ``failed``; their level is DEBUG, as people and logs
    have the progress.
    """

    def __init__(self, total: int) -> None:
        self._done = self._failed = 0
        self._told = time.monotonic()
        emit("jobs", level=logging.DEBUG, added=total, done=0, failed=0)

    def done(self) -> None:
        """Count a job that has ended well."""
        self._done += 1
        self._tell_sometimes()

    def failed(self, key: str, error: str, traceback: str) -> None:
        """Count a job that failed for good, and say so: the event ``job failed``."""
        self._failed += 1
        message = f"{key}: {error}"
        emit("job failed", message, logging.ERROR, key=key, error=error, traceback=traceback)
        self._tell_sometimes()

    def close(self) -> None:
        """Say what has not been said yet."""
        if self._done or self._failed:
            done, failed = self._done, self._failed
            self._done = self._failed = 0
            self._told = time.monotonic()
            emit("jobs", level=logging.DEBUG, added=0, done=done, failed=failed)

    def _tell_sometimes(self) -> None:
        if time.monotonic() - self._told > JOBS_SECONDS:
            self.close()


def workers_changed(number: int) -> None:
    """Keep the present number of workers for the progress, and say that it changed."""
    _PRESENT.workers = number
    emit("workers", workers_text(number), workers=number)


def workers_text(number: int) -> str:
    """Such as ``1 worker``."""
    return f"{number} worker{'' if number == 1 else 's'}"


def present_workers() -> str:
    """The number of workers, if it has changed since the run began; otherwise empty."""
    return "" if _PRESENT.workers is None else workers_text(_PRESENT.workers)
