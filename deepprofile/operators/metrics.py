"""Metrics of runs for Prometheus, made of their events.

One `Summary` keeps the values. It is fed in the scheduler, whose ``/metrics`` shows it, and in the
process of the run, which writes it to a file. Without prometheus-client there is neither.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

from deepprofile.events import LOGGER

RUN, STAGE, RECIPE = ("recipe", "command"), ("recipe", "stage"), ("recipe",)
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stage_running": ("1 while a stage runs, 0 when it has ended.", STAGE),
    "stage_seconds": ("Seconds that a stage took, known when it has ended.", STAGE),
    "stage_jobs": ("Jobs that a stage has handed to Dask.", STAGE),
    "stage_jobs_done": ("Jobs of a stage that have ended well.", STAGE),
    "stage_jobs_failed": ("Jobs of a stage that failed for good.", STAGE),
    "stage_publications": ("Publications of cubes by a stage.", STAGE),
    "stage_pieces_published": ("Pieces of cubes that a stage has published.", STAGE),
    "stage_set_aside": ("Files that a stage has set aside.", STAGE),
    "run_started_timestamp_seconds": ("When the last run began.", RUN),
    "run_finished_timestamp_seconds": ("When the last run ended.", RUN),
    "run_success_timestamp_seconds": ("When the last run with exit code 0 ended.", RUN),
    "run_seconds": ("Seconds that the last run took.", RUN),
    "run_exit_code": ("Exit code of the last run.", RUN),
    "last_day_timestamp_seconds": ("Begin (UTC) of the last day that has profiles.", RECIPE),
    "profile_ratio": ("Share of the land cells that have a profile on that day.", RECIPE),
    "bytes_written": ("Bytes that the last daily run wrote to the cubes.", RECIPE),
}
"""Names without their prefix, what they mean, and their labels. All are gauges; those of a stage
tell of its last run."""
PREFIX = "deepprofile_"
KEPT = ("run_success_timestamp_seconds", "last_day_timestamp_seconds", "profile_ratio")
"""What a file keeps of the run before, where a run does not know it."""
INSTALL = 'pip install "deepprofile[dashboard]"'
Values = dict[str, dict[tuple[str, ...], float]]


class Summary:
    """Values of the metrics, by name and labels."""

    def __init__(self) -> None:
        self.values: Values = {}

    def update(self, event: Mapping[str, Any]) -> None:
        """Take in an event: its fields, with its name as ``event`` and its ``time`` (seconds).

        Events that change no metric are let pass.
        """
        handle = _HANDLERS.get(event["event"])
        if handle is not None:
            handle(self, event)

    def lost(self, event: Mapping[str, Any], now: float) -> None:
        """Whoever sent this as the last event of a run has gone: it has ended, nobody knows how.

        Args:
            event: the event.
            now: when that was noticed, in seconds.
        """
        if "stage" in event:
            self._set("stage_running", event, 0)
        self._set("run_finished_timestamp_seconds", event, now)
        for name in ("run_exit_code", "run_seconds"):  # those of the run before
            self.values.get(name, {}).pop(_labels(name, event), None)

    def value(self, name: str, *labels: str) -> float | None:
        """One value, if there is one."""
        return self.values.get(name, {}).get(labels)

    def collect(self) -> Iterator[Any]:
        """Families of samples, as prometheus-client wants them of a collector."""
        yield from families(self.values)

    def write(self, path: Path) -> None:
        """Write a file for the textfile collector of Prometheus' node exporter, at once.

        What this run does not know of KEPT stays as the file has it.

        Raises:
            OSError: if it can't be written.
        """
        from prometheus_client import CollectorRegistry, write_to_textfile

        for name, found in _kept(path).items():
            self.values[name] = found | self.values.get(name, {})
        registry = CollectorRegistry()
        registry.register(self)
        write_to_textfile(str(path), registry)

    def _set(self, name: str, event: Mapping[str, Any], value: float) -> None:
        self.values.setdefault(name, {})[_labels(name, event)] = float(value)

    def _add(self, name: str, event: Mapping[str, Any], value: float) -> None:
        self._set(name, event, (self.value(name, *_labels(name, event)) or 0) + value)

    def _recipe_read(self, event: Mapping[str, Any]) -> None:
        """A run of a recipe begins: what earlier runs of it did in their stages is past."""
        for name, (_, labels) in METRICS.items():
            if labels == STAGE:
                held = self.values.get(name, {})
                self.values[name] = {k: v for k, v in held.items() if k[0] != event["recipe"]}
        self._set("run_started_timestamp_seconds", event, event["started"])
        self._not_lost(event)

    def _not_lost(self, event: Mapping[str, Any]) -> None:
        """A run goes on: take away what `lost` says of it, or of the one before."""
        labels = _labels("run_exit_code", event)
        if self.value("run_exit_code", *labels) is None:
            self.values.get("run_finished_timestamp_seconds", {}).pop(labels, None)

    def _stage_started(self, event: Mapping[str, Any]) -> None:
        self._set("stage_running", event, 1)
        for name in ("stage_jobs", "stage_jobs_done", "stage_jobs_failed"):
            self._set(name, event, 0)

    def _stage_ended(self, event: Mapping[str, Any]) -> None:
        self._set("stage_running", event, 0)
        self._set("stage_seconds", event, event["seconds"])

    def _jobs(self, event: Mapping[str, Any]) -> None:
        if "stage" in event:  # one that was cut off and is back
            self._set("stage_running", event, 1)
            self._not_lost(event)
        self._add("stage_jobs", event, event["added"])
        self._add("stage_jobs_done", event, event["done"])
        self._add("stage_jobs_failed", event, event["failed"])

    def _published(self, event: Mapping[str, Any]) -> None:
        self._add("stage_publications", event, 1)
        self._add("stage_pieces_published", event, event["pieces"])

    def _set_aside(self, event: Mapping[str, Any]) -> None:
        self._add("stage_set_aside", event, event.get("count", 1))

    def _run_finished(self, event: Mapping[str, Any]) -> None:
        self._set("run_finished_timestamp_seconds", event, event["time"])
        self._set("run_exit_code", event, event["exit_code"])
        self._set("run_seconds", event, event["seconds"])
        if event["exit_code"] == 0:
            self._set("run_success_timestamp_seconds", event, event["time"])
        if event.get("last_day"):
            self._set("last_day_timestamp_seconds", event, _begin(event["last_day"]))
        for name, key in (("profile_ratio", "profile_ratio"), ("bytes_written", "bytes")):
            if event.get(key) is not None:
                self._set(name, event, event[key])


_HANDLERS = {
    "recipe read": Summary._recipe_read,
    "stage started": Summary._stage_started,
    "stage finished": Summary._stage_ended,
    "stage stopped": Summary._stage_ended,
    "jobs": Summary._jobs,
    "published": Summary._published,
    "set aside": Summary._set_aside,
    "run finished": Summary._run_finished,
}
EVENTS = frozenset(_HANDLERS)
"""Events that change metrics."""


def _labels(name: str, event: Mapping[str, Any]) -> tuple[str, ...]:
    """Labels of an event's value. A recipe that can't be read has the name of its file."""
    unread = {"recipe": Path(str(event.get("file", ""))).stem}
    return tuple(str({**unread, **event}.get(label, "")) for label in METRICS[name][1])


def families(values: Values) -> Iterator[Any]:
    """Families of samples for prometheus-client."""
    from prometheus_client.core import GaugeMetricFamily

    for name, (documentation, labels) in METRICS.items():
        if values.get(name):
            family = GaugeMetricFamily(PREFIX + name, documentation, labels=labels)
            for own, value in values[name].items():
                family.add_metric(own, value)
            yield family


class SummaryHandler(logging.Handler):
    """Feeds a summary with the events of this process, while it is open."""

    def __init__(self, summary: Summary) -> None:
        super().__init__(logging.DEBUG)
        self._summary = summary

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        self._summary.update(as_event(record))


def as_event(record: logging.LogRecord) -> dict[str, Any]:
    """What `Summary.update` takes, of a record of `LOGGER`."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    return {**fields, "event": getattr(record, "event", ""), "time": record.created}


def check_file(path: Path) -> None:
    """Whether metrics can be written to a file.

    Raises:
        OSError: if not; the message says what to do.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise OSError(f"--metrics-file needs prometheus-client: {INSTALL}") from None
    if not path.parent.is_dir() or path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OSError(
            f"--metrics-file {path}: can't be written there. Expected a file, by custom with the "
            "ending .prom, in a folder that is there and can be written to"
        )


@contextmanager
def attached(handler: logging.Handler) -> Iterator[None]:
    """Let a handler have all events of this process while the context is open."""
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


def _begin(day: str) -> float:
    first = date.fromisoformat(day)
    return datetime.fromisoformat(f"{first}T00:00:00+00:00").timestamp()


def _kept(path: Path) -> Values:
    """Values of KEPT in a file; none if it can't be read."""
    from prometheus_client.parser import text_string_to_metric_families

    found: Values = {}
    with suppress(OSError, ValueError):
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
            name = family.name.removeprefix(PREFIX)
            for sample in family.samples if name in KEPT else ():
                labels = tuple(sample.labels.get(label, "") for label in METRICS[name][1])
                found.setdefault(name, {})[labels] = sample.value
    return found
