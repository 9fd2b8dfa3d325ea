"""Fixtures that several test files share."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import dask
import hypothesis
import pytest
from distributed import Client, LocalCluster
from fault_support import contents, threads, write

from deepprofile.testing import object_store as servers

BUCKET = "tests"
N_WORKERS = 2
_clients: list[Client] = []
_numbers = itertools.count()

# The same examples at every run, so that a change is judged by what it changes. To look for new
# ones: pytest --hypothesis-profile=explore
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("same")


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
    """Two spawned worker processes of one thread; a job may lose one worker, not two."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        cluster = LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None)
        connected = Client(cluster)
        _clients.append(connected)
        yield connected
        _clients.remove(connected)
        # On a busy machine killing slow workers may take longer than Dask waits for it.
        with suppress(TimeoutError):
            connected.close()
            cluster.close()


@pytest.fixture(autouse=True)
def _all_workers() -> None:
    """Every test finds both workers, also after one that killed some."""
    for connected in _clients:
        connected.wait_for_workers(N_WORKERS, timeout=120)


@pytest.fixture(scope="session")
def object_store() -> Iterator[servers.ObjectStore]:
    """A real S3 server; the AWS variables of this process and its workers name it and its key."""
    try:
        with servers.serve() as store, servers.active(store.environment):
            store.create_bucket(BUCKET)
            for started_before in _clients:
                started_before.register_plugin(servers.SetEnvironment(store.environment))
            yield store
    except servers.NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def s3_url(object_store: servers.ObjectStore) -> str:
    """A prefix of the S3 server that no other test has; it holds nothing yet."""
    return f"s3://{BUCKET}/test-{next(_numbers)}"


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
