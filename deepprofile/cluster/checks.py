"""Whether workers have what this process has: those that are there, and those that come later."""

import logging
import platform
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from distributed import Client, Worker, WorkerPlugin

from deepprofile.cluster.base import ClusterError, OwningClient
from deepprofile.cluster.waiting import await_worker
from deepprofile.events import notice

PACKAGES = (
    *("deepprofile", "dask", "distributed", "numpy", "pandas", "xarray", "zarr", "numcodecs"),
    *("icechunk", "numba", "torch"),
)
"""Packages of which workers need the client's version: jobs are sent by name, and results must not
depend on the worker."""
SAME = 2
"""Parts of a version number that must be equal; of deepprofile all are."""
GUARD = "deepprofile-versions"
"""Name of the plugin that looks at workers as they join."""
REFUSED = "deepprofile-refused"
"""Topic of the scheduler's events under which workers say that they were refused."""
LOG = logging.getLogger("deepprofile.cluster")
START = (
    "Start workers with `dask worker ADDRESS --preload-nanny deepprofile.cluster.preload`, and "
    "with DEEPPROFILE_PROCESSES=n where n worker processes share a machine"
)


class Found(NamedTuple):
    """What a worker says of itself.

    Attributes:
        versions: see `versions`.
        host: name of its machine.
        cores: of its machine.
        job_threads: jobs that it runs at a time.
        call_threads: threads that each call of a library may take; None: as many as it likes.
    """

    versions: dict[str, str]
    host: str
    cores: int
    job_threads: int
    call_threads: int | None


def check_workers(client: Client) -> None:
    """Wait for the first worker, stop unless all have the versions of this process, and have those
    that join later looked at, too.

    Raises:
        ClusterError: see `await_worker` and `check_versions`.
    """
    if not isinstance(client, OwningClient):  # a process that was killed may have left its guard
        client.register_plugin(WorkerPlugin(), name=GUARD)
    known: list[str] = []
    while not known:
        await_worker(client)
        known = check_versions(client)
    guard_versions(client, known)


def versions() -> dict[str, str]:
    """Version of Python and of each package that is installed in this process."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def check_versions(client: Client) -> list[str]:
    """Stop unless all workers have the versions of this process.

    Says so where workers that others have started have no limits of their threads.

    Returns:
        Addresses of the workers that have answered; those that leave meanwhile don't count.

    Raises:
        ClusterError: names what differs, on how many workers, and what to do.
    """
    try:
        said: Mapping[str, Any] = client.run(_asked(), on_error="return")
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"the workers do not answer: {error}") from None
    answers = {a: found for a, found in said.items() if not isinstance(found, OSError)}
    broken = {a: found for a, found in answers.items() if not isinstance(found, tuple)}
    if broken:
        address, found = min(broken.items(), key=lambda item: item[0])
        raise ClusterError(
            f"{len(broken)} of {len(answers)} workers can't import deepprofile, such as {address}: "
            f"{found!r}. Install deepprofile {version('deepprofile')} where they run"
        )
    workers = {address: Found(*found) for address, found in answers.items()}
    _compare([worker.versions for worker in workers.values()])
    if client.cluster is None and (crowded := too_many_threads(workers.values())):
        notice("worker threads", f"{crowded}. {START}")
    return list(workers)


def _asked() -> Callable[[Worker], tuple[Any, ...]]:
    """What workers answer, see `Found`; it travels whole, as deepprofile there may be another."""

    def answer(dask_worker: Worker) -> tuple[Any, ...]:
        import os
        import platform

        from deepprofile.cluster.checks import versions

        threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        return (
            versions(),
            platform.node(),
            os.cpu_count() or 1,
            dask_worker.state.nthreads,
            int(threads) if threads.isdecimal() else None,
        )

    return answer


def too_many_threads(workers: Iterable[Found]) -> str:
    """What there is to say of workers whose threads have no limit, or exceed the cores; or "".

    Limits of one thread, than which there are none lower, are never too high.
    """
    hosts: dict[str, list[Found]] = {}
    for worker in workers:
        hosts.setdefault(worker.host, []).append(worker)
    for host, there in sorted(hosts.items()):
        if any(worker.call_threads is None for worker in there):
            return f"workers on {host} have no limit of threads (OMP_NUM_THREADS)"
        threads = sum(worker.job_threads * (worker.call_threads or 1) for worker in there)
        if threads > there[0].cores and any((worker.call_threads or 1) > 1 for worker in there):
            return (
                f"workers on {host} may run {threads} threads (their jobs at a time, times "
                f"OMP_NUM_THREADS), and it has {there[0].cores} cores"
            )
    return ""


def _compare(there: Collection[dict[str, str]]) -> None:
    own = versions()
    differing = {
        name: {found[name] for found in there} - {own[name]}
        for name in own
        if any(not _equal(name, own[name], found[name]) for found in there)
    }
    if differing:
        lines = [
            f"{name} {own[name]} here, {' and '.join(sorted(found))} there"
            for name, found in differing.items()
        ]
        raise ClusterError(
            f"the workers have other versions than this process: {'; '.join(lines)}. Give both "
            "the same environment (requirements.lock), or the same container image"
        )


def guard_versions(client: Client, known: Collection[str]) -> None:
    """Have workers that join later, and have other versions than this process, stop at once.

    The client says which they were. The cluster goes on with the others.

    Args:
        client: client of the cluster.
        known: addresses of workers that have been checked.
    """
    client.register_plugin(_guard(versions(), frozenset(known)), name=GUARD)
    client.subscribe_topic(REFUSED, _say)


def unguard(client: Client) -> None:
    """Take away what `guard_versions` has set up, as its scheduler outlives the client."""
    with suppress(Exception):  # the scheduler may be gone, or another client may have done it
        client.unregister_worker_plugin(GUARD)


def _guard(own: dict[str, str], known: frozenset[str]) -> WorkerPlugin:
    """A plugin that travels whole, to be read where deepprofile is another or absent."""
    python, packages, same = "python", tuple(name for name in own if name != "python"), SAME

    def found(name: str) -> str:
        if name == python:
            return platform.python_version()
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    def differs(name: str, there: str) -> bool:
        if name == "deepprofile":
            return there != own[name]
        return there.split(".")[:same] != own[name].split(".")[:same]

    class Guard(WorkerPlugin):
        async def setup(self, worker: Worker) -> None:
            if worker.address in known:
                return
            there = {name: found(name) for name in (python, *packages)}
            lines = [
                f"{name} {own[name]} expected, {text} found"
                for name, text in there.items()
                if differs(name, text)
            ]
            if lines:
                worker.log_event(REFUSED, (worker.address, "; ".join(lines)))
                await worker.close(reason="other versions: " + "; ".join(lines))

    return Guard()


def _say(event: tuple[float, tuple[str, str]]) -> None:
    address, differing = event[1]
    LOG.warning(
        "worker %s has other versions than this process and was stopped: %s. Give it the same "
        "environment (requirements.lock), or the same container image",
        address,
        differing,
    )


def _equal(name: str, own: str, other: str) -> bool:
    if name == "deepprofile":
        return own == other
    return own.split(".")[:SAME] == other.split(".")[:SAME]
