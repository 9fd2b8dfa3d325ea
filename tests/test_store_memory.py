"""The predicted memory of a job against what a new process really takes."""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import icechunk
import numpy as np
import pytest

from deepprofile.profile import Layer
from deepprofile.store import Region, Tile, Writer, job_memory, smap_l4_template
from deepprofile.store.layout import Block
from deepprofile.store.template import extend

REGION = Region((10, 11), (20, 24))
VARIABLES = {f"v{i}": "1" for i in range(39)}
LAYERS = (Layer("smap_l4", 0.0, 0.05), Layer("smap_l4", 0.0, 1.0))


def forcing_template():
    return smap_l4_template(REGION, VARIABLES, LAYERS)


def write_tiles(n_tiles):
    """Peak of the resident memory in bytes while a job holds and writes ``n_tiles`` tiles."""
    with tempfile.TemporaryDirectory() as folder:
        repository = icechunk.Repository.create(icechunk.local_filesystem_storage(folder))
        session = repository.writable_session("main")
        extend(forcing_template().create(session.store), 32)
        session.commit("structure")
        session = repository.writable_session("main")
        # The structure of the cube and most libraries are loaded. Nothing large is written yet:
        # memory that it freed would be taken again unseen.
        writer = Writer(session)
        writer.write(
            "n_steps", writer.select(Tile(10, 20), Block(0)), np.ones((32, 56, 64), np.uint8)
        )
        before = reset_peak()
        write(Writer(session), n_tiles)
        return peak() - before


def write(writer, n_tiles):
    rng = np.random.default_rng(0)
    held = [
        {
            "forcing": rng.random((32, 39, 56, 64), dtype=np.float32),
            "soil_moisture": rng.random((32, 2, 56, 64), dtype=np.float32),
            "n_steps": np.full((32, 56, 64), 8, np.uint8),
        }
        for _ in range(n_tiles)
    ]
    for column, arrays in enumerate(held, start=20):
        for name, values in arrays.items():
            writer.write(name, writer.select(Tile(10, column), Block(0)), values)


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak():
    return status("VmHWM")


def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
@pytest.mark.parametrize("n_tiles", [1, 3])
def test_the_peak_of_a_job_is_predicted(n_tiles):
    # A process of its own, for the same reason.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        measured = pool.submit(write_tiles, n_tiles).result()
    predicted = job_memory(forcing_template(), n_tiles)
    loaded = 45e6  # codecs and pools of threads that the first large array loads
    assert 0.75 * predicted < measured - loaded < 1.25 * predicted, (measured, predicted)


def test_more_threads_and_shards_take_more():
    made = forcing_template()
    shard = 32 * 56 * 64 * (41 * 4 + 1)
    assert job_memory(made, 2) - job_memory(made, 1) == shard
    assert job_memory(made, 1, threads=3) > job_memory(made, 1, threads=1)
