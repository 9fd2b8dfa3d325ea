"""What the store below a cube says."""

from deepprofile.urls import redacted


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
