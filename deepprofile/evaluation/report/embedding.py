"""Series packed into text for a page: compact, and unpacked by the browser itself.

A number is a multiple of 0.0001 in 16 bits, the lowest of them for a missing one. Rows are stored
as differences from value to value, low bytes before high bytes, deflated and in base64; the page
undoes this in ``codec.js``.
"""

import zlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation.assessment import DailySeries

UNIT = 1e-4
MISSING = -32768
MOST = 32767
MAX_TEXT = 16 * 2**20
"""Characters of all series in one page."""
SPANS = (1, 5, 10, 30, 90, 360)
"""Days of a span, the first that fits is taken."""
_SAMPLED = 24


@dataclass(frozen=True)
class Packed:
    """Series of cells for a page.

    Attributes:
        step: days of a span.
        days: first day of each span, days since 1970-01-01.
        texts: by group of series the packed rows; empty where the series don't fit at any span.
    """

    step: int
    days: list[int]
    texts: list[str]


def pack_rows(values: NDArray[np.floating]) -> str:
    """Rows of numbers as text.

    Args:
        values: shape (rows, numbers); rounded to 0.0001, and cut at ±3.2767.
    """
    known = np.isfinite(values)
    whole = np.rint(np.where(known, values, 0.0) / UNIT).clip(-MOST, MOST)
    whole = np.where(known, whole, MISSING).astype(np.int64)
    steps = np.diff(whole, axis=1, prepend=0).astype(np.uint16)  # modulo 2 ** 16
    planes = steps.astype("<u2").reshape(-1, 1).view(np.uint8).T
    return b64encode(zlib.compress(planes.tobytes(), 6)).decode()


def pack_series(
    series: DailySeries, cells: Sequence[NDArray[np.int64]], most: int = MAX_TEXT
) -> Packed:
    """The series of each cell as one text, in spans as short as fit into a page.

    A cell's rows are, series by series, the reference and then every estimate in its order.

    Args:
        series: series.
        cells: positions of the series of each cell.
        most: characters of all texts together.
    """
    for span in (span for span in SPANS if span >= series.step):
        groups = _spans(series.days, span)
        some = cells[:: max(len(cells) // _SAMPLED, 1)]
        guess = sum(len(_cell(series, at, groups)) for at in some) * len(cells) / max(len(some), 1)
        if guess > 1.2 * most:
            continue
        texts = [_cell(series, at, groups) for at in cells]
        if sum(map(len, texts)) <= most:
            starts = np.flatnonzero(np.diff(groups, prepend=-1))
            step = max(span, series.step)
            return Packed(step, [int(day) for day in series.days[starts]], texts)
    return Packed(series.step, [], [])


def _cell(series: DailySeries, at: NDArray[np.int64], groups: NDArray[np.int64]) -> str:
    every = (series.truth, *series.estimates.values())
    rows = np.stack([values[at] for values in every], axis=1)
    return pack_rows(_means(rows.reshape(at.size * len(every), -1), groups)) if at.size else ""


def _spans(days: NDArray[np.int64], span: int) -> NDArray[np.int64]:
    """Number of the span of each day, from 0 without gaps."""
    if not days.size:
        return np.zeros(0, dtype=np.int64)
    return np.unique((days - days[0]) // span, return_inverse=True)[1].astype(np.int64)


def _means(rows: NDArray[np.floating], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means over spans of what is there, shape (rows, spans)."""
    if not groups.size:
        return np.zeros((len(rows), 0))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    known = np.isfinite(rows)
    sums = np.add.reduceat(np.where(known, rows, 0.0).astype(np.float64), starts, axis=1)
    counts = np.add.reduceat(known.astype(np.int64), starts, axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
