"""Drivers and workers that die on the way, and the run that follows."""

import shutil
import signal
from contextlib import contextmanager

import dask
import pytest
from distributed import Client, LocalCluster
from fault_support import (
    PATIENCE,
    POINTS,
    Driver,
    contents,
    context,
    missing,
    numbers,
    stamps,
    work,
    write,
)

from deepprofile.store import CubeError, PublicationError
from deepprofile.store.repository import open_repository


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_driver_leaves_the_old_or_the_new_and_the_next_run_completes(
    driver_client, undisturbed, tmp_path, point
):
    url = str(tmp_path / "cube")
    write(driver_client, url, 1)
    before = contents(url)
    with Driver(tmp_path, url, 2, point, "die") as driver:
        assert driver.end() == (-signal.SIGKILL, "")
    # The lock of the dead has gone with it; what it left disturbs nobody.
    assert contents(url) == (undisturbed if point == "published" else before)
    to_do = missing(url, 2)
    assert len(to_do) == (0 if point == "published" else 2)
    write(driver_client, url, 2, to_do)
    assert contents(url) == undisturbed
    assert open_repository(url).list_branches() == {"main"}


def test_a_driver_killed_at_the_creation_of_a_cube_is_replaced(
    driver_client, undisturbed, tmp_path
):
    url = str(tmp_path / "cube")
    with Driver(tmp_path, url, 1, "before", "die") as driver:
        assert driver.end()[0] == -signal.SIGKILL
    assert missing(url, 1) == stamps(1)
    write(driver_client, url, 1)
    write(driver_client, url, 2)
    assert contents(url) == undisturbed


FIRST = "1CECHNKREP0F1RSTCMT0"


def remains(url, complete, kept):
    """What a creation, or somebody who deletes, may leave of a repository."""
    for name in kept:
        (url / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (complete / name).is_dir() else shutil.copy
        copy(complete / name, url / name)


@pytest.mark.parametrize("kept", [(), (f"snapshots/{FIRST}",)])
def test_a_creation_cut_short_at_any_file_is_completed(driver_client, tmp_path, kept):
    complete, url = tmp_path / "complete", tmp_path / "cube"
    write(driver_client, complete, 1)
    remains(url, complete, kept)
    write(driver_client, url, 1)
    assert contents(url) == contents(complete)


@pytest.mark.parametrize("kept", [("snapshots",), (f"snapshots/{FIRST}", "manifests")])
def test_what_is_left_of_a_damaged_cube_is_not_taken_for_a_creation(driver_client, tmp_path, kept):
    complete, url = tmp_path / "complete", tmp_path / "cube"
    write(driver_client, complete, 1)
    remains(url, complete, kept)
    before = sorted(url.rglob("*"))
    with pytest.raises(CubeError, match="clean prefixes"):
        write(driver_client, url, 1)
    assert sorted(url.rglob("*")) == before


def test_a_worker_killed_in_mid_write_is_replaced(client, undisturbed, tmp_path):
    url = str(tmp_path / "cube")
    write(client, url, 1)
    marker = tmp_path / "died"
    outcome = write(client, url, 2, stamps(2, stop="die once", marker=str(marker)))
    assert marker.exists()
    assert outcome.failed == []
    assert contents(url) == undisturbed


@contextmanager
def _workers(address, count, folder):
    """Worker processes that nobody starts again."""
    started = [
        context.Process(target=work, args=(address, str(folder / f"worker-{i}")))
        for i in range(count)
    ]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def test_without_a_nanny_the_other_worker_does_the_rest(undisturbed, tmp_path):
    url, marker = str(tmp_path / "cube"), tmp_path / "died"
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as alone,
        _workers(cluster.scheduler_address, 2, tmp_path) as workers,
    ):
        alone.wait_for_workers(2, timeout=PATIENCE)
        write(alone, url, 1)
        outcome = write(alone, url, 2, stamps(2, stop="die once", marker=str(marker)))
        assert outcome.failed == []
        assert contents(url) == undisturbed
        assert sorted(worker.is_alive() for worker in workers) == [False, True]


def test_a_run_that_has_lost_all_its_workers_ends(tmp_path, client):
    url = str(tmp_path / "cube")
    timeout = {"distributed.scheduler.no-workers-timeout": "1 s"}
    with (
        dask.config.set(timeout),
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as alone,
        _workers(cluster.scheduler_address, 1, tmp_path),
    ):
        alone.wait_for_workers(1, timeout=PATIENCE)
        with pytest.raises(PublicationError, match=r"(?s)all 1 jobs failed.*NoWorkerError"):
            write(alone, url, 1, stamps(1, stop="die")[1:])
    write(client, url, 1, missing(url, 1))
    assert numbers(url) == {1}
