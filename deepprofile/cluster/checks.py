"""Whether workers have what this process has."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from distributed import Client

from deepprofile.cluster.base import ClusterError

PACKAGES = (
    *("deepprofile", "dask", "distributed", "numpy", "pandas", "xarray", "zarr", "numcodecs"),
    *("icechunk", "numba", "torch"),
)
"""Packages of which workers need the client's version: jobs are sent by name, and results must not
depend on the worker."""
SAME = 2
"""Parts of a version number that must be equal; of deepprofile all are."""


def versions() -> dict[str, str]:
    """Version of Python and of each package that is installed in this process."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def check_versions(client: Client) -> None:
    """Stop unless all workers have the versions of this process.

    A cluster without workers yet passes; workers that join later are not looked at.

    Raises:
        ClusterError: names what differs, on how many workers, and what to do.
    """
    own = versions()
    try:
        answers: Mapping[str, dict[str, str]] = client.run(versions, on_error="return")
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"the workers do not answer: {error}") from None
    broken = {a: found for a, found in answers.items() if not isinstance(found, dict)}
    if broken:
        address, found = min(broken.items(), key=lambda item: item[0])
        raise ClusterError(
            f"{len(broken)} of {len(answers)} workers can't import deepprofile, such as {address}: "
            f"{found!r}. Install deepprofile {own['deepprofile']} where they run"
        )
    differing = {
        name: {found[name] for found in answers.values()} - {own[name]}
        for name in own
        if any(not _equal(name, own[name], found[name]) for found in answers.values())
    }
    if differing:
        lines = [
            f"{name} {own[name]} here, {' and '.join(sorted(found))} there"
            for name, found in differing.items()
        ]
        raise ClusterError(
            f"the workers have other versions than this process: {'; '.join(lines)}. Give both "
            "the same environment (requirements.lock), or the same container image"
        )


def _equal(name: str, own: str, other: str) -> bool:
    if name == "deepprofile":
        return own == other
    return own.split(".")[:SAME] == other.split(".")[:SAME]
