"""Paths and URLs as texts: which may be used, and what of them may be shown."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s'\"]*@", re.IGNORECASE)
_KEY_ALONE = re.compile(r"(\bs3a?://)[^\s/'\"]*:[^\s'\"]*", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s'\"?#]*)[?#][^\s'\"]*", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")


class PlaceError(ValueError):
    """A path or URL that can't be used; the message says why and does not repeat secrets."""


def redacted(text: str) -> str:
    """A text in which the URLs have lost user names, passwords, keys and query strings."""
    text = _USERINFO.sub(r"\1***@", text)
    return _QUERY.sub(r"\1?***", _KEY_ALONE.sub(r"\1***", text))


def check_url(url: str | Path) -> str:
    """The same path or URL as text, if it may be used.

    Raises:
        PlaceError: if it holds credentials, a query string or ``..`` after ``scheme://``, or
            names no bucket.
    """
    text = str(url)
    if "://" not in text:
        return text
    shown = redacted(text)
    parts = urlsplit(text)
    bucket_alone = parts.scheme not in {"s3", "s3a"} or ":" not in parts.netloc
    if "@" in parts.netloc or _USERINFO.search(text) or not bucket_alone:
        raise PlaceError(
            f"{shown}: names credentials. Leave them out of paths: they are taken from the "
            "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what AWS tools use)"
        )
    if not parts.netloc and parts.scheme in {"s3", "s3a"}:
        raise PlaceError(f"{parts.scheme}:// names no bucket; expected s3://BUCKET/PREFIX")
    if parts.query or parts.fragment:
        raise PlaceError(f"{shown}: has a query string or fragment; expected a plain URL")
    if ".." in PurePosixPath(parts.path).parts:
        raise PlaceError(f"{shown}: has '..' in its path; expected a plain URL")
    return text


def local_path(url: str | Path) -> Path | None:
    """Path on the local disk, or None for any other place.

    Raises:
        PlaceError: as `check_url`.
    """
    text = check_url(url)
    if "://" not in text and "::" not in text:
        return Path(text)
    return Path(urlsplit(text).path) if text.startswith("file:///") else None


def inside(root: str | Path, name: str) -> str:
    """The place with a relative name below a folder.

    Raises:
        PlaceError: if the name is absolute, empty or leads out of the folder.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if not name or parts.is_absolute() or ".." in parts.parts or _DRIVE.match(name) or "\0" in name:
        raise PlaceError(
            f"{name!r}: leads out of its folder {redacted(str(root))}; expected a relative name "
            "without '..'"
        )
    return f"{str(root).rstrip('/')}/{parts}"
