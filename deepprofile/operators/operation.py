"""A long command from its first event to its exit code."""

import logging
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer
from distributed import Client
from rich.console import Console
from rich.markup import escape

from deepprofile import __version__, events
from deepprofile.cluster import connected
from deepprofile.cluster.connecting import GOES_ON, spec_of
from deepprofile.exit_codes import Code, code_of
from deepprofile.operators.cluster_line import elastic_range, state_of
from deepprofile.operators.logs import JsonLogs
from deepprofile.operators.metrics import Summary, SummaryHandler, attached, check_file
from deepprofile.operators.scheduler import observed


class Operation:
    """A long command that runs.

    Attributes:
        console: where it says what it does.
    """

    def __init__(self, command: str, file: Path, console: Console) -> None:
        self.console = console
        self._command, self._file, self._started = command, str(file), time.time()

    def about(self, recipe: str, root: str, *, title: bool = True) -> None:
        """Say what the command is about, as soon as that is known; a line is optional."""
        events.bind(recipe=recipe, root=root)
        console = self.console if title else Console(quiet=True)
        line = f"[bold]{escape(recipe)}[/bold] in {escape(root)}"
        events.say(console, line, "recipe read", started=self._started)

    @contextmanager
    def connected(self, cluster: str) -> Iterator[Client]:
        """A client of the cluster, which is described; scheduler and run know of each other."""
        spec = spec_of(cluster)
        with connected(spec, GOES_ON) as client:
            state = state_of(client, elastic_range(spec))
            events.say(
                self.console,
                f"Dask: {escape(state.line)}",
                "cluster connected",
                cluster=cluster,
                workers=state.workers,
                threads=state.threads,
                memory_bytes=state.memory,
                dashboard=state.dashboard or None,
                elastic=state.elastic or None,
            )
            if events.are_records() and client.cluster is not None:
                client.register_plugin(JsonLogs())
            with observed(client) as forwarder:
                # What came before there was a client, and what comes when it is closed.
                forwarder.send(self._event("recipe read", started=self._started))
                try:
                    yield client
                except BaseException as error:
                    forwarder.send(self._last_event(error))
                    raise
                forwarder.send(self._last_event(None))

    def result(self, what: str, place: str) -> None:
        """Say where the result is; the last event says it too."""
        self.console.print(f"{what}: {place}", highlight=False, markup=False)
        events.conclude(**{what: place})

    def finish(self, error: BaseException | None) -> int:
        """Say how the command ended: its error, if it has one, and the last event.

        Returns:
            The exit code.
        """
        last = self._last_event(error)
        code = int(last["exit_code"])
        if error is not None and not isinstance(error, KeyboardInterrupt):
            events.emit("error", str(error), logging.ERROR, **described(error, code))
        del last["event"], last["time"]
        level = logging.INFO if code == Code.DONE else logging.ERROR
        events.emit("run finished", f"{self._command} ended with exit code {code}", level, **last)
        return code

    def _last_event(self, error: BaseException | None) -> dict[str, Any]:
        code = int(code_of(error) if error else events.ending().get("exit_code", Code.DONE))
        seconds = round(time.time() - self._started, 3)
        facts = {**events.ending(), "file": self._file, "exit_code": code, "seconds": seconds}
        return self._event("run finished", **facts)

    def _event(self, name: str, **fields: Any) -> dict[str, Any]:
        return {**events.present_fields(), **fields, "event": name, "time": time.time()}


@contextmanager
def operation(
    command: str, file: Path, console: Console, metrics_file: Path | None = None
) -> Iterator[Operation]:
    """A long command: its events, its metrics, and what becomes of its errors.

    Args:
        command: its name.
        file: the recipe, or what stands for one.
        console: where it prints what it does.
        metrics_file: where its metrics are written when it has ended, however that was.

    Raises:
        typer.Exit: for every error, where records take the place of printed lines; the error was
            said then.
        OSError: if metrics can't be written there; before anything else is done.
    """
    summary = Summary()
    with ExitStack() as stack:
        stack.enter_context(events.one_run(command=command))
        if metrics_file is not None:
            check_file(metrics_file)
            stack.enter_context(attached(SummaryHandler(summary)))
        running = Operation(command, file, console)
        details: dict[str, Any] = {
            "version": __version__,
            "host": platform.node(),
            "process": os.getpid(),
        }
        try:
            events.emit("run started", f"{command} {file}", file=str(file), **details)
            yield running
            running.finish(None)
        except BaseException as error:
            code = running.finish(error)
            if not events.are_records():
                raise
            raise typer.Exit(code) from error
        finally:
            if metrics_file is not None:
                _write(summary, metrics_file)


def _write(summary: Summary, file: Path) -> None:
    """Write the metrics; a run that went well is none the worse where that can't be."""
    try:
        summary.write(file)
    except Exception as error:
        events.notice(
            "metrics not written",
            f"warning: --metrics-file {file}: can't be written ({error}). "
            "The run itself ended as its exit code says",
        )


def described(error: BaseException, code: int) -> dict[str, Any]:
    """Fields of the event of an error: of one that nobody expects also where it rose."""
    fields: dict[str, Any] = {"error": type(error).__name__, "exit_code": code}
    if code == Code.FAILED and not isinstance(error, SystemExit):
        fields["traceback"] = "".join(traceback.format_exception(error))
    return fields
