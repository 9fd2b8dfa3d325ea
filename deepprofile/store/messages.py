"""What the store below a cube says."""

import re

from deepprofile.urls import redacted

_DAMAGED = re.compile(
    r"incomplete frame|early eof|data corruption|cannot serialize|deserializ"
    r"|invalid.{0,20}(header|file)|session error: I/O error|snapshot not found"
    r"|(snapshots|manifests|transactions)/\w+ not found",
    re.IGNORECASE,
)
RESTORE = (
    "Bring the objects below its folders refs, snapshots and manifests back from a copy; or open "
    "an older snapshot, or remove the cube and run its stage again."
)
"""What to do where metadata are damaged."""


def is_damaged(text: str) -> bool:
    """Whether the store says that metadata of its own are cut off, changed or gone."""
    return _DAMAGED.search(text) is not None


def cause(text: str) -> str:
    """The innermost reason in a message of the store, on one line.

    Its trace of calls, what it says of the request and secrets in URLs are left out.
    """
    lines = [line.strip(" x|") for line in text.splitlines()]
    first = next((line for line in lines if line), text.strip())
    inner = [
        line.removeprefix("`->").removeprefix("|->").removeprefix("->").strip()
        for line in lines
        if line.startswith(("`->", "|->", "->"))
    ]
    said = [reason for reason in inner if not reason.startswith("Error {")][-1:]
    return redacted(f"{first} ({said[0]})" if said and said[0] not in first else first)
