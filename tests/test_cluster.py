"""Clusters: what a specification may be, and how a wrong one is explained."""

import logging
import os
import signal
import sys
from pathlib import Path

import dask
import pytest
from distributed import Nanny

from deepprofile.cluster import ENVIRONMENT, ClusterError, connect, process
from deepprofile.cluster.process import THREADS

REPOSITORY = Path(__file__).parent.parent


def test_local_file_starts_spawned_workers_and_an_address_joins_them(tmp_path, monkeypatch):
    for name in ENVIRONMENT:  # clusters of other tests may have left theirs
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    spec = tmp_path / "local.yaml"
    spec.write_text("kind: local\nworkers: 1\nmemory_limit: 2GiB\n")
    with connect(spec) as client:
        info = client.scheduler_info(n_workers=-1)["workers"]
        assert [(w["nthreads"], w["memory_limit"]) for w in info.values()] == [(1, 2 * 2**30)]
        names = [*ENVIRONMENT, "OMP_NUM_THREADS"]
        found = client.submit(lambda names: {n: os.environ.get(n) for n in names}, names)
        expected = {name: str(value) for name, value in ENVIRONMENT.items()}
        assert found.result() == {**expected, "OMP_NUM_THREADS": "3"}
        with connect(client.scheduler.address) as other:
            assert other.submit(sum, (1, 2)).result() == 3


def test_what_the_user_has_set_stays_and_what_an_earlier_cluster_left_does_not(monkeypatch):
    monkeypatch.setattr(process, "_LEFT", {})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Dask has it by default
    for name in (*THREADS[1:], "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    prefix = "distributed.nanny.pre-spawn-environ"
    with dask.config.set({prefix: {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1}}):
        for share in ("4", "8"):
            values = dict.fromkeys((*THREADS, "GOMP_SPINCOUNT"), share)
            process.set_environment(values)
            nanny = Nanny("tcp://127.0.0.1:1")
            # torch takes MKL's number before OpenMP's: the user's is for both
            expected = {**dict.fromkeys(THREADS, "1"), "GOMP_SPINCOUNT": share}
            assert {name: nanny.pre_spawn_env[name] for name in values} == expected
            os.environ.update(nanny.pre_spawn_env)  # as a nanny does before it starts its worker
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: slrm", ["kind", "slrm", "local"]),
        ("workers: 0", ["workers", "0"]),
        ("memory_limit: lots", ["memory_limit", "lots"]),
        ("wrkers: 1", ["wrkers", "Allowed keys", "workers"]),
        ("[", ["not valid YAML"]),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, words):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError) as error:
        connect(path)
    for word in ["cluster.yaml", *words]:
        assert word in str(error.value)


def test_a_missing_file_says_what_may_stand_there():
    with pytest.raises(ClusterError, match="scheduler address"):
        connect("cluster/none.yaml")


def test_an_address_where_nobody_answers(monkeypatch):
    monkeypatch.setattr("deepprofile.cluster.remote.CONNECT_SECONDS", 1)
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        connect("tcp://127.0.0.1:1")


@pytest.mark.skipif(sys.version_info >= (3, 11, 9), reason="this Python does not need it")
def test_workers_take_no_profile_where_python_may_deadlock_over_it(client):
    key = "distributed.worker.profile.enabled"
    assert set(client.run(lambda: dask.config.get(key)).values()) == {False}


def test_a_failing_job_is_told_by_who_asked_for_it_alone(capfd):
    """Whatever else a worker has to say still comes through."""
    with connect() as client:
        assert set(client.run(signal.getsignal, signal.SIGINT).values()) == {signal.SIG_IGN}
        with pytest.raises(ZeroDivisionError):
            client.submit(divmod, 1, 0).result()
        client.submit(log_error, "something else").result()
    said = capfd.readouterr().err
    assert "something else" in said
    assert "Compute Failed" not in said
    assert "ZeroDivisionError" not in said


def log_error(text):
    logging.getLogger("distributed.worker").error(text)
