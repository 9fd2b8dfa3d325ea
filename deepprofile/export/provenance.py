"""Where exported values come from, as attributes of the files."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import xarray as xr

_OF_CUBE = {
    "model": "model_fingerprint",
    "precision": "precision",
    "device": "device",
    "max_gap_days": "max_gap_days",
    "recipe": "recipe",
    "versions": "versions",
    "date_modified": "cube_modified",
    "references": "references",
}
"""Root attributes of the cube, and the names of the attributes."""


def provenance(url: str | Path, cube: xr.Dataset, snapshot: str) -> dict[str, str]:
    """Attributes that say which cube, snapshot and model values come from; text only.

    Args:
        url: the cube of coefficients.
        cube: the cube, opened at the snapshot.
        snapshot: identity of the snapshot.
    """
    found = {
        **{name: cube.attrs.get(key) for key, name in _OF_CUBE.items()},
        "cube": url,
        "snapshot": snapshot,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def history_line(what: str) -> str:
    """One line for the attribute ``history``: when, with what, what was done."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{now} deepprofile {version('deepprofile')}: export of {what}"
