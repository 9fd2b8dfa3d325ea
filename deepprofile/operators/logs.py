"""Logs as JSON lines: every line on standard error is one JSON object.

What this process logs is written at once. Whatever else writes to standard error (a library in C,
a worker process that has not begun to log in this form yet) comes through a pipe, and what is no
JSON object there becomes the message of one.
"""

import atexit
import faulthandler
import json
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from distributed import Worker, WorkerPlugin

from deepprofile import events
from deepprofile.events import LOGGER, present_fields, records_for_lines
from deepprofile.urls import redacted

VARIABLE = "DEEPPROFILE_LOG_FORMAT"
OPTION = "--log-format"
ERROR = 2
"""File descriptor of standard error."""
_END = b"\0\n"


class LogFormat(StrEnum):
    """Forms of what a command says on its way."""

    TEXT = "text"
    JSON = "json"


def format_asked(arguments: Sequence[str], environment: Mapping[str, str]) -> LogFormat:
    """The form that a command line or the environment asks for; a wrong one counts as text.

    It is known before anything is parsed, so that errors of the command line have it too.
    """
    found = environment.get(VARIABLE, "")
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == OPTION:
            found = value or next(iter(arguments[position + 1 :]), "")
    return LogFormat.JSON if found == LogFormat.JSON else LogFormat.TEXT


class JsonFormatter(logging.Formatter):
    """One JSON object for each record, on one line.

    Keys are ``time`` (UTC, with milliseconds), ``level``, ``event``, the fields of the run
    (``command``, ``recipe``, ``root``, ``stage``), ``message`` and the event's own fields. The
    event of records that are none of ours is ``log``, or ``warning`` for Python's warnings; they
    have ``logger``. No text holds secrets of a URL.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        event = getattr(record, "event", None)
        fields = dict(getattr(record, "fields", present_fields()))
        if event is None:
            event = "warning" if record.name == "py.warnings" else "log"
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
            fields["traceback"] = self.formatException(record.exc_info)
        message = record.getMessage().strip()
        return _line(record.created, record.levelname, event, message, fields)


def _line(
    time: float, level: str, event: str, message: str, fields: Mapping[str, Any] | None = None
) -> str:
    moment = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
    head = {"time": moment.replace("+00:00", "Z"), "level": level.lower(), "event": event}
    document = {**head, **(fields or {}), "message": message}
    return json.dumps({key: _plain(value) for key, value in document.items()})


def _plain(value: Any) -> Any:
    """A value as JSON has it; texts without secrets."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return redacted(str(value))


class LineHandler(logging.Handler):
    """Writes each record to a file descriptor with one system call."""

    def __init__(self, descriptor: int, longest: int | None = None) -> None:
        super().__init__(logging.INFO)
        self._descriptor, self._longest = descriptor, longest
        self.setFormatter(JsonFormatter())
        self.addFilter(_matters)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`. Nobody who has ceased to read stops a run."""
        try:
            line = self.format(record)
            if self._longest is not None and len(line) >= self._longest:
                line = self._shorter(record, self._longest)
        except Exception:
            line = _line(record.created, record.levelname, "log", f"unreadable: {record.msg!r}")
        self.write(f"{line}\n".encode())

    def write(self, line: bytes) -> None:
        """Write bytes, whole lines."""
        with suppress(OSError):
            while line:
                line = line[os.write(self._descriptor, line) :]

    def _shorter(self, record: logging.LogRecord, longest: int) -> str:
        """A record without its fields, the message cut off."""
        text = record.getMessage().strip()[: longest // 12]  # a character takes 12 bytes at most
        return _line(record.created, record.levelname, "log", text, {"logger": record.name})


def _matters(record: logging.LogRecord) -> bool:
    """Of what others log, warnings and worse."""
    return hasattr(record, "event") or record.levelno >= logging.WARNING


@contextmanager
def json_lines() -> Iterator[None]:
    """Have every line on standard error be one JSON object, of child processes as well.

    What a process writes after that, as it exits, is dropped.
    """
    sys.stderr.flush()
    target = os.dup(ERROR)
    handler = LineHandler(target)
    with ExitStack() as stack:
        stack.callback(atexit.register, _drop_errors)
        stack.callback(os.close, target)
        if not faulthandler.is_enabled():
            # Nobody reads the pipe of a process that has crashed.
            faulthandler.enable(target)
            stack.callback(faulthandler.disable)
        stack.enter_context(_piped(handler))
        stack.callback(_log_to(handler))
        stack.callback(_hook())
        stack.enter_context(records_for_lines())
        yield


def _drop_errors() -> None:
    """At exit Dask ends clusters that were interrupted as they started, and not in silence."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, ERROR)
    os.close(nowhere)


@contextmanager
def _piped(handler: LineHandler) -> Iterator[None]:
    """Let what is written to standard error come through a thread that looks at it."""
    before = os.dup(ERROR)
    reading, writing = os.pipe()
    os.dup2(writing, ERROR)
    os.close(writing)
    thread = threading.Thread(target=_relay, args=(reading, handler), daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.write(ERROR, _END)
        thread.join()
        os.dup2(before, ERROR)
        os.close(before)


def _relay(reading: int, handler: LineHandler) -> None:
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            text = line.removesuffix(_END)
            if text.strip():
                handler.write(text.rstrip() + b"\n" if _is_record(text) else _wrapped(text))
            if line.endswith(_END):
                return


def _is_record(line: bytes) -> bool:
    try:
        document = json.loads(line)
    except ValueError:
        return False
    return isinstance(document, dict) and {"time", "level", "event"} <= document.keys()


def _wrapped(line: bytes) -> bytes:
    text = line.decode(errors="replace").rstrip()
    now = datetime.now(UTC).timestamp()
    return f"{_line(now, 'WARNING', 'output', text, present_fields())}\n".encode()


def _log_to(handler: logging.Handler) -> Callable[[], None]:
    """Send all that is logged in this process, and Python's warnings, to one handler.

    Returns:
        What undoes it.
    """
    known = logging.root.manager.loggerDict.values()
    loggers = [one for one in known if isinstance(one, logging.Logger) and _writes(one)]
    before = [(one, list(one.handlers), one.propagate) for one in (*loggers, logging.root)]
    for logger in loggers:
        logger.handlers, logger.propagate = [], True
    logging.root.handlers = [handler]
    LOGGER.addHandler(handler)
    logging.captureWarnings(True)

    def undo() -> None:
        logging.captureWarnings(False)
        LOGGER.removeHandler(handler)
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate

    return undo


def _writes(logger: logging.Logger) -> bool:
    streams = any(isinstance(one, logging.StreamHandler) for one in logger.handlers)
    return streams and logger is not LOGGER


def _hook() -> Callable[[], None]:
    """Log what ends a thread, or rises where nobody can take it.

    Returns:
        What undoes it.
    """
    logger = logging.getLogger("deepprofile")

    def thread_ended(arguments: threading.ExceptHookArgs) -> None:
        name = arguments.thread.name if arguments.thread else "unknown"
        error = arguments.exc_value
        logger.error("thread %s ended", name, exc_info=error)

    def nobody_took(arguments: "sys.UnraisableHookArgs") -> None:
        what = arguments.err_msg or "exception ignored in"
        logger.error("%s: %r", what, arguments.object, exc_info=arguments.exc_value)

    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = thread_ended, nobody_took

    def undo() -> None:
        threading.excepthook, sys.unraisablehook = before

    return undo


class JsonLogs(WorkerPlugin):
    """Has a worker process log JSON lines too, from when it has joined; with fields of the run."""

    name = "deepprofile-json-logs"

    def __init__(self) -> None:
        self._fields = present_fields()

    def setup(self, worker: Worker) -> None:
        """Called by Dask in every worker."""
        self._stack = ExitStack()
        if events.are_records():  # a worker in the process of the run
            return
        self._stack.enter_context(events.bound(**self._fields, worker=worker.address))
        # More bytes at once might be mixed with those of other workers of the same pipe.
        self._stack.callback(_log_to(LineHandler(ERROR, select.PIPE_BUF)))
        self._stack.callback(_hook())

    def teardown(self, worker: Worker) -> None:
        """Called by Dask in every worker that takes the plugin off."""
        self._stack.close()
