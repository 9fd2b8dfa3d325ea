"""The root of a run: whether it can be written, and what is said where it can't."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from deepprofile.places import PlaceError, local_path
from deepprofile.store.faults import explained

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@contextmanager
def writable(root: str) -> Iterator[None]:
    """Stop before anything is started where a root can't be written; explain what fails later.

    An object store is asked by the first stage that writes.

    Raises:
        PlaceError: if files can't be made below a local root.
        StoreError: if the disk is full, or see `explained`.
    """
    with explained(root):
        _write_a_byte(root)
        yield


def _write_a_byte(root: str) -> None:
    """Write a file without a name: where the root is not there yet, in the folder above it."""
    path = local_path(root)
    if path is None:
        return
    folder = path.absolute()
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0")
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise PlaceError(
            f"{root}: can't be written: {folder}: {error.strerror}. Results are written below the "
            "root: expected a folder that this user may write. Make it so, or name another root"
        ) from None
