"""A tiny cube whose values name the publication that wrote them, and drivers that die or wait."""

import asyncio
import json
import multiprocessing
import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distributed import Client, Worker

from deepprofile.profile import Layer
from deepprofile.store import (
    Block,
    Region,
    SinglePiece,
    Writer,
    done_jobs,
    open_cube,
    publish,
    soil_moisture_template,
)
from deepprofile.store.layout import blocks

REGION = Region((28, 29), (60, 61))  # one tile, 56 x 16 cells
LAYERS = (Layer("era5_land", 0.0, 0.07),)
N_DAYS = 40
POINTS = ("before", "jobs", "written", "committed", "published")
"""Where a driver may be stopped: before its jobs, in the second of them, when all are written, when
they are committed, when they are published and it has not said so yet."""
PAUSE = 0.1
"""Seconds that a reader rests after each reading: several readings for each publication."""
PATIENCE = 120.0
"""Seconds after which a test gives up waiting for another process; never reached if all is well."""

NO_DASHBOARD = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
"""Options of a cluster that serves no pages: those take time to import, and a port."""
context = multiprocessing.get_context("forkserver")
STAGES = ("ingest", "collocate", "sample", "train", "predict")
MODULES = ["distributed", "s3fs", "one_thread", *(f"deepprofile.stages.{s}" for s in STAGES)]
"""What other processes have imported before they start."""
context.set_forkserver_preload(MODULES)


@dataclass(frozen=True)
class Stamp(SinglePiece):
    """Writes a block with values that name a publication."""

    block: Block
    number: int
    stop: str = ""
    marker: str = ""

    @property
    def key(self):
        return f"block {self.block.index}"

    @property
    def fingerprint(self):
        return f"number {self.number}"


def stamps(number, **options):
    return [Stamp(block, number, **options) for block in blocks(0, N_DAYS)]


def expected(number):
    """Soil moisture of a cube that a publication has written as a whole."""
    pattern = np.random.default_rng(0).integers(0, 8, (N_DAYS, *REGION.shape))
    return ((number * 8 + pattern) / np.float32(4096)).astype(np.float32)[:, None]


def write_stamp(writer: Writer, job: Stamp) -> int:
    selection = writer.select(block=job.block)
    writer.write("soil_moisture", selection, expected(job.number)[selection["time"]])
    if job.block.index == 1:
        stop_at(job.stop, job.marker)
    days = selection["time"].stop - selection["time"].start
    steps = np.full((days, *REGION.shape), job.number, dtype=np.uint8)
    writer.write("n_steps", selection, steps)
    return job.number


def stop_at(stop, marker):
    """Die, die once, or wait until the marker is there."""
    if stop == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if stop == "die once" and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if stop == "wait":
        Path(marker).with_suffix(".waiting").touch()
        wait_for(Path(marker))


def wait_for(path):
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not appear")
        time.sleep(0.005)


def threads():
    """A cluster of threads in this process, which costs no time to start."""
    return Client(n_workers=1, threads_per_worker=2, processes=False, **NO_DASHBOARD)


def template():
    return soil_moisture_template("era5_land", REGION, LAYERS)


def write(client, url, number, work=None, **options):
    return publish(
        url,
        template(),
        N_DAYS,
        write_stamp,
        stamps(number) if work is None else work,
        client=client,
        message=f"number {number}",
        metadata={"stage": "ingest"},
        **options,
    )


def missing(url, number):
    """What a run finds to do, as stages do."""
    done = done_jobs(url, "ingest")
    return [job for job in stamps(number) if done.get(job.key) != job.fingerprint]


def numbers(url, **options):
    """Numbers of the publications that the cube shows; one, if nothing is mixed."""
    cube = open_cube(url, chunks=None, **options)
    found = np.floor(cube["soil_moisture"].values * 4096 / 8).astype(int)
    return {int(n) for n in np.unique(found)} | {int(n) for n in np.unique(cube["n_steps"].values)}


def contents(url, **options):
    """All values of a cube, for comparison bit by bit."""
    cube = open_cube(url, chunks=None, **options)
    return {str(name): cube[name].values.tobytes() for name in cube.variables}


def assert_nothing_is_lost(client, url, before, undisturbed):
    """The cube is as it was before a failure, and what a run finds to do completes number 2."""
    assert contents(url) == before
    write(client, url, 2, missing(url, 2))
    assert contents(url) == undisturbed


class _StopBefore(list):
    """Jobs that stop their driver when it comes to them."""

    def __init__(self, jobs, stop, marker):
        super().__init__(jobs)
        self.how = (stop, marker)

    def __iter__(self):
        stop_at(*self.how)
        return super().__iter__()


def drive(url, number, point, stop, marker, environment, report, file_limit):
    """A driver process: publish all blocks, and stop at a point on the way.

    Args:
        url: the cube.
        number: of the publication.
        point: one of POINTS, or nothing.
        stop: what happens there, see `stop_at`.
        marker: see `stop_at`.
        environment: variables to set.
        report: a file that gets ``published``, or the type and message of the error.
        file_limit: bytes that a file may have, or None.
    """
    os.environ.update(environment)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    work = stamps(number, **({"stop": stop, "marker": marker} if point == "jobs" else {}))
    if point == "before":
        work = _StopBefore(work, stop, marker)

    def on_progress(done, of):
        if point == "written" and done == of:
            stop_at(stop, marker)

    def audit(_):
        if point == "committed":
            stop_at(stop, marker)
        return ()

    try:
        with threads() as client:
            write(client, url, number, work, on_progress=on_progress, audit=audit)
            if point == "published":
                stop_at(stop, marker)
        text = "published"
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    Path(report).write_text(text)


class Driver:
    """A driver in a process of its own; its end is awaited at the end of the ``with`` block."""

    def __init__(self, folder, url, number, point="", stop="", file_limit=None):
        self.marker = Path(folder) / f"go-{number}"
        self.report = Path(folder) / f"report-{number}"
        names = [name for name in os.environ if name.startswith("AWS_")]
        known = {name: os.environ[name] for name in names}
        files = (str(self.marker), known, str(self.report))
        arguments = (url, number, point, stop, *files, file_limit)
        self.process = context.Process(target=drive, args=arguments)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.marker.touch()
        self.end()

    def wait_until_it_waits(self):
        wait_for(self.marker.with_suffix(".waiting"))

    def end(self):
        """Exit code and report."""
        self.marker.touch()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        text = self.report.read_text() if self.report.exists() else ""
        return self.process.exitcode, text

    def error(self, name):
        """The report of a driver that ended in order, with an error of this type."""
        code, report = self.end()
        assert code == 0
        assert report.startswith(f"{name}: ")
        return report


def fill(disk):
    """Write until nothing more fits."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == 28


def work(address, folder):
    """A worker process without a nanny."""

    async def run():
        async with Worker(address, nthreads=1, local_directory=folder) as worker:
            await worker.finished()

    asyncio.run(run())


def read_forever(url, folder, environment):
    """A reader process: open and read again and again, until told to stop.

    Each line of the file ``reads`` in the folder is a pair: the numbers that one reading showed,
    and those of the cube that was opened first and is held open all the time.
    """
    os.environ.update(environment)
    held = open_cube(url)["n_steps"]
    with (Path(folder) / "reads").open("w") as file:
        while not (Path(folder) / "stop").exists():
            before = {int(n) for n in np.unique(held.values)}
            print(json.dumps([sorted(numbers(url)), sorted(before)]), file=file, flush=True)
            time.sleep(PAUSE)


def wait_for_a_read(folder, number):
    """Wait until the reader has seen a publication, and it alone."""
    path, end = Path(folder) / "reads", time.monotonic() + PATIENCE
    wait_for(path)
    while not (lines := path.read_text().splitlines()) or f"[[{number}]," not in lines[-1]:
        if time.monotonic() > end:
            raise TimeoutError(f"the reader does not see {number}; the last it saw: {lines[-1:]}")
        time.sleep(0.02)
