"""Fixtures that several test files share."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import dask
import hypothesis
import one_thread  # noqa: F401
import pytest
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context
from fault_support import MODULES, NO_DASHBOARD, contents, context, threads, write

from deepprofile.cluster import keep_from_deadlock
from deepprofile.testing import object_store as servers

BUCKET = "tests"
N_WORKERS = 2
METHOD = "distributed.worker.multiprocessing-method"
CLIENTS = {"client", "driver_client"}
SLOWEST = (
    "test_stages",
    "test_cluster_slurm",
    "test_object_store_chain",
    "test_faults_concurrent",
    "test_daily",
    "test_ingest_stage",
    "test_faults_store",
    "test_object_store_commands",
    "test_predict_stage",
    "test_train_parallel",
    "test_faults_disk",
    "test_faults_driver",
    "test_store_publish",
    "test_experiments",
    "test_model_labelled",
    "test_model_training",
    "test_rates",
    "test_report",
    "test_assessments_real",
    "test_assessments",
    "test_cluster_network",
    "test_operators",
    "test_planning",
)
"""Files that come first, the slowest at first: so processes that share the files end together."""
_clients: list[Client] = []
keep_from_deadlock()
_stores: list[servers.ObjectStore] = []
_numbers = itertools.count()

# The same examples at every run, so that a change is judged by what it changes. To look for new
# ones: pytest --hypothesis-profile=explore
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first, each as a whole."""
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Path of a real product or station file; skips where the folder is not there."""

    def find(name: str) -> Path:
        folder = os.environ.get("DEEPPROFILE_TEST_DATA")
        if not folder:
            pytest.skip("DEEPPROFILE_TEST_DATA is not set: no real files to test on")
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"{path} is absent: no real file to test on")
        return path

    return find


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """Two worker processes of one thread; a job may lose one worker, not two.

    They are forked from a process that has imported what they need, so that none of them, nor one
    that takes the place of a killed one, does it again.
    """
    with dask.config.set({"distributed.scheduler.allowed-failures": 1, METHOD: "forkserver"}):
        get_mp_context()  # Dask names modules of its own first
        context.set_forkserver_preload(MODULES)
        cluster = LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, **NO_DASHBOARD)
        connected = Client(cluster)
        for store in _stores:
            connected.register_plugin(servers.SetEnvironment(store.environment))
        _clients.append(connected)
        yield connected
        _clients.remove(connected)
        # On a busy machine killing slow workers may take longer than Dask waits for it.
        with suppress(TimeoutError):
            connected.close()
            cluster.close()


@pytest.fixture(autouse=True)
def _as_if_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test finds both workers, also after one that killed some; or no cluster at all.

    Otherwise what a test computes, and how clusters of its own start, would depend on the tests
    before it.
    """
    for connected in _clients:
        connected.wait_for_workers(N_WORKERS, timeout=120)
    if CLIENTS.intersection(request.fixturenames):
        yield
        return
    with dask.config.set({"scheduler": "threads", METHOD: "spawn"}):
        yield


@pytest.fixture(scope="session")
def object_store() -> Iterator[servers.ObjectStore]:
    """A real S3 server; the AWS variables of this process and its workers name it and its key."""
    try:
        with servers.serve() as store, servers.active(store.environment):
            store.create_bucket(BUCKET)
            _stores.append(store)
            for started_before in _clients:
                started_before.register_plugin(servers.SetEnvironment(store.environment))
            yield store
            _stores.remove(store)
    except servers.NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def s3_url(object_store: servers.ObjectStore) -> str:
    """A prefix of the S3 server that no other test has; it holds nothing yet."""
    return f"s3://{BUCKET}/test-{next(_numbers)}"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "deepprofile", str(disk)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True, check=False)
    if not mounted or mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(scope="module")
def driver_client() -> Iterator[Client]:
    """Workers that are threads of this process."""
    with threads() as client:
        yield client


@pytest.fixture(scope="module")
def undisturbed(driver_client, tmp_path_factory):
    """What two publications in peace make."""
    url = str(tmp_path_factory.mktemp("undisturbed") / "cube")
    write(driver_client, url, 1)
    write(driver_client, url, 2)
    return contents(url)
