"""Progress of long work: bars on a terminal, a line or a record now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deepprofile.events import are_records, emit, present_workers

LINE_SECONDS = 10.0
"""Least time between two progress lines where there is no terminal."""


class Meter:
    """Counts what is done of one piece of work."""

    def __init__(self, console: Console, text: str, total: float) -> None:
        self._console = console
        self._text = text
        self._total = total
        self._done, self._note = 0.0, ""
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar: tuple[Progress, TaskID] | None = None

    def update(self, done: float, note: str = "") -> None:
        """Set the amount done so far, with a short note such as the current loss."""
        self._done, self._note = done, note
        note = " ".join(part for part in (note, present_workers()) if part)
        if are_records():
            if time.monotonic() - self._last_line > LINE_SECONDS:
                self.record()
        elif self._bar:
            bar, task = self._bar
            bar.update(task, completed=done, note=note)
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            share = 100 * done / self._total if self._total else 100
            self._console.print(f"  {self._text}: {share:.0f} % {note}")

    def record(self) -> None:
        """Make a record of the amount done so far."""
        self._last_line = time.monotonic()
        share = 100 * self._done / self._total if self._total else 100
        message = f"{self._text}: {share:.0f} % {self._note}".strip()
        emit(
            "progress",
            message,
            what=self._text,
            note=self._note,
            done=self._done,
            total=self._total,
        )


@contextmanager
def meter(console: Console, text: str, total: float) -> Iterator[Meter]:
    """Show the progress of ``total`` units of work called ``text`` while the context is open."""
    counter = Meter(console, text, total)
    if are_records():
        yield counter
        if total:
            counter.record()
        return
    if not console.is_terminal:
        yield counter
        return
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        counter._bar = bar, bar.add_task(text, total=total, note="")
        yield counter
