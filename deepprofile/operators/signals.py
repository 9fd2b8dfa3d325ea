"""Signals that end a run in order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM has come: batch systems and Kubernetes send it before they kill."""


@dataclass
class Signals:
    """Signals that have come.

    Attributes:
        terminated: whether SIGTERM has.
    """

    terminated: bool = False


@contextmanager
def orderly() -> Iterator[Signals]:
    """Have SIGTERM end this process as Ctrl-C does: clusters are closed, locks given back.

    The first one counts; more of them do not disturb the end.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.terminated = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGTERM, before)
