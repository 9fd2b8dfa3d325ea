"""Metrics of runs in Dask's schedulers, and the cluster in one line."""

import asyncio
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from cluster_support import dask_process, scheduler
from distributed import Client
from fault_support import threads
from operator_support import samples, scraped
from rich.console import Console

from deepprofile import events
from deepprofile.cluster.connecting import spec_of
from deepprofile.operators.cluster_line import ClusterState, elastic_range, state_of
from deepprofile.operators.metrics import Summary, SummaryHandler, attached
from deepprofile.operators.operation import operation
from deepprofile.operators.scheduler import TOPIC, WORKERS, Observer, observed
from deepprofile.progress import meter


def own_cluster():
    """A cluster of threads, with the page of metrics on a port of its own."""
    return Client(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )


def work(recipe, n_done, n_failed):
    """Events of a stage in which jobs end."""
    with events.one_run(command="run"):
        events.bind(recipe=recipe)
        events.emit("recipe read", started=1000.0)
        with events.stage("predict"):
            count = events.JobCount(n_done + n_failed + 1)
            for number in range(n_done + n_failed):
                if number < n_done:
                    count.done()
                else:
                    count.failed(f"job {number}", "OddError: odd", "")
            count.close()
            events.emit("published", pieces=n_done)
        events.emit("run finished", exit_code=2, seconds=1.0)


def counts(found, recipe):
    names = ("stage_jobs", "stage_jobs_done", "stage_jobs_failed", "stage_pieces_published")
    return [found[name, recipe, "predict"] for name in names]


def test_schedulers_of_one_process_keep_apart_and_leave_nothing():
    """One after another and side by side, as the metrics of a process have one place."""
    with own_cluster() as one, observed(one) as forwarder:
        work("first", 2, 1)
        forwarder.flush()
        assert counts(scraped(one), "first") == [4, 2, 1, 2]
        work("first", 3, 0)  # a new run of it begins at nothing
        with own_cluster() as other:
            with observed(other):
                work("second", 1, 0)
            forwarder.flush()
            for client in (one, other):
                found = scraped(client)
                assert counts(found, "first") == [4, 3, 0, 3]
                assert counts(found, "second") == [2, 1, 0, 1]
    with own_cluster() as later, observed(later):
        assert {"first", "second"}.isdisjoint(label for key in scraped(later) for label in key)


def test_a_scheduler_elsewhere_is_told_by_several_clients(tmp_path):
    """A scheduler in a process of its own: the second client finds what the first has set up."""
    where = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    summary = Summary()
    with dask_process("scheduler", *where, until="Scheduler at") as line:
        address = line.split("Scheduler at:")[1].strip()
        for recipe in ("first", "second"):
            with (
                Client(address, timeout=60) as client,
                observed(client) as forwarder,
                attached(SummaryHandler(summary)),
            ):
                work(recipe, 2, 1)
                forwarder.flush()
                found = scraped(client)
        assert counts(found, "first") == counts(found, "second") == [4, 2, 1, 2]
    summary.write(tmp_path / "m.prom")
    assert samples((tmp_path / "m.prom").read_text()) == found


KILLED = """
import sys, time
from distributed import Client
from deepprofile import events
from deepprofile.operators.scheduler import observed
with Client(sys.argv[1]) as client, observed(client) as forwarder:
    with events.one_run(command="run", recipe="first"):
        events.emit("recipe read", started=2000.0)
        with events.stage("predict"):
            events.JobCount(7)
            forwarder.flush()
            print("works", flush=True)
            time.sleep(600)
"""


def test_a_run_that_is_killed_does_not_run_for_ever():
    """The scheduler stays, and notices that the client has gone."""
    with own_cluster() as client:
        with observed(client):
            work("first", 1, 0)
        command = [sys.executable, "-c", KILLED, client.scheduler.address]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline() == "works\n"
            found = scraped(client)
            assert found["stage_running", "first", "predict"] == 1
            assert found["run_exit_code", "run", "first"] == 2  # of the run before
            begun = time.time()
        finally:
            process.kill()
            process.communicate()
        while (found := scraped(client))["stage_running", "first", "predict"]:
            assert time.time() < begun + 60
            time.sleep(0.02)
    assert found["stage_jobs", "first", "predict"] == 7
    assert found["run_started_timestamp_seconds", "run", "first"] == 2000
    assert found["run_finished_timestamp_seconds", "run", "first"] >= begun
    unknown = ("run_exit_code", "run_seconds", "stage_seconds")
    assert not [key for key in found if key[0] in unknown and "first" in key]


def test_events_that_come_after_their_client_has_gone_or_is_back():
    """What a client sent last may be read after its end; one that was cut off comes back."""
    labels = {"recipe": "first", "command": "run", "stage": "predict", "client": "c"}
    jobs = {**labels, "event": "jobs", "added": 1, "done": 0, "failed": 0}
    clients, observer = {"c": None}, Observer()
    with_clients = SimpleNamespace(clients=clients)
    asyncio.run(observer.start(with_clients))
    running = partial(observer.summary.value, "stage_running", "first", "predict")
    ended = partial(observer.summary.value, "run_finished_timestamp_seconds", "first", "run")
    for event, there, expected in (
        ({**labels, "event": "stage started"}, True, 1),
        (None, False, 0),
        (jobs, True, 1),
        (None, False, 0),
        (jobs, False, 0),
    ):
        clients.update({"c": None})
        if not there:
            del clients["c"]
        if event is None:
            observer.remove_client(with_clients, "c")
        else:
            observer.log_event(TOPIC, event)
        assert running() == expected
        assert (ended() is None) == bool(expected)
    clients.update({"d": None})
    observer.log_event(TOPIC, {**labels, "client": "d", "event": "recipe read", "started": 2.0})
    assert ended() is None
    asyncio.run(observer.close())


def test_without_prometheus_there_are_no_metrics_and_no_errors(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("prometheus_client")]:
        monkeypatch.setitem(sys.modules, name, None)
    with own_cluster() as client, observed(client) as forwarder:
        work("first", 1, 0)
        forwarder.flush()
        assert client.submit(sum, [1, 2]).result() == 3


def within(seconds, task):
    """Do a task in a thread; fail if it hangs, or with its own error."""
    outcome = Future()

    def run():
        try:
            outcome.set_result(task())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_gone_or_hangs_holds_up_no_run(monkeypatch, blow, capfd):
    """The events of the run go on; who sends them to the scheduler gives up, for good; says so."""
    monkeypatch.setattr("deepprofile.operators.scheduler.ANSWER_SECONDS", 0.5)
    summary = Summary()
    with ExitStack() as stack:
        address = stack.enter_context(scheduler())
        client = stack.enter_context(Client(address, timeout=60))
        process = client.run_on_scheduler(os.getpid)
        stack.enter_context(attached(SummaryHandler(summary)))
        observation = observed(client)
        forwarder = observation.__enter__()
        assert forwarder.sends
        os.kill(process, blow)
        try:
            within(60, lambda: work("first", 2, 1))
            within(60, forwarder.flush)
            assert not forwarder.sends
            within(60, lambda: work("second", 1, 0))
            within(60, lambda: observation.__exit__(None, None, None))
        finally:
            if blow == signal.SIGSTOP:
                os.kill(process, signal.SIGCONT)
    assert capfd.readouterr().err.count("the scheduler does not take what this run says") == 1
    jobs = summary.values["stage_jobs_done"]
    assert jobs == {("first", "predict"): 2, ("second", "predict"): 1}


def test_events_of_dasks_own_thread_do_not_wait_for_it():
    """Workers come and go while jobs are counted: the first is told in Dask's own thread."""
    ended, told = threading.Event(), queue.SimpleQueue()

    class Take(SummaryHandler):
        def emit(self, record):
            if record.event == "workers":
                told.put(record.fields["workers"])

    def change(client):
        async def often():
            number = 0
            while not ended.is_set():
                number += 1
                client.cluster.scheduler.log_event(WORKERS, number)
                await asyncio.sleep(0.002)

        asyncio.run_coroutine_threadsafe(often(), client.loop.asyncio_loop)

    def count():
        with events.one_run(command="run", recipe="first", stage="predict"):
            for _ in range(300):
                events.emit("jobs", level=logging.DEBUG, added=1, done=0, failed=0)

    def run():
        with own_cluster() as client, attached(Take(Summary())), observed(client) as forwarder:
            change(client)
            told.get(timeout=30)
            count()
            ended.set()
            forwarder.flush()
            return scraped(client)

    try:
        assert within(60, run)["stage_jobs", "first", "predict"] == 300
    finally:
        ended.set()


def test_workers_that_come_and_go_are_told(monkeypatch, capsys):
    changes = queue.Queue()

    class Take(SummaryHandler):
        def emit(self, record):
            if record.event == "workers":
                changes.put(record.fields["workers"])

    monkeypatch.setattr("deepprofile.progress.LINE_SECONDS", -1.0)
    console = events.RecordConsole(width=80)
    with own_cluster() as client, events.one_run(), attached(Take(Summary())), observed(client):
        assert events.present_workers() == ""
        while changes.empty():  # until the scheduler knows that the client wants to be told
            client.log_event(WORKERS, 1)
        client.cluster.scale(2)
        while (number := changes.get(timeout=60)) == 1:
            pass
        assert number == 2
        assert events.present_workers() == "2 workers"
        monkeypatch.setattr(console, "print", lambda text, **_: print(text))
        with meter(console, "jobs", 4) as progress:
            progress.update(1, "loss 2")
        assert "  jobs: 25 % loss 2 2 workers" in capsys.readouterr().out
        client.cluster.scale(1)
        assert changes.get(timeout=60) == 1


def test_the_link_to_the_dashboard_leads_to_it():
    pytest.importorskip("bokeh")
    with own_cluster() as client:
        state = state_of(client)
        assert state.line.startswith("1 worker, 1 thread, ")
        assert state.line.endswith(f"; dashboard {state.dashboard}")
        with urllib.request.urlopen(state.dashboard, timeout=60) as page:
            assert page.status == 200
            assert b"Dask" in page.read()


def test_without_bokeh_no_link_but_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed.dashboard.scheduler", None)
    console = Console(record=True, width=200)
    with own_cluster() as client:
        state = state_of(client)
        with (
            operation("run", Path("small.yaml"), console) as running,
            running.connected(client.scheduler.address),
        ):
            pass
    assert state.line in console.export_text()
    assert (state.dashboard, state.workers) == ("", 1)
    assert state.line.endswith('; no dashboard (pip install "deepprofile[dashboard]")')


def test_a_dashboard_that_is_switched_off_lacks_nothing():
    with threads() as client:
        assert state_of(client).line.endswith("; no dashboard")


def test_adaptive_clusters_say_what_they_may_have(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("kind: slurm\ncores: 4\nmemory: 8GiB\nadaptive: {maximum: 20}\n")
    assert elastic_range(spec_of(str(path))) == "0 to 20 batch jobs"
    path.write_text("kind: kubernetes\nimage: i\nadaptive: {minimum: 2, maximum: 5}\n")
    assert elastic_range(spec_of(str(path))) == "2 to 5 workers"
    assert not any(elastic_range(spec_of(text)) for text in ("local", "tcp://host:8786"))
    line = ClusterState(1, 4, 2**34, "", "0 to 20 batch jobs").line
    assert line.startswith("1 worker now, 0 to 20 batch jobs as needed, 4 threads, 16.00 GiB; ")
