"""A disk that is full or spoils shards, a limit on files, a clock that jumps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fault_support import (
    Driver,
    assert_nothing_is_lost,
    contents,
    expected,
    fill,
    numbers,
    stamps,
    write,
)

from deepprofile.store import CubeError, PublicationError, StoreError, open_cube
from deepprofile.store.faults import explain, takes_nothing
from deepprofile.store.messages import cause
from deepprofile.store.packing import ShardError
from deepprofile.store.repository import open_repository

HERE = Path(__file__).parent


class FillFirst(list):
    """Jobs before which the disk becomes full."""

    disk: Path

    def __iter__(self):
        fill(self.disk)
        return super().__iter__()


@pytest.mark.parametrize("moment", ["before", "jobs", "committed"])
def test_a_full_disk_is_named_and_loses_nothing(driver_client, undisturbed, small_disk, moment):
    url = str(small_disk / "cube")
    write(driver_client, url, 1)
    before, jobs = contents(url), FillFirst(stamps(2))
    jobs.disk = small_disk
    if moment == "before":
        fill(small_disk)

    def audit(_):
        if moment == "committed":
            fill(small_disk)
        return ()

    with pytest.raises(CubeError) as caught:
        write(driver_client, url, 2, jobs if moment == "jobs" else stamps(2), audit=audit)
    message = str(caught.value)
    assert message.startswith(f"{url}: ")
    assert f"the disk is full (0 B free at {url})" in message
    assert "No space left on device" in message
    assert "Make room there and run the stage again" in message
    assert contents(url) == before
    (small_disk / "ballast").unlink()
    assert_nothing_is_lost(driver_client, url, before, undisturbed)
    assert open_repository(url).list_branches() == {"main"}


def test_a_disk_that_is_full_before_there_is_a_cube_is_named(driver_client, small_disk):
    url = str(small_disk / "cube")
    fill(small_disk)
    with pytest.raises(StoreError, match=r"the disk is full \(0 B free at .*Make room there"):
        write(driver_client, url, 1)


def test_a_file_that_may_not_grow_is_named_and_loses_nothing(driver_client, undisturbed, tmp_path):
    url = str(tmp_path / "cube")
    write(driver_client, url, 1)
    before = contents(url)
    with Driver(tmp_path, url, 2, file_limit=2000) as driver:
        report = driver.error("PublicationError")
    assert "a file may not become as large as it must" in report
    assert "ulimit -f" in report
    assert_nothing_is_lost(driver_client, url, before, undisturbed)


def largest_shard(url):
    """The file of the largest shard."""
    return max(Path(url, "chunks").iterdir(), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("chunks", [None, "shard"])
@pytest.mark.parametrize("damage", ["half", "last byte", "empty", "flipped bit", "gone"])
def test_a_damaged_shard_is_an_error_and_never_wrong_values(
    driver_client, tmp_path, damage, chunks
):
    url = str(tmp_path / "cube")
    write(driver_client, url, 1)
    file = largest_shard(url)
    body = file.read_bytes()
    damaged = {
        "half": body[: len(body) // 2],
        "last byte": body[:-1],
        "empty": b"",
        "flipped bit": body[:50] + bytes([body[50] ^ 1]) + body[51:],
    }
    if damage in damaged:
        file.write_bytes(damaged[damage])
    else:
        file.unlink()
    values = open_cube(url, chunks=chunks)["soil_moisture"]
    with pytest.raises(ShardError, match=r": soil_moisture: shard \(0, 0, 0, 0\) can't") as caught:
        values.values  # noqa: B018
    assert url in str(caught.value)
    # The other shard is as it was.
    np.testing.assert_array_equal(values[32:].values, expected(1)[32:])
    write(driver_client, url, 2)
    assert numbers(url) == {2}


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler: the clock of a process can't be shifted")
    library = tmp_path_factory.mktemp("clock") / "clock_shift.so"
    source = str(HERE / "clock_shift.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), source], check=True)
    return library


SHIFTED = """
import sys
from datetime import UTC, datetime
from fault_support import threads, write
from deepprofile.store import CubeError, expire
try:
    if sys.argv[2] == "gc":
        expire(sys.argv[1], datetime.now(UTC))
    else:
        with threads() as client:
            write(client, sys.argv[1], int(sys.argv[2]))
    print("done")
except CubeError as error:
    print(type(error).__name__, error)
"""


def under_another_clock(shim, shift, url, number):
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "CLOCK_SHIFT": str(shift),
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", SHIFTED, url, str(number)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("days", [-10, 10])
def test_a_clock_that_jumped_is_named_and_loses_nothing(
    driver_client, undisturbed, shim, tmp_path, days
):
    url = str(tmp_path / "cube")
    write(driver_client, url, 1)
    before = contents(url)
    report = under_another_clock(shim, days * 86400, url, 2)
    assert report.startswith("StoreError ")
    assert url in report
    assert "the clock of this machine can't be right" in report
    assert "Set the clock" in report
    assert_nothing_is_lost(driver_client, url, before, undisturbed)


@pytest.mark.parametrize(("days", "word"), [(10, "StoreError"), (0, "done")])
def test_nothing_expires_by_a_clock_that_is_not_that_of_the_store(
    driver_client, shim, tmp_path, days, word
):
    url = tmp_path / "cube"
    for number in (1, 2):
        write(driver_client, str(url), number)
    before = sorted(url.rglob("*"))
    report = under_another_clock(shim, days * 86400, str(url), "gc")
    assert report.split()[0] == word
    assert ("Set the clock" in report) == bool(days)
    assert (sorted(url.rglob("*")) == before) == bool(days)


def test_only_the_store_can_say_that_it_takes_nothing():
    assert takes_nothing("IcechunkError: object store error (dispatch failure)")
    assert takes_nothing("IcechunkError: No space left on device (os error 28)")
    assert not takes_nothing("ConnectionError: s3://granules/x.h5: the read timed out")
    assert not takes_nothing("IcechunkError: snapshot not found")


def test_messages_of_the_store_are_told_without_their_trace():
    text = (
        "  x object store error Generic LocalFileSystem error\n  | \n  | context:\n"
        "  |    0: icechunk::store::set\n  | \n  |-> Generic LocalFileSystem error\n"
        "  `-> No space left on device (os error 28)\n"
    )
    assert cause(text) == (
        "object store error Generic LocalFileSystem error (No space left on device (os error 28))"
    )
    assert "the disk is full (" in explain("/", text)
    assert "the store failed: dispatch failure" in explain("s3://bucket/x", "dispatch failure")
    assert issubclass(StoreError, CubeError) and issubclass(PublicationError, CubeError)
