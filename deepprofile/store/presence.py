"""Whether there is a repository in an object store, found out in a bounded time."""

import functools
import os
from pathlib import Path
from urllib.parse import urlsplit

import icechunk

from deepprofile import places


def is_there(storage: icechunk.Storage, url: str | Path) -> bool:
    """Whether there is a repository at an ``s3://`` URL.

    Icechunk asks a store that is silent for up to a minute. So the first time in a process the
    bucket is asked for as for other files, which is given up sooner.

    Raises:
        UnreachableError: if the store does not answer.
        icechunk.IcechunkError: if it refuses.
    """
    _check_answers(os.getpid(), places.s3_environment(), urlsplit(str(url)).netloc)
    return icechunk.Repository.exists(storage)


@functools.lru_cache(maxsize=64)
def _check_answers(process: int, settings: int, bucket: str) -> None:
    """Raise UnreachableError unless the store answers, whatever it says; errors are not kept."""
    del process, settings
    try:
        places.check_bucket(f"s3://{bucket}")
    except places.UnreachableError:
        raise
    except (OSError, places.PlaceError):
        pass  # an answer, or s3fs is not installed
