"""What went wrong below a cube, in words that say what to do."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import icechunk
from dask.utils import format_bytes

from deepprofile.store.messages import RESTORE, cause, is_damaged
from deepprofile.store.repository import SILENT, StoreError, local_path

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL = re.compile(r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b")
_TOO_LARGE = re.compile(r"File too large|os error 27\b")
_CLOCK = re.compile(r"timestamp is invalid|invalid snapshot timestamp")


@contextmanager
def explained(url: str | Path) -> Iterator[None]:
    """Turn errors of the store below a cube into a `StoreError` that says what to do.

    Raises:
        StoreError: if the disk is full, the clock is wrong or the store does not answer.
    """
    try:
        yield
    except (icechunk.IcechunkError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _DISK:
            raise
        place = getattr(error, "filename", None) or url
        raise StoreError(f"{place}: {explain(place, str(error))}") from error


def takes_nothing(error: str) -> bool:
    """Whether the error of a job says that the store below a cube takes no commit at present.

    Args:
        error: type and message. Only what Icechunk says counts: a granule may have a timeout, too.
    """
    of_the_store = error.startswith(icechunk.IcechunkError.__name__)
    return of_the_store and any(f.search(error) for f in (_FULL, _TOO_LARGE, _CLOCK, SILENT))


def explain(url: str | Path, text: str) -> str:
    """What an error of the store below a cube means and what to do about it.

    Args:
        url: the cube.
        text: the store's own message, with or without its trace of calls.
    """
    reason = cause(text)
    if _FULL.search(text):
        return (
            f"the disk is full{_free(url)}: {reason}. Make room there and run the stage again; "
            "readers see the last publication, and what is published will not be repeated."
        )
    if _TOO_LARGE.search(text):
        return (
            f"a file may not become as large as it must: {reason}. Raise the limit (`ulimit -f`, "
            "or that of the file system) and run the stage again."
        )
    if _CLOCK.search(text):
        return (
            f"the clock of this machine can't be right: {reason}. Snapshots must be in the order "
            "of time. Set the clock (NTP) and run the stage again; nothing was published."
        )
    if is_damaged(text):
        return f"metadata of this cube are damaged or gone: {reason}. {RESTORE}"
    return (
        f"the store failed: {reason}. Readers see the last publication. Run the stage again when "
        "the store answers; what is published will not be repeated."
    )


def _free(url: str | Path) -> str:
    """Where the disk is and how much room is left on it."""
    path = local_path(url)
    while path is not None and not path.exists() and path != path.parent:
        path = path.parent
    if path is None:
        return ""
    return f" ({format_bytes(shutil.disk_usage(path).free)} free at {path})"
