"""The branch on which a publication is prepared, and what becomes of it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import icechunk

from deepprofile.store.repository import MAIN, StoreError, local_path

STAGING = "staging"
"""First part of the names of the branches on which publications are prepared."""


@contextmanager
def staging(repository: icechunk.Repository, url: str | Path) -> Iterator[tuple[str, str]]:
    """A branch of one's own that begins at the head of ``main``, until the publication has ended.

    In an object store its name ends with the head that it began at and a random part, so that
    publications at the same time don't disturb each other: the one that moves ``main`` first
    wins. On a local disk a lock keeps them apart, and the branch is always called ``staging``.

    What earlier publications left is removed, see `drop_stale`.

    Yields:
        Name of the branch, and the head of ``main`` that it began at.
    """
    head = drop_stale(repository, url)
    branch = STAGING if _alone(url) else f"{STAGING}-{head}-{secrets.token_hex(4)}"
    _create(repository, branch, head)
    try:
        yield branch, head
    except (icechunk.IcechunkError, StoreError):
        raise  # the store won't do this either; what stays is removed by the next publication
    except BaseException:
        _delete(repository, branch)
        raise
    _delete(repository, branch)


def drop_stale(repository: icechunk.Repository, url: str | Path) -> str:
    """Remove the branches of publications that can't take place any more.

    Those are the ones that began at another head than ``main`` has now, as ``main`` moves only
    from the head that a publication began at. No clock is needed to tell them. On a local disk,
    where the caller holds the lock, all are. In an object store one that began at the present
    head may be alive and stays.

    Returns:
        The head of ``main``.
    """
    # Listed before the head is looked up: a branch that is on the list and did not begin at the
    # head is older than the head. The other way round it could be younger, and alive.
    branches = repository.list_branches()
    head = str(repository.lookup_branch(MAIN))
    for branch in branches:
        ours = branch == STAGING or branch.startswith(f"{STAGING}-")
        if ours and (_alone(url) or not branch.startswith(f"{STAGING}-{head}-")):
            _delete(repository, branch)
    return head


def _delete(repository: icechunk.Repository, branch: str) -> None:
    """Remove a branch, unless somebody else does so at the same moment, or the store won't."""
    with suppress(icechunk.IcechunkError):
        repository.delete_branch(branch)


def _alone(url: str | Path) -> bool:
    return local_path(url) is not None


def _create(repository: icechunk.Repository, branch: str, head: str) -> None:
    try:
        repository.create_branch(branch, head)
    except icechunk.IcechunkError:
        # The reply may have been lost after the branch was made.
        if branch not in repository.list_branches():
            raise
        repository.reset_branch(branch, head)
