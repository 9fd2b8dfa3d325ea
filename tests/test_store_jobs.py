import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client

from deepprofile.store import JobError, Need, check_memory, run_jobs
from deepprofile.store.jobs import workers_of


@dataclass(frozen=True)
class Number:
    value: int
    fault: str = ""
    marker: str = ""
    ballast: bytes = b""

    @property
    def key(self):
        return f"number {self.value}"


def square(job, offset=0):
    if job.fault == "always":
        raise ZeroDivisionError(f"no {job.value}")
    if job.fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.fault == "once" and not Path(job.marker).exists():
        Path(job.marker).touch()
        raise OSError("first time")
    return job.value**2 + offset


def results(done):
    return {job.value: result for job, result in done}


def test_all_jobs_run_and_arguments_are_passed(client):
    steps = []
    done, failed = run_jobs(
        client,
        square,
        [Number(i) for i in range(20)],
        args=(1,),
        on_done=lambda *n: steps.append(n),
    )
    assert results(done) == {i: i * i + 1 for i in range(20)}
    assert failed == []
    assert steps == [(i + 1, 20) for i in range(20)]


def test_no_jobs_are_no_work(client):
    assert run_jobs(client, square, []) == ([], [])


def test_a_job_that_raises_once_is_tried_again(client, tmp_path):
    marker = tmp_path / "tried"
    done, failed = run_jobs(client, square, [Number(3, "once", str(marker)), Number(4)])
    assert marker.exists()
    assert results(done) == {3: 9, 4: 16}
    assert failed == []


def test_a_job_that_always_raises_is_recorded_and_the_rest_runs(client):
    jobs = [Number(i, "always" if i == 2 else "") for i in range(8)]
    done, failed = run_jobs(client, square, jobs, window=3)
    assert sorted(results(done)) == [0, 1, 3, 4, 5, 6, 7]
    assert [failure.job.value for failure in failed] == [2]
    assert failed[0].error == "ZeroDivisionError: no 2"
    assert "square" in failed[0].traceback


def test_a_job_that_kills_its_worker_is_recorded_and_the_rest_runs(client):
    jobs = [Number(i, "kill" if i == 1 else "") for i in range(6)]
    done, failed = run_jobs(client, square, jobs)
    assert sorted(results(done)) == [0, 2, 3, 4, 5]
    assert [failure.job.value for failure in failed] == [1]
    assert failed[0].error.startswith("KilledWorker")


def test_no_more_jobs_than_the_window_are_in_flight(client, monkeypatch):
    submitted, ended = [], []
    submit = client.map
    monkeypatch.setattr(
        client,
        "map",
        lambda f, jobs, **keys: submitted.extend(jobs) or submit(f, jobs, **keys),
    )

    def count(*_):
        ended.append(len(submitted) - len(ended) - 1)

    run_jobs(client, square, [Number(i) for i in range(12)], window=4, on_done=count)
    assert len(submitted) == 12
    assert max(ended) <= 4


def test_large_jobs_are_refused_before_any_runs(client, monkeypatch):
    monkeypatch.setattr(client, "map", lambda *_, **__: pytest.fail("a job was submitted"))
    with pytest.raises(JobError, match=r"number 1 takes .* through the scheduler"):
        run_jobs(client, square, [Number(0), Number(1, ballast=bytes(2_000_000))])
    with pytest.raises(JobError, match="number 0 takes"):
        run_jobs(client, square, [Number(0)], args=(bytes(2_000_000),))


def test_keys_must_be_unique(client):
    with pytest.raises(JobError, match="number 5"):
        run_jobs(client, square, [Number(5), Number(5)])


def test_an_interrupted_driver_leaves_no_jobs_behind(client):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(client, square, [Number(i) for i in range(30)], on_done=stop)
    done, _ = run_jobs(client, square, [Number(7)])
    assert results(done) == {7: 49}


def test_jobs_that_cannot_fit_are_refused(client):
    check_memory(client, [Need("rounding", 1_000_000)])
    with pytest.raises(JobError, match=r"too little: rounding needs") as error:
        check_memory(client, [Need("rounding", 1 << 50), Need("reading", 1), Need("more", 1 << 51)])
    assert "; more needs" in str(error.value) and "reading" not in str(error.value)


def test_the_memory_of_a_worker_counts_once_whatever_its_threads():
    options = {"memory_limit": "4GiB", "processes": False, "dashboard_address": None}
    with Client(n_workers=1, threads_per_worker=4, **options) as client:
        check_memory(client, [Need("rounding", 2**29, 2**31)])
        with pytest.raises(JobError) as error:
            check_memory(client, [Need("rounding", 2**29, 5 * 2**29)])
        (address,) = client.nthreads()
        for words in (
            f"worker {address} has 4.3 GB of memory, which is too little",
            "rounding needs 4.8 GB, that is 2.7 GB for the worker and 537 MB for each of 4 jobs",
            "memory_limit (of kubernetes memory) and threads_per_worker",
        ):
            assert words in str(error.value)
        check_memory(client, [Need("training", 2**29, 5 * 2**29, 3)])
        with pytest.raises(JobError, match=r"for each of 3 jobs at once"):
            check_memory(client, [Need("training", 2**29, 6 * 2**29, 3)])


def test_workers_are_known_whatever_the_client_asks_meanwhile(client, monkeypatch):
    """The client's own refresh, every two seconds, leaves the totals alone in its memory."""
    client.sync(client._update_scheduler_info)

    async def refreshed(n_workers=0):
        pass

    monkeypatch.setattr(client, "_update_scheduler_info", refreshed)
    assert not client.scheduler_info(n_workers=-1)["workers"]
    assert len(workers_of(client)) == 2


def kill_after(job, folder):
    """End well, job 5 after the driver has had a result of another one."""
    wait_until(lambda: job.value != 5 or Path(folder, "had").exists())
    runs = Path(folder) / f"{job.value}"
    again = runs.exists()
    runs.touch()
    if again and job.fault == "again":
        raise OSError("second time")
    return job.value, os.getpid()


@pytest.mark.parametrize("fault", ["", "again"])
def test_results_that_die_with_their_worker_are_computed_again(client, tmp_path, fault):
    """The driver is slow; meanwhile the worker that holds a result is killed."""
    jobs = [Number(i, fault if i == 5 else "") for i in range(6)]  # all in flight at once
    killed = []

    def slow(n, _):
        if n == 1:
            (tmp_path / "had").touch()
            wait_until(lambda: len(list(tmp_path.iterdir())) == len(jobs) + 1)
            wait_until(lambda: not any(client.processing().values()))  # the scheduler knows
            held = client.run(lambda dask_worker: list(dask_worker.data.values()))
            address = next(a for a, values in held.items() if 5 in [v[0] for v in values])
            killed.append(address)
            with suppress(OSError):
                client.run(lambda: os.kill(os.getpid(), signal.SIGKILL), workers=[address])

    done, failed = run_jobs(
        client, kill_after, jobs, args=(str(tmp_path),), on_done=slow, retries=0
    )
    assert killed
    assert {job.value for job, _ in done} | {f.job.value for f in failed} == set(range(6))
    wrong = [(5, "OSError: second time")] if fault else []
    assert [(f.job.value, f.error) for f in failed] == wrong


def wait_until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
