"""Clusters that can't do the work: stopped before any is done, with what to do."""

import logging
import os
from importlib.metadata import version

import pytest
import torch
import yaml
from cluster_support import dask_process
from distributed import LocalCluster
from rich.console import Console
from test_stage_devices import DEMO

from deepprofile.cluster import ClusterError, connect
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


def test_a_scheduler_without_workers_is_waited_for_as_long_as_its_file_says(scheduler, tmp_path):
    address = scheduler(n_workers=0)
    path = tmp_path / "cluster.yaml"
    document = {"kind": "address", "address": address, "workers_timeout": "0.2 s"}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ClusterError) as error:
        connect(path)
    for words in ("no worker after", f"`dask worker {address}`", "workers_timeout"):
        assert words in str(error.value)


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
    for words in ("ingest needs", "a job", worker, "190.73 MiB", "--memory-limit", "fewer threads"):
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


class Named:
    def __init__(self, key):
        self.key = key


def worker_of(job):
    from distributed import get_worker

    return get_worker().address
