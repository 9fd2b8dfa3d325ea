"""A training that takes longer than its worker may stay goes on in one that comes later."""

import threading

import dask
from distributed import Client, LocalCluster, get_worker
from fault_support import NO_DASHBOARD, PATIENCE
from test_train_stage import context_of

from deepprofile.stages import train as stage

RUNS: list[str] = []
BEGUN, ENDED = threading.Event(), threading.Event()


def as_long_as_its_worker(*_):
    """In the first worker until that has left; the next one comes to an end."""
    RUNS.append(get_worker().address)
    BEGUN.set()
    if len(RUNS) == 1:
        ENDED.wait(PATIENCE)
    return ["trained"]


def test_a_training_outlives_its_only_worker(tmp_path, monkeypatch):
    """As in batch jobs: the worker leaves in order before the walltime ends, then another comes."""
    monkeypatch.setattr(stage, "train_model", as_long_as_its_worker)
    patience = {"distributed.scheduler.no-workers-timeout": f"{PATIENCE} s"}
    one = {"n_workers": 1, "threads_per_worker": 1, "processes": False, **NO_DASHBOARD}
    with (
        dask.config.set({**patience, "distributed.scheduler.allowed-failures": 0}),
        LocalCluster(**one) as cluster,
        Client(cluster) as client,
    ):
        told: list[str] = []
        training = threading.Thread(
            target=lambda: told.append(stage.run(context_of(tmp_path / "small", client)))
        )
        training.start()
        try:
            assert BEGUN.wait(PATIENCE)
            client.retire_workers(RUNS[:1])
            cluster.scale(2)  # the first has gone: one more
            training.join(PATIENCE / 2)
            assert [text.split(";")[0] for text in told] == ["trained"]
            assert len(set(RUNS)) == 2
        finally:
            ENDED.set()
            training.join()
