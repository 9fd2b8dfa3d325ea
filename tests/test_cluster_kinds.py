"""Clusters of every kind that can run here: by TLS, by SSH, as generated job scripts."""

import gc
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import yaml
from cluster_support import make_certificates, scheduler, ssh_server, tls_options, worker
from pydantic import ValidationError

from deepprofile.cluster import ENVIRONMENT, ClusterError, connect
from deepprofile.cluster.base import PatientClient
from deepprofile.cluster.checks import Found, too_many_threads
from deepprofile.cluster.connecting import read_spec
from deepprofile.cluster.kubernetes import KubernetesSpec
from deepprofile.cluster.local import LocalSpec
from deepprofile.cluster.process import PRELOAD, THREADS, worker_environment
from deepprofile.cluster.slurm import SlurmSpec, walltime_seconds

TLS = dict.fromkeys(["ca_file", "cert", "key"], "x.pem")
FILES = sorted((Path(__file__).parent.parent / "cluster").glob("*.yaml"))


def environment(client, names):
    """Values that a worker has; the function travels whole, as workers don't have this file."""
    return client.submit(lambda: {name: os.environ.get(name) for name in names}).result()


def write(path, **document):
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_cluster_file_is_valid(path):
    spec = read_spec(path)
    assert set(yaml.safe_load(path.read_text())) <= set(type(spec).model_fields)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"kind": "slrm"}, ["kind", "'slrm'", "local, cuda, ssh, slurm, kubernetes, address"]),
        ({"kind": "slurm", "cores": 4}, ["memory: is missing"]),
        ({"kind": "slurm", "cores": 4, "memory": "8GB"}, ["either jobs or adaptive"]),
        (
            {"kind": "slurm", "cores": 4, "memory": "8GB", "jobs": 1, "threads_per_worker": 8},
            ["cores 4", "threads_per_worker 8"],
        ),
        (
            {"kind": "slurm", "cores": 4, "memory": "8GB", "jobs": 1, "gpus": 4},
            ["gpus: found 4", "one batch job for each GPU"],
        ),
        ({"kind": "slurm", "cores": 4, "memory": "lots", "jobs": 1}, ["memory", "lots"]),
        ({"kind": "kubernetes", "image": "x", "workers": 1, "memory": "auto"}, ["memory", "auto"]),
        ({"kind": "kubernetes", "workers": 2}, ["image: is missing"]),
        ({"kind": "ssh", "hosts": ["one"]}, ["hosts", "at least 2"]),
        ({"kind": "cuda", "gpu": 1}, ["gpu", "Allowed keys", "gpus"]),
        (
            {"kind": "kubernetes", "image": "x", "adaptive": {"minimum": 3, "maximum": 2}},
            ["minimum 3 exceeds maximum 2"],
        ),
        ({"kind": "address", "address": "tcp://h:1", "tls": TLS}, ["with tls expected tls://"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_explained(tmp_path, document, words):
    with pytest.raises(ClusterError) as error:
        connect(write(tmp_path / "cluster.yaml", **document))
    for word in ["cluster.yaml", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("cuda", {}),
        ("kubernetes", {"image": "x", "workers": 1}),
    ],
)
def test_a_missing_extra_says_how_to_install_it(tmp_path, kind, document, monkeypatch):
    module = {"cuda": "dask_cuda", "kubernetes": "dask_kubernetes.operator"}[kind]
    monkeypatch.setitem(sys.modules, module, None)
    path = write(tmp_path / "cluster.yaml", kind=kind, **document)
    with pytest.raises(ClusterError, match=rf"pip install \"deepprofile\[{kind}\]\""):
        connect(path)


@pytest.mark.parametrize(("jobs", "n_cores", "share"), [(1, 8, 8), (8, 8, 1), (3, 8, 2), (9, 8, 1)])
def test_the_threads_of_a_call_are_the_cores_for_a_job(jobs, n_cores, share):
    found = worker_environment(jobs, n_cores)
    assert found["OMP_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == str(share)
    assert found["GOMP_SPINCOUNT"] == str(ENVIRONMENT["GOMP_SPINCOUNT"])


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A scheduler with TLS and a worker as an operator starts it; address and certificates."""
    files = make_certificates(tmp_path_factory.mktemp("tls"))
    options = tls_options(files)
    ours = (*THREADS, *ENVIRONMENT)  # clusters of other tests may have left theirs
    own = {name: value for name, value in os.environ.items() if name not in ours}
    with_preload = own | {"DEEPPROFILE_CORES": "3"}
    with (
        scheduler(*options, protocol="tls") as address,
        worker(address, *options, "--nthreads", "1", "--preload-nanny", PRELOAD, env=with_preload),
    ):
        yield address, files, own


def test_a_scheduler_with_tls_is_joined_and_its_worker_has_the_environment(
    secured, tmp_path, capsys
):
    address, files, own = secured
    path = write(tmp_path / "cluster.yaml", kind="address", address=address, tls=files)
    with connect(path) as client:
        expected = worker_environment(1, 3)
        assert environment(client, list(expected)) == expected
    said = capsys.readouterr().err
    assert "no limit of threads" not in said
    assert "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT=10m" in said
    assert "lose 3 workers" in said and "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=1" in said
    without = (address, *tls_options(files), "--nthreads", "1", "--no-nanny")
    with worker(*without, env=own), connect(path):
        said = capsys.readouterr().err
    assert "no limit of threads" in said and f"--preload-nanny {PRELOAD}" in said


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ([("a", 4, 1, 1)] * 8, ""),
        ([("a", 4, 1, 2)] * 2, ""),
        ([("a", 4, 1, 4), ("b", 4, 1, 4)], ""),
        ([("b", 4, 2, 4), ("a", 8, 1, 4)], "workers on b may run 8 threads"),
        ([("a", 4, 1, 4)] * 2, "and it has 4 cores"),
        ([("a", 4, 1, 1), ("b", 4, 1, None)], "workers on b have no limit"),
    ],
)
def test_the_threads_of_all_workers_of_a_machine_count(workers, words):
    said = too_many_threads(Found({}, *worker) for worker in workers)
    assert (words in said) if words else not said


def test_no_wrong_or_expired_certificates_get_in(secured, tmp_path, monkeypatch):
    address, files, _ = secured
    monkeypatch.setattr("deepprofile.cluster.remote.CONNECT_SECONDS", 3)
    with pytest.raises(ClusterError, match=r"needs certificates.*tls: \{ca_file"):
        connect(address)
    clients = [one for one in gc.get_objects() if issubclass(type(one), PatientClient)]
    assert {client.status for client in clients} <= {"closed"}  # none is left half made
    missing = {**files, "cert": str(tmp_path / "none.pem")}
    path = write(tmp_path / "missing.yaml", kind="address", address=address, tls=missing)
    with pytest.raises(ClusterError, match=r"tls.cert: there is no file"):
        connect(path)
    other = make_certificates(tmp_path / "expired", days=-1)
    path = write(tmp_path / "expired.yaml", kind="address", address=address, tls=other)
    with pytest.raises(ClusterError, match="still valid"):
        connect(path)


def test_a_worker_with_another_version_stops_before_work(tmp_path):
    """The worker finds the data of another release of a package before the true one."""
    folder = tmp_path / "xarray-2020.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: xarray\nVersion: 2020.1.0\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with (
        scheduler() as address,
        worker(address, "--nthreads", "1", env=env),
        pytest.raises(ClusterError) as error,
    ):
        connect(address)
    assert f"xarray {version('xarray')} here, 2020.1.0 there" in str(error.value)
    assert "requirements.lock" in str(error.value)


def test_workers_are_started_by_ssh_and_stopped_with_the_client(tmp_path, monkeypatch):
    for name in (*THREADS, *ENVIRONMENT):
        monkeypatch.delenv(name, raising=False)
    with ssh_server(tmp_path) as port:
        path = write(
            tmp_path / "cluster.yaml",
            kind="ssh",
            hosts=["127.0.0.1", "127.0.0.1"],
            workers_per_host=1,
            cores_per_host=3,
            memory_limit="1GiB",
            user="someone",
            port=port,
            keys=[str(tmp_path / "key")],
            known_hosts=str(tmp_path / "known_hosts"),
        )
        with connect(path) as client:
            client.wait_for_workers(1, timeout=30)
            names = ["OMP_NUM_THREADS", *ENVIRONMENT]
            assert environment(client, names) == {
                name: worker_environment(1, 3)[name] for name in names
            }
            process = psutil.Process(client.submit(os.getpid).result())
    process.wait(20)


def test_machines_that_ssh_can_not_use_are_named(tmp_path):
    (tmp_path / "wrong").mkdir()
    with ssh_server(tmp_path) as port, ssh_server(tmp_path / "wrong"):
        document = {
            "kind": "ssh",
            "hosts": ["127.0.0.1", "127.0.0.1", "127.0.0.2"],  # nobody listens at the last
            "user": "someone",
            "port": port,
            "keys": [str(tmp_path / "key")],
            "known_hosts": str(tmp_path / "known_hosts"),
        }
        with pytest.raises(ClusterError) as error:
            connect(write(tmp_path / "cluster.yaml", **document))
        for words in ("on 1 of 2 machines: 127.0.0.2: ", f"`ssh -p {port} someone@127.0.0.2 true`"):
            assert words in str(error.value)
        document["hosts"] = ["127.0.0.1", "127.0.0.1"]
        with pytest.raises(
            ClusterError, match=r"127.0.0.1: `/none/python -c .* fails there \(.*no"
        ):
            connect(write(tmp_path / "cluster.yaml", **document, python="/none/python"))
        document["keys"] = [str(tmp_path / "wrong" / "key")]
        with pytest.raises(ClusterError, match=r"127.0.0.1: Permission denied .*known_hosts"):
            connect(write(tmp_path / "cluster.yaml", **document))


def test_a_batch_job_of_slurm_starts_what_its_file_says():
    spec = SlurmSpec(
        kind="slurm", jobs=8, cores=8, gpus=1, threads_per_worker=4, memory="64GiB",
        queue="gpu", account="soil", walltime="04:00:00", directives=["--constraint=h200"],
        prologue=["module load cuda"], python="/opt/python",
    )  # fmt: skip
    with spec.cluster() as cluster:
        script = cluster.job_script()
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH -A soil",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=64G",
        "#SBATCH -t 04:00:00",
        "#SBATCH --constraint=h200",
        "#SBATCH --gpus=1",
        "export DEEPPROFILE_PROCESSES=1",
        "export DEEPPROFILE_CORES=8",
        "module load cuda",
    ):
        assert line in script.splitlines()
    command = script.splitlines()[-1]
    assert "--nworkers" not in command  # one
    assert command.startswith("/opt/python -m distributed.cli.dask_worker")
    for option in (
        "--nthreads 4",
        "--memory-limit 64.00GiB",
        f"--preload-nanny {PRELOAD}",
        "--resources GPU=4",
        "--lifetime 14100s",  # four hours without five minutes
    ):
        assert option in command


SHORT = {"kind": "slurm", "jobs": 1, "cores": 1, "memory": "1GiB"}


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [("90", 5400), ("90:30", 5430), ("08:00:00", 28800), ("2-00", 172800), ("1-12:30", 131400),
     ("1-00:00:01", 86401), ("UNLIMITED", 0)],
)  # fmt: skip
def test_walltimes_of_all_forms_of_sbatch(walltime, seconds):
    assert walltime_seconds(SlurmSpec(**SHORT, walltime=walltime).walltime) == seconds


def test_workers_leave_before_a_short_walltime_ends_and_never_without_one():
    for walltime, option in (("00:10:00", "--lifetime 480s"), ("UNLIMITED", "")):
        with SlurmSpec(**SHORT, walltime=walltime).cluster() as cluster:
            script = cluster.job_script()
            assert option in script
            assert ("--lifetime" in script) == bool(option)


@pytest.mark.parametrize("walltime", ["for ever", "8 hours", "1:2:3:4", "", 43200])
def test_what_is_no_walltime_is_told(walltime):
    with pytest.raises(ValidationError, match=r'expected a time .*such as "08:00:00"'):
        SlurmSpec(**SHORT, walltime=walltime)


@pytest.mark.parametrize("limit", ["-6GiB", "6"])
def test_what_is_no_limit_of_memory_is_told(limit):
    with pytest.raises(ValidationError, match="expected auto, or an amount with its unit"):
        LocalSpec(kind="local", memory_limit=limit)


UNREACHABLE = [
    "sbatch: error: fetch_config: DNS SRV lookup failed\n"
    "sbatch: fatal: Could not establish a configuration source",
    "sbatch: error: ClusterName needs to be specified\n"
    "sbatch: fatal: Unable to process configuration file",
    "allocation failure: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Unable to establish control machine address\n"
    "allocation failure: Invalid argument",
]
"""What sbatch 22.05 says where Slurm has no file of settings, or no controller."""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        *((said, [said.splitlines()[-1], "Slurm is not set up", "login node"])
          for said in UNREACHABLE),
        ("allocation failure: Requested node configuration is not available",
         ["would not take the batch jobs: allocation failure", "cores: 4 (--cpus-per-task=4)",
          "memory: 8GB (--mem=8G)", "queue: none (-p none)", "directives: --qos=x", "sinfo"]),
    ],
)  # fmt: skip
def test_what_slurm_refuses_and_where_there_is_none(tmp_path, monkeypatch, said, words):
    command = tmp_path / "sbatch"
    command.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = write(
        tmp_path / "cluster.yaml", kind="slurm", jobs=1, cores=4, memory="8GB", queue="none",
        directives=["--qos=x"],
    )  # fmt: skip
    with pytest.raises(ClusterError) as error:
        connect(path)
    for word in words:
        assert word in str(error.value)
    assert ("sacctmgr" in str(error.value)) == (said not in UNREACHABLE)


def test_without_a_way_to_kubernetes_one_message_says_what_to_do(tmp_path):
    """And nothing else, when the process ends, either."""
    pytest.importorskip("dask_kubernetes")
    path = write(tmp_path / "cluster.yaml", kind="kubernetes", image="x", workers=1)
    program = (
        "import sys, deepprofile\n"
        "try: deepprofile.connect(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
    )
    env = {name: value for name, value in os.environ.items() if "KUBE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=env | {"KUBECONFIG": str(tmp_path / "none")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    for words in ("can't be started (kubernetes)", "valid credentials. Try `kubectl get", "pod"):
        assert words in done.stdout


def test_pods_get_what_their_file_says():
    spec = KubernetesSpec(
        kind="kubernetes", image="deepprofile:1", workers=3, cores=4, threads_per_worker=4,
        memory="16GiB", gpus=1, environment={"AWS_REGION": "eu-west-1"},
    )  # fmt: skip
    options = spec.options()
    assert options["n_workers"] == 3 and options["image"] == "deepprofile:1"
    limits = options["resources"]["limits"]
    assert limits == {"cpu": "4", "memory": str(16 * 2**30), "nvidia.com/gpu": "1"}
    command = " ".join(options["worker_command"])
    assert f"--preload-nanny {PRELOAD} --resources GPU=4" in command
    assert "--nthreads 4" in command and f"--memory-limit {16 * 2**30}" in command
