"""One long task in several worker processes at once, which are joined by torch."""

import math
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch.distributed as dist
from distributed import Client, Future, KilledWorker, get_worker, wait
from distributed.comm.addressing import get_address_host
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from deepprofile.model.parallel import LostProcessError, Processes, joined
from deepprofile.stages.context import Context, StageError
from deepprofile.stages.remote import reporter, shown
from deepprofile.store.jobs import workers_of

JOIN_SECONDS = 300.0
"""How long all processes may take to begin: a worker may be busy with something else."""
LOOK_SECONDS = 1.0
"""How often one looks whether all workers are still there."""
END_SECONDS = 30.0
"""How long the others may take to end after one has failed, until it is told why."""
GOES_ON = "What was saved until then stays: run it again to go on from there."

_meetings: dict[str, TCPStore] = {}
"""In the worker of process 0: the stores where processes meet, by name of the task."""


class AbsentProcessError(StageError):
    """A process can't take part: its worker is busy."""


@dataclass(frozen=True)
class _Seat:
    """One process of a task, and where it meets the others."""

    meeting: str
    port: int
    workers: tuple[str, ...]
    processes: Processes
    device: str
    join_seconds: float


def run_together(
    context: Context,
    what: str,
    function: Callable[..., Any],
    *args: Any,
    workers: Sequence[str],
    device: str,
    join_seconds: float = JOIN_SECONDS,
) -> Any:
    """Run ``function(report, processes, *args)`` on all of some workers at once.

    There is no second attempt: where one process fails, or its worker is lost, all of them end.

    Args:
        context: the running recipe.
        what: what is done, for the progress and for errors.
        function: importable on the workers; ``processes`` is a
            :class:`~deepprofile.model.parallel.Processes`, and torch's default group joins them.
        args: small.
        workers: addresses, one for each process; of separate operating-system processes.
        device: on which they compute, ``"cpu"`` or ``"cuda"``.
        join_seconds: longest wait until all have begun.

    Returns:
        The result of process 0, of which alone the reports are shown.

    Raises:
        StageError: if a worker is lost, or busy for longer than the wait.
        Exception: whatever the function raised.
    """
    client, meeting = context.client, f"{what} {uuid4().hex}"
    first = workers[0]
    opened = client.run(_open_meeting, meeting, len(workers), workers=[first], on_error="return")
    port = opened[first]
    if isinstance(port, OSError):
        raise _lost(what, workers, 0)
    if isinstance(port, Exception):
        raise port
    seats = _seats(meeting, port, workers, device, join_seconds)
    futures: list[Future[Any]] = []
    try:
        with shown(context, what, len(seats)) as topic:
            futures += [_submit(client, seat, topic, function, args) for seat in seats]
            _wait(client, what, dict(zip(workers, futures, strict=True)))
            return futures[0].result()
    finally:
        client.cancel(futures)
        if first in workers_of(client):  # it may be lost in this very moment
            client.run(_close_meeting, meeting, workers=[first], on_error="ignore")


def _seats(
    meeting: str, port: int, workers: Sequence[str], device: str, join_seconds: float
) -> list[_Seat]:
    machines = [get_address_host(address) for address in workers]
    neighbours = Counter(machines)
    return [
        _Seat(
            meeting,
            port,
            tuple(workers),
            Processes(rank, len(workers), neighbours[machine]),
            device,
            join_seconds,
        )
        for rank, machine in enumerate(machines)
    ]


def _submit(
    client: Client, seat: _Seat, topic: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> Future[Any]:
    return client.submit(
        _take_part,
        seat,
        topic,
        function,
        args,
        pure=False,
        retries=0,
        workers=[seat.workers[seat.processes.rank]],
        allow_other_workers=False,
    )


def _wait(client: Client, what: str, futures: Mapping[str, Future[Any]]) -> None:
    """Wait for all processes, or raise why one failed; the others have a while to end before."""
    end = math.inf
    while True:
        errors, present = _errors(futures), workers_of(client)
        running = [address for address, future in futures.items() if not future.done()]
        alive = [futures[address] for address in running if address in present]
        failed = bool(errors) or len(alive) < len(running)
        end = min(end, time.monotonic() + END_SECONDS) if failed else end
        absent = any(isinstance(error, AbsentProcessError) for error in errors.values())
        if not alive or absent or time.monotonic() > end:
            break
        with suppress(TimeoutError):
            wait(alive, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
    if failed:
        raise _reason(what, list(futures), errors, present)


def _errors(futures: Mapping[str, Future[Any]]) -> dict[str, BaseException]:
    found = {address: future for address, future in futures.items() if future.status == "error"}
    return {address: future.exception() for address, future in found.items()}


def _reason(
    what: str,
    workers: Sequence[str],
    errors: Mapping[str, BaseException],
    present: Mapping[str, object],
) -> BaseException:
    """Why a task ended: an error of a process itself, before one that followed from it."""
    for error in errors.values():
        if not isinstance(error, (LostProcessError, KilledWorker)):
            return error
    for rank, address in enumerate(workers):
        if address not in present or isinstance(errors.get(address), KilledWorker):
            return _lost(what, workers, rank)
    address, error = next(iter(errors.items()))
    return StageError(
        f"{what}: the processes lost one another, though all their workers are there. {address}: "
        f"{error}. {GOES_ON}"
    )


def _lost(what: str, workers: Sequence[str], rank: int) -> StageError:
    return StageError(
        f"{what}: process {rank + 1} of {len(workers)} is lost: its worker {workers[rank]} has "
        f"ended (killed, out of memory or cut off). The other processes were stopped. {GOES_ON}"
    )


def _take_part(seat: _Seat, topic: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """One process of a task."""
    processes = seat.processes
    if dist.is_initialized():
        raise AbsentProcessError(
            f"{seat.workers[processes.rank]} takes part in another training of several processes: "
            "wait for its end, or set training.processes to 1."
        )
    report = _ignore if processes.rank else reporter(topic)
    wait_at_most = timedelta(seconds=seat.join_seconds)
    store = TCPStore(
        get_address_host(seat.workers[0]),
        seat.port,
        processes.size,
        False,
        wait_at_most,
        wait_for_workers=False,
    )
    _assemble(store, seat)
    host = get_address_host(get_worker().address)
    with joined(processes, store, seat.device, host):
        return function(report, processes, *args)


def _assemble(store: TCPStore, seat: _Seat) -> None:
    """Wait until all processes have begun."""
    begun = [f"begun {rank}" for rank in range(seat.processes.size)]
    store.set(begun[seat.processes.rank], "yes")
    try:
        store.wait(begun, timedelta(seconds=seat.join_seconds))
    except dist.DistError as error:
        absent = [
            f"process {rank + 1} on {seat.workers[rank]}"
            for rank, key in enumerate(begun)
            if not store.check([key])
        ]
        raise AbsentProcessError(
            f"{', '.join(absent)} of {len(begun)} did not begin within {seat.join_seconds:g} s. "
            "A worker that is busy with something else can't take part: wait until the cluster is "
            "free, or set training.processes lower."
        ) from error


def _ignore(share: float, note: str) -> None:
    """Take a report of which nothing is shown."""


def _open_meeting(meeting: str, size: int, dask_worker: Any) -> int:
    """Open a store for processes to meet, at this worker's own address only; its port.

    Raises:
        RuntimeError: if no port can be opened at that address.
    """
    host = get_address_host(dask_worker.address)
    try:
        listener = socket.create_server((host, 0))
    except OSError as error:  # an OSError would mean that the worker can't be reached
        raise RuntimeError(
            f"a training in several processes needs a port at {host}, the address of worker "
            f"{dask_worker.address}, and the machine has none to give there: {error}. Start "
            "workers with --host and an address of their own machine"
        ) from None
    port: int = listener.getsockname()[1]
    _meetings[meeting] = TCPStore(
        host,
        port,
        size,
        True,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    return port


def _close_meeting(meeting: str) -> None:
    _meetings.pop(meeting, None)
