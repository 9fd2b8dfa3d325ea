"""Clusters of batch jobs on a real Slurm of one node."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import pytest
import yaml
from fault_support import write
from slurm_support import (
    NoSlurmError,
    Patient,
    ask,
    queue,
    slurm,
    wait_for_leave,
    wait_until,
)

from deepprofile.cluster import ENVIRONMENT, ClusterError, connect, connected, waiting
from deepprofile.cluster.process import THREADS, worker_environment
from deepprofile.store import run_jobs
from deepprofile.store.jobs import workers_of

FILE = Path(__file__).parent.parent / "cluster" / "slurm.yaml"
SCRIPT = Path(__file__).parent.parent / "deploy" / "slurm" / "deepprofile.sbatch"


@pytest.fixture(scope="module")
def daemons():
    try:
        with slurm():
            yield
    except NoSlurmError as error:
        pytest.skip(f"no Slurm: {error}")


@pytest.fixture
def spec(tmp_path):
    """Writes ``cluster/slurm.yaml`` with what this machine needs otherwise."""

    def write(**changes):
        document = yaml.safe_load(FILE.read_text())
        small = {"cores": 2, "memory": "3GiB", "log_directory": str(tmp_path / "logs")}
        document |= small | changes
        path = tmp_path / "slurm.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}))
        return path

    return write


def test_batch_jobs_come_with_work_and_go_and_what_is_cancelled_runs_again(
    daemons, spec, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for name in (*THREADS, *ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    path = spec(adaptive={"minimum": 0, "maximum": 2, "keep_idle": "5 s"})
    quick = {
        "distributed.adaptive.target-duration": "1 s",
        "distributed.deploy.lost-worker-timeout": "1 s",
    }
    with dask.config.set(quick), connected(path) as client:
        assert list(queue().values()) == ["RUNNING"]
        wait_until(lambda: not queue() and not client.nthreads(), "idle batch jobs don't go")

        assert workers_of(client)  # asks for a worker, and waits for it
        expected = worker_environment(2, 2)
        assert environment(client, [*expected]) == expected

        with ThreadPoolExecutor() as pool:
            jobs = [Patient(number, str(tmp_path)) for number in range(12)]
            running = pool.submit(run_jobs, client, wait_for_leave, jobs)
            before = wait_until(lambda: at_work(tmp_path, 2), "no second batch job at work")
            cancelled = min(before)
            ask("scancel", cancelled)
            wait_until(lambda: at_work(tmp_path, 3), "the cancelled batch job is not replaced")
            (tmp_path / "leave").touch()
            done, failed = running.result()
        assert failed == []
        assert {job.number: result[0] for job, result in done} == {n: n**2 for n in range(12)}
        assert cancelled not in {result[1] for _, result in done}
        wait_until(lambda: not queue(), "batch jobs without work don't go")


def environment(client, names):
    """Values that a worker has; the future, which would keep its worker, is let go."""
    return client.submit(lambda: {name: os.environ.get(name) for name in names}).result()


def at_work(folder, count):
    """Batch jobs in which a job has started, if there are so many."""
    found = {path.name.split("-")[1] for path in folder.glob("started-*")}
    return found if len(found) >= count else None


def test_closing_takes_all_batch_jobs_away(daemons, spec):
    client = connect(spec(adaptive=None, jobs=2))
    try:
        assert len(queue()) == 2
    finally:
        client.close()
    wait_until(lambda: not queue(), "batch jobs outlive their client")


def test_the_batch_script_is_a_driver_whose_workers_are_batch_jobs(
    daemons, spec, driver_client, tmp_path, monkeypatch
):
    url, log = str(tmp_path / "cube"), tmp_path / "log"
    write(driver_client, url, 1)
    monkeypatch.setenv("DEEPPROFILE", str(Path(sys.executable).parent / "deepprofile"))
    monkeypatch.setenv("CLUSTER", str(spec(adaptive=None, jobs=1, cores=1)))
    number = ask("sbatch", "--parsable", f"--output={log}", str(SCRIPT), "verify", url).strip()
    wait_until(lambda: not queue(), "the driver does not end, or leaves batch jobs")
    assert "Problems: none" in log.read_text()
    assert "JobState=COMPLETED" in ask("scontrol", "show", "job", number)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"queue": "nowhere"}, ["invalid partition", "-p nowhere"]),
        ({"memory": "900GiB"}, ["--mem=900G", "Requested node configuration is not available"]),
    ],
)
def test_what_slurm_would_refuse_is_said_at_once(daemons, spec, changes, words):
    with pytest.raises(ClusterError) as error:
        connect(spec(**changes))
    for word in [*words, "would not take the batch jobs", "sinfo"]:
        assert word in str(error.value)
    assert queue() == {}


def test_batch_jobs_that_stay_in_the_queue_are_told_and_taken_back(daemons, spec):
    options = ("--parsable", "--output=/dev/null", "--cpus-per-task=4")
    blocker = ask("sbatch", *options, "--wrap=sleep 600").strip()
    try:
        wait_until(lambda: queue().get(blocker) == "RUNNING", "the other's batch job does not run")
        with pytest.raises(ClusterError, match=r"no worker after .*is pending \(\w+\).*squeue"):
            connect(spec(adaptive=None, jobs=1, workers_timeout="2 s"))
        wait_until(lambda: set(queue()) == {blocker}, "a queued batch job outlives its client")
    finally:
        ask("scancel", blocker)
        wait_until(lambda: not queue(), "batch jobs don't end")


def test_batch_jobs_that_end_before_they_work_are_not_waited_for(
    daemons, spec, tmp_path, monkeypatch
):
    monkeypatch.setattr(waiting, "HOPELESS_SECONDS", 1.0)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.5)
    with pytest.raises(ClusterError, match=r"batch jobs? \d+ ha(s|ve) ended.*logs"):
        connect(spec(adaptive=None, jobs=1, prologue=["exit 3"]))


def test_a_machine_without_slurm_says_where_to_run(spec, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"command sbatch, which is not here.*login node"):
        connect(spec())
