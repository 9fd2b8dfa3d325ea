"""Workers that are cut off from their scheduler in mid-work: they stay away, or come back."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_support import dask_process
from fault_support import PATIENCE, contents, stamps, stop_at, wait_for, write
from network_support import NoNetworkError, machines, worker_on

from deepprofile.cluster import connect
from deepprofile.store import run_jobs
from deepprofile.store.repository import open_repository

QUICK = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1s",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "PYTHONPATH": str(Path(__file__).parent),
}
"""Silence is taken for death after seconds, for which Dask's own settings wait half a minute."""
HELD = 1.5
"""Seconds of a short break, in which each worker sends several times."""


@pytest.fixture(scope="module")
def apart():
    """A client of a scheduler here, and by its address the machine of each of two workers."""
    env = os.environ | QUICK
    with ExitStack() as stack:
        try:
            made = stack.enter_context(machines(2))
        except NoNetworkError as error:
            pytest.skip(f"no network namespaces: {error}")
        options = ("--host", "0.0.0.0", "--port", "0", "--no-dashboard")
        line = stack.enter_context(
            dask_process("scheduler", *options, until="Scheduler at", env=env)
        )
        port = line.strip().rpartition(":")[2]
        for machine in made:
            stack.enter_context(worker_on(machine, f"tcp://{machine.gateway}:{port}", env))
        client = stack.enter_context(connect(f"tcp://127.0.0.1:{port}"))
        yield client, {machine.address: machine for machine in made}


@pytest.fixture
def client(apart):
    """The client, with both workers there."""
    connected, known = apart
    for machine in known.values():
        machine.plug_in()
    connected.wait_for_workers(2, timeout=PATIENCE)
    return connected


def host(address):
    return address.split("//")[1].split(":")[0]


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "what was waited for has not come"
        time.sleep(0.05)
    return found


def the_busy_one(client):
    """Address of the worker that has work, when the other has none any more."""

    def one():
        busy = [address for address, keys in client.processing().items() if keys]
        return busy if len(busy) == 1 else None

    (found,) = wait_until(one)
    return found


def test_a_publication_ends_without_the_worker_that_was_cut_off(
    apart, client, undisturbed, tmp_path
):
    """The one that is cut off goes on, and writes as well, when nobody waits for it any more."""
    url, marker = str(tmp_path / "cube"), tmp_path / "go"
    write(client, url, 1)
    with ThreadPoolExecutor() as pool:
        work = stamps(2, stop="wait", marker=str(marker))
        running = pool.submit(write, client, url, 2, work)
        wait_for(marker.with_suffix(".waiting"))
        busy = the_busy_one(client)
        apart[1][host(busy)].pull_out()
        marker.touch()
        outcome = running.result(PATIENCE)
    assert outcome.failed == []
    assert contents(url) == undisturbed
    messages = [entry.message for entry in open_repository(url).ancestry(branch="main")]
    assert messages.count("number 2") == 1
    assert [host(address) for address in client.nthreads()] != [host(busy)]


@dataclass(frozen=True)
class Call:
    """A job that waits for leave."""

    number: int
    marker: str

    @property
    def key(self):
        return f"call {self.number}"


def answer(job):
    stop_at("wait", f"{job.marker}-{job.number}")
    return job.number**2


@contextmanager
def cut_off_at_work(apart, client, folder):
    """Workers that are cut off while they hold jobs; the jobs have leave to end meanwhile.

    Yields the machines and what gives leave. When the machines are plugged in again all jobs must
    be done, each once.
    """
    marker = str(folder / "call")
    jobs = [Call(number, marker) for number in range(6)]
    machines = list(apart[1].values())

    def give_leave():
        for job in jobs:
            Path(f"{marker}-{job.number}").touch()

    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_jobs, client, answer, jobs)
        for number in (0, 1):
            wait_for(Path(f"{marker}-{number}.waiting"))
        for machine in machines:
            machine.pull_out()
        yield machines, give_leave
        for machine in machines:
            machine.plug_in()
        done, failed = running.result(PATIENCE)
    assert failed == []
    assert {job.number: result for job, result in done} == {n: n**2 for n in range(6)}


def test_jobs_of_workers_that_come_back_are_done(apart, client, tmp_path):
    """All are cut off, and work on; none of what they had is known to anybody when they return."""
    with cut_off_at_work(apart, client, tmp_path) as (_, give_leave):
        wait_until(lambda: not client.nthreads())
        give_leave()


def test_a_short_break_changes_nothing(apart, client, tmp_path):
    with cut_off_at_work(apart, client, tmp_path) as (machines, give_leave):
        lost = {machine: machine.sent_again() for machine in machines}
        give_leave()
        time.sleep(HELD)
        wait_until(lambda: all(machine.sent_again() > before for machine, before in lost.items()))
