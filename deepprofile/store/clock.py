"""What time it is by the clock of the store below a cube."""

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deepprofile import places
from deepprofile.store.repository import StoreError

TOLERANCE = timedelta(minutes=10)
"""How far the clock of this machine may be from that of the store; Icechunk's limit for commits."""


def store_time(url: str | Path) -> datetime:
    """The time by the store's clock: that of a tiny object beside a cube's, removed at once.

    It is up to a second late.

    Args:
        url: a cube that is there.

    Raises:
        StoreError: if the clock of this machine says something else.
        OSError: if the store does not take the object.
    """
    files, root = places.filesystem(url)
    path = f"{root}/clock-{secrets.token_hex(8)}"
    try:
        files.pipe_file(path, b"?")
        found: datetime = files.modified(path).astimezone(UTC)
    finally:
        if files.exists(path):
            files.rm_file(path)
    own = datetime.now(UTC)
    if abs(own - found) > TOLERANCE:
        raise StoreError(
            f"{url}: the clock of this machine can't be right: it says {own:%Y-%m-%d %H:%M} UTC, "
            f"that of the store {found:%Y-%m-%d %H:%M}. What is old is told by its age, so nothing "
            "was expired or deleted. Set the clock (NTP) and run it again."
        )
    return found + timedelta(seconds=1)  # object stores tell whole seconds
