"""Our part of what Dask's scheduler shows and says: metrics, and workers that come and go."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from distributed import Client, Scheduler, SchedulerPlugin

from deepprofile import events
from deepprofile.operators.metrics import (
    EVENTS,
    Summary,
    Values,
    as_event,
    attached,
    families,
)

TOPIC = "deepprofile-run"
"""Dask's topic of the events that change metrics."""
WORKERS = "deepprofile-workers"
"""Dask's topic of the number of workers, at each change."""
ANSWER_SECONDS = 30.0
"""The scheduler has this long to take an event."""
FLUSH_SECONDS = 5.0
"""A run that ends waits this long at most for what has not been sent yet."""
MOST_WAITING = 10_000
"""Events that may wait to be sent."""
NOT_SENT = (
    "warning: the scheduler does not take what this run says of itself ({why}): its /metrics miss "
    "the rest of this run, which does not wait for that"
)


class Observer(SchedulerPlugin):
    """Adds metrics of runs to the scheduler's ``/metrics``, and tells how many workers there are.

    Clients register it by its name, and only the first one does; without prometheus-client in the
    scheduler it has no metrics. A client that goes and has not said how its run ended was killed
    or cut off.
    """

    name = "deepprofile-observer"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Called by Dask in the scheduler."""
        self.summary = Summary()
        self._scheduler = scheduler
        self._unfinished: dict[str, dict[str, Any]] = {}  # last event of runs, by client
        _serve(self)

    async def close(self) -> None:
        """Called by Dask when the scheduler stops."""
        _SERVED.discard(self)

    def log_event(self, topic: str, msg: Any) -> None:
        """Called by Dask for each event of any topic."""
        if topic != TOPIC:
            return
        self.summary.update(msg)
        if msg["event"] == "run finished":
            self._unfinished.pop(msg["client"], None)
        else:
            self._unfinished[msg["client"]] = msg
            if msg["client"] not in self._scheduler.clients:  # it went before this was read
                self.remove_client(self._scheduler, msg["client"])

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Called by Dask when a client has gone, in order or not."""
        last = self._unfinished.pop(client, None)
        if last is not None:
            self.summary.lost(last, time.time())

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Called by Dask when a worker has joined."""
        scheduler.log_event(WORKERS, len(scheduler.workers))

    def remove_worker(
        self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: Any
    ) -> None:
        """Called by Dask when a worker has left."""
        scheduler.log_event(WORKERS, len(scheduler.workers))


_SERVED: WeakSet[Observer] = WeakSet()
"""Observers of the schedulers of this process; one after another, or side by side."""
_LOCK = threading.Lock()
_registered = False


class _Collector:
    """What all schedulers of this process know; each value once, as Prometheus demands."""

    def collect(self) -> Iterator[Any]:
        together: Values = {}
        for observer in list(_SERVED):
            for name, values in observer.summary.values.items():
                together[name] = together.get(name, {}) | values
        yield from families(together)


def _serve(observer: Observer) -> None:
    """Show an observer's values wherever this process shows metrics."""
    global _registered
    try:
        import prometheus_client
    except ImportError:
        return
    with _LOCK:
        _SERVED.add(observer)
        if not _registered:
            prometheus_client.REGISTRY.register(_Collector())
            _registered = True


class Forwarder(logging.Handler):
    """Sends the events that change metrics to the scheduler, by Dask's own means and in order.

    Metrics are no part of the work. A thread of its own sends, so no event waits for the scheduler,
    wherever it happens: Dask's own thread has events too. Where the scheduler does not answer in
    ANSWER_SECONDS, the forwarder gives up and says so, in that thread. Without a client it sends
    nothing.
    """

    def __init__(self, client: Client | None) -> None:
        super().__init__(logging.DEBUG)
        self._client, self._full = client, False
        self._waiting: SimpleQueue[dict[str, Any] | threading.Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="deepprofile-run", daemon=True)
        self._thread.start()

    @property
    def sends(self) -> bool:
        """Whether it has not given up."""
        return self._client is not None

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filterer.filter`; asked before the lock of the handler is taken."""
        return getattr(record, "event", "") in EVENTS

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        self.send(as_event(record))

    def send(self, event: dict[str, Any]) -> None:
        """Have one event sent, as it is of use there: texts and numbers."""
        self._full = self._full or self._waiting.qsize() >= MOST_WAITING
        client = self._client
        if client is not None and not self._full:
            kept = {k: value for k, value in event.items() if isinstance(value, str | int | float)}
            kept.pop("traceback", None)
            self._waiting.put({**kept, "client": client.id})

    def flush(self) -> None:
        """Wait until all is sent, for FLUSH_SECONDS at most; after that, give up."""
        if self._client is not None:
            reached = threading.Event()
            self._waiting.put(reached)
            if not reached.wait(FLUSH_SECONDS):
                self._give_up(f"no answer in {FLUSH_SECONDS:g} s")

    def finish(self) -> None:
        """Send what is left, as `flush`, and nothing after that."""
        self.flush()
        self._client = None
        self._waiting.put(None)

    def _send_all(self) -> None:
        while (item := self._waiting.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._send_one(item)

    def _send_one(self, event: dict[str, Any]) -> None:
        client = self._client
        if client is None or client.scheduler is None:
            return
        if self._full:
            self._give_up(f"{MOST_WAITING} events wait to be sent")
            return
        try:
            client.sync(
                client.scheduler.log_event,
                topic=TOPIC,
                msg=event,
                asynchronous=False,
                callback_timeout=ANSWER_SECONDS,
            )
        except Exception as error:  # whatever it is, the run does not end for it
            self._give_up(type(error).__name__)

    def _give_up(self, why: str) -> None:
        """Send nothing more and say so, once; no thread that has an event waits for it."""
        if self._client is not None:
            self._client = None
            events.notice("metrics not sent", NOT_SENT.format(why=why))


@contextmanager
def observed(client: Client) -> Iterator[Forwarder]:
    """Let the scheduler know of the run, and the run of its workers, where that can be."""
    client.subscribe_topic(WORKERS, lambda event: events.workers_changed(event[1]))
    forwarder = Forwarder(client if _has_observer(client) else None)
    try:
        with attached(forwarder):
            yield forwarder
    finally:
        with suppress(Exception):
            client.unsubscribe_topic(WORKERS)
        forwarder.finish()


def _has_observer(client: Client) -> bool:
    """Whether the scheduler has an observer, now at the latest."""
    try:
        client.register_plugin(Observer(), name=Observer.name)
    except Exception:  # a scheduler without deepprofile
        return False
    return True
