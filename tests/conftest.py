"""Fixtures that several test files share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import hypothesis
import pytest
from distributed import Client, LocalCluster

# The same examples at every run, so that a change is judged by what it changes. To look for new
# ones: pytest --hypothesis-profile=explore
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("explore")
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
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as connected,
    ):
        yield connected
