"""Fixtures that several test files share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


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
