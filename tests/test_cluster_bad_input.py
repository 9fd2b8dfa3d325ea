"""Clusters that can't do the work: stopped before any is done, with what to do."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
import torch
import yaml
from cluster_support import dask_process
from cluster_support import scheduler as scheduler_process
from cluster_support import worker as worker_process
from distributed import Client, LocalCluster
from distributed.core import Status
from rich.console import Console
from test_stage_devices import DEMO

from deepprofile.cluster import ClusterError, batch_jobs, connect, connected, waiting
from deepprofile.cluster.base import Outlook, OwningClient, PatientClient
from deepprofile.cluster.batch_jobs import look
from deepprofile.cluster.checks import guard_versions
from deepprofile.cluster.connecting import read_spec
from deepprofile.cluster.remote import AddressSpec
from deepprofile.events import LOGGER, records_for_lines
from deepprofile.recipe import load_recipe
from deepprofile.stages import Context, StageError, chain
from deepprofile.store import JobError, run_jobs


@pytest.fixture(scope="module")
def scheduler():
    """Starts a scheduler in this process, with a worker or without; others may join it."""
    started = []

    def start(**options):
        chosen = {"n_workers": 1, "threads_per_worker": 1, **options}
        fixed = {"processes": False, "protocol": "tcp", "dashboard_address": "127.0.0.1:0"}
        started.append(LocalCluster(**chosen, **fixed))
        return started[-1].scheduler_address

    yield start
    for cluster in started:
        cluster.close()


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr("deepprofile.cluster.remote.CONNECT_SECONDS", 1)
    with pytest.raises(ClusterError) as error:
        connect("tcp://127.0.0.1:1")
    for words in ("tcp://127.0.0.1:1", "Start one with `dask scheduler`", "'local'"):
        assert words in str(error.value)


def test_a_scheduler_without_workers_is_waited_for_as_long_as_its_file_says(
    scheduler, tmp_path, capsys
):
    address = scheduler(n_workers=0)
    path = tmp_path / "cluster.yaml"
    document = {"kind": "address", "address": address, "workers_timeout": "0.2 s"}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ClusterError) as error:
        connect(path)
    for words in ("no worker after", f"`dask worker {address}`", "workers_timeout"):
        assert words in str(error.value)
    assert "waiting for the first worker: none has joined yet" in capsys.readouterr().err


@pytest.mark.parametrize("records", [False, True])
def test_who_waits_says_what_changes_and_does_not_ask_too_often(
    scheduler, monkeypatch, capsys, records
):
    events, handler = [], logging.Handler()
    handler.emit = lambda record: events.append(record.getMessage())
    monkeypatch.setattr(LOGGER, "handlers", [handler])
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    asked = []

    def outlook():
        asked.append(f"look {len(asked) // 2}")
        return Outlook(asked[-1])

    with PatientClient(scheduler(n_workers=0)) as client:
        client.outlook, client.workers_timeout = outlook, 0.2
        with pytest.raises(ClusterError):
            waiting.await_worker(client)
        assert len(asked) == 2  # once while it waited, once for the error
        asked.clear()
        monkeypatch.setattr(waiting, "LOOK_SECONDS", -1.0)
        context = records_for_lines() if records else nullcontext()
        with context, pytest.raises(ClusterError):
            waiting.await_worker(client)
    expected = [f"waiting for the first worker: {text}" for text in dict.fromkeys(asked[:-1])]
    assert events[1:] == expected and len(expected) > 1
    said = capsys.readouterr().err.splitlines()[1:]
    assert said == ([] if records else expected)


def test_batch_jobs_that_are_being_submitted_are_no_lost_hope():
    job = SimpleNamespace(job_id=None)
    assert not look(SimpleNamespace(worker_spec={"a": {}}, workers={}), "logs").hopeless
    assert look(SimpleNamespace(worker_spec={"a": {}}, workers={"a": job}), "logs").hopeless


def test_a_joined_scheduler_keeps_nothing_of_ours(scheduler, capsys):
    with dask.config.set({"distributed.scheduler.no-workers-timeout": "10 minutes"}):
        address = scheduler()
    with connect(address):
        pass
    assert "NO_WORKERS_TIMEOUT" not in capsys.readouterr().err
    with Client(address) as client:
        left = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
        assert [name for name in left if "deepprofile" in name] == []


def test_a_client_that_fails_to_close_stops_its_cluster(monkeypatch):
    options = {"n_workers": 0, "processes": False, "dashboard_address": "127.0.0.1:0"}
    client = OwningClient(LocalCluster(**options))
    cluster = client.cluster

    def fail(self):
        monkeypatch.undo()
        Client.close(self)
        raise TimeoutError("slow")

    monkeypatch.setattr(PatientClient, "close", fail)
    with pytest.raises(TimeoutError, match="slow"):
        client.close()
    assert cluster.status is Status.closed


def test_a_cluster_that_is_slow_to_stop_is_waited_for_once(monkeypatch):
    """Python's end would close a client again that has not closed, and wait for a minute."""
    asked = []

    async def slow(**_):
        asked.append("close")
        raise TimeoutError("slow")

    client = Client(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")
    monkeypatch.setattr("deepprofile.cluster.connecting.connect", lambda spec: client)
    with monkeypatch.context() as patch:
        patch.setattr(client, "_close", slow)
        with connected():
            pass
        client.close()
    assert asked == ["close"]
    client.status = "running"
    client.close()


def test_an_error_at_the_start_is_not_hidden_by_one_of_closing(scheduler, monkeypatch):
    class Failing(PatientClient):
        def close(self):
            running = self.status == "running"
            super().close()
            if running:
                raise TimeoutError("slow")

    def refuse(client):
        raise ClusterError("the workers are no good")

    monkeypatch.setattr("deepprofile.cluster.remote._JoinedClient", Failing)
    with pytest.raises(ClusterError, match="no good"):
        AddressSpec(kind="address", address=scheduler()).connect(refuse)


@pytest.mark.parametrize("text", ["soon", "0 s", "-1 minute"])
def test_a_time_that_is_none_is_explained(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_text(f"kind: local\nworkers_timeout: {text}\n")
    with pytest.raises(ClusterError, match=f"workers_timeout: found '{text}', expected a time"):
        connect(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("stage", "section", "without"),
    [
        ("train", "training", "to auto or cpu"),
        ("predict", "predict", "auto or cpu, and to float32"),
    ],
)
def test_a_recipe_for_gpus_names_the_workers_and_the_ways_out(scheduler, stage, section, without):
    with connect(scheduler()) as client:
        recipe = load_recipe(DEMO)
        asked = getattr(recipe, section).model_copy(update={"device": "cuda"})
        recipe = recipe.model_copy(update={section: asked})
        (worker,) = client.nthreads()
        with pytest.raises(StageError) as error:
            chain.run([stage], Context(recipe, client, Console(record=True)))
    for words in (f"{section}.device cuda", worker, os.uname().nodename, without, "gpu.yaml"):
        assert words in str(error.value)


def test_workers_too_small_for_the_plan_are_named_with_what_it_needs(scheduler):
    with connect(scheduler(memory_limit="200 MB")) as client:
        (worker,) = client.nthreads()
        with pytest.raises(JobError) as error:
            chain.run(["ingest"], Context(load_recipe(DEMO), client, Console(record=True)))
    for words in (
        "ingest needs",
        "for its job",
        worker,
        "200 MB",
        "--memory-limit",
        "fewer threads",
    ):
        assert words in str(error.value)


def test_a_worker_with_other_versions_that_comes_later_is_sent_away(scheduler, tmp_path, caplog):
    """It finds the data of another release of a package before the true one."""
    folder = tmp_path / "xarray-2020.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: xarray\nVersion: 2020.1.0\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    address = scheduler()
    with connect(address) as client, caplog.at_level(logging.WARNING, "deepprofile.cluster"):
        own = set(client.nthreads())
        options = (address, "--no-dashboard", "--nthreads", "1")
        with dask_process("worker", *options, until="Reason: other versions", env=env):
            client.wait_for_workers(1)
            done, failed = run_jobs(client, worker_of, [Named(str(i)) for i in range(8)])
        assert not failed
        assert {where for _, where in done} == own
        assert f"xarray {version('xarray')} expected, 2020.1.0 found" in caplog.text
    with connect(address) as later:  # the guard has gone with its client
        assert set(later.nthreads()) == own


def test_batch_jobs_of_other_versions_are_not_submitted_for_ever(tmp_path, monkeypatch, caplog):
    """They are processes of this machine here; the second takes the place of the first."""
    module = pytest.importorskip("dask_jobqueue.local")

    class Job(module.LocalJob):
        async def _submit_job(self, script):
            command = Path(script).read_text().split()
            submitted.append(command)
            return str(subprocess.Popen(command, stderr=subprocess.DEVNULL).pid)

    class Cluster(module.LocalCluster):
        job_cls = Job

    monkeypatch.setattr(batch_jobs, "REFUSED_JOBS", 2)
    submitted = []
    folder = tmp_path / "xarray-2020.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: xarray\nVersion: 2020.1.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = {"cores": 1, "memory": "1GB", "nanny": False}
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10 ms"}),
        batch_jobs.replacing(Cluster)(**options) as cluster,
        Client(cluster) as client,
        caplog.at_level(logging.WARNING, "deepprofile.cluster"),
    ):
        guard_versions(client, [])
        cluster.scale(jobs=1)
        end = time.monotonic() + 120
        while "2 batch jobs had workers with other versions" not in caplog.text:
            assert time.monotonic() < end, caplog.text
            time.sleep(0.05)
        time.sleep(0.1)  # ten times the timeout, after which one of them would be forgotten
        cluster.sync(cluster._correct_state)
        assert len(submitted) == 2


class Named:
    def __init__(self, key):
        self.key = key


def worker_of(job):
    from distributed import get_worker

    return get_worker().address


def test_a_scheduler_that_is_lost_in_mid_run_is_named():
    with (
        scheduler_process() as address,
        worker_process(address),
        pytest.raises(ClusterError) as error,
        connected(address) as client,
    ):
        client.run_on_scheduler(lambda: os.kill(os.getpid(), signal.SIGKILL))
    for words in ("scheduler of the cluster was lost", "stays", "same command: it goes on"):
        assert words in str(error.value)


def test_no_library_of_a_cluster_takes_ctrl_c_for_itself():
    """dask-jobqueue does as it is imported: a run would end with exit code 0."""
    program = (
        "import signal\n"
        "from deepprofile.cluster.base import extra_module\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "extra_module('dask_jobqueue', 'slurm', '')\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_certificates_lie_beside_the_cluster_file(tmp_path):
    path = tmp_path / "cluster.yaml"
    names = {"ca_file": "ca.pem", "cert": "sub/own.pem", "key": str(tmp_path / "key.pem")}
    address = "tls://127.0.0.1:1"
    path.write_text(yaml.safe_dump({"kind": "address", "address": address, "tls": names}))
    tls = read_spec(path).tls
    assert tls.ca_file == str(tmp_path / "ca.pem")
    assert tls.cert == str(tmp_path / "sub/own.pem")
    assert tls.key == str(tmp_path / "key.pem")
    with pytest.raises(ClusterError, match=f"there is no file {tmp_path}/ca.pem"):
        connect(path)
