"""What is asked for: layers, days and a box of a cube of coefficients."""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from deepprofile.profile import Layer

PRODUCT = "deepprofile"
"""Product of the exported layers."""
PER_METRE = {"cm": 100.0, "m": 1.0}
"""Units in which a layer may be written."""
_DEPTHS = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


class ExportError(Exception):
    """An export that can't be made; the message says what was found and what to do."""


@dataclass(frozen=True)
class Request:
    """Layers of some days of a cube, all its cells or those of a box.

    Attributes:
        url: the cube of coefficients.
        layers: the layers, in the order in which they are written.
        first: first UTC day.
        last: last UTC day, included.
        bounds: box in degrees; every cell that it touches belongs to it.

    Raises:
        ExportError: if there is no layer or one stands twice, the days are in the wrong order, or
            the box is empty.
    """

    url: str | Path
    layers: tuple[Layer, ...]
    first: date
    last: date
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the cube."""
        names = [depths(layer) for layer in self.layers]
        if not names or len(set(names)) < len(names):
            raise ExportError(
                f"layers: found {', '.join(names) or 'none'}; expected at least one, each once"
            )
        if self.last < self.first:
            raise ExportError(f"the last day, {self.last}, is before the first, {self.first}")
        if self.bounds is not None:
            _check_bounds(self.bounds)


def layer_of(text: str) -> Layer:
    """The layer that a text such as ``"0-100cm"`` or ``"0-1m"`` means.

    Raises:
        ExportError: if it has no unit, another form, or does not lie in the profile.
    """
    match = _DEPTHS.fullmatch(text.strip())
    if match is None or match[3] not in PER_METRE:
        wrong = "has no unit" if match and not match[3] else "is not understood"
        raise ExportError(
            f"layer {text!r} {wrong}: expected top-bottom and a unit, cm or m, such as 0-100cm "
            "or 0-1m"
        )
    top, bottom = (float(depth) / PER_METRE[match[3]] for depth in match.groups()[:2])
    try:
        return Layer(PRODUCT, top, bottom)
    except ValueError as error:
        raise ExportError(
            f"layer {text!r} is not inside the profile: expected a top above its bottom, and "
            "both from 0 to 100 cm (0 to 1 m)"
        ) from error


def depths(layer: Layer) -> str:
    """Boundaries of a layer in centimetres, such as ``"0-100cm"``."""
    return f"{layer.top * 100:g}-{layer.bottom * 100:g}cm"


def _check_bounds(bounds: Bounds) -> None:
    west, south, east, north = bounds
    if not (-180.0 <= west < east <= 180.0 and -90.0 <= south < north <= 90.0):
        raise ExportError(
            f"bounds west {west:g}, south {south:g}, east {east:g}, north {north:g}: expected "
            "-180 <= west < east <= 180 and -90 <= south < north <= 90. A box across the date line "
            "is exported as two."
        )
