"""Which of a product's layers answer for a depth or for another layer."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepprofile.evaluation.reference.depths import SLACK, overlap


def request_weights(
    layers: Sequence[tuple[float, float]], top: float, bottom: float
) -> NDArray[np.float64] | None:
    """Weights with which a product's layers answer a request: the layers nearest to it.

    A layer that holds a depth is at no distance from it, so it is nearer than any other however
    far its middle lies; a product that does not reach a depth is not stretched to it. The first
    rule that applies counts:

    1. a depth (``top == bottom``): the thinnest layer that holds it; a depth on the boundary of
       two layers belongs to the upper one;
    2. a layer that the product has: that layer;
    3. layers that don't overlap each other and together cover the request: their mean, weighted
       by the thickness inside the request;
    4. layers that overlap each other: the one that shares most with the request (the thickness
       in both over the thickness in either).

    Args:
        layers: (top, bottom) of each layer in metres.
        top: upper end of the request in metres.
        bottom: lower end.

    Returns:
        Shape (layers,), summing to 1; None where no rule applies.
    """
    tops, bottoms = np.asarray(layers, dtype=np.float64).reshape(-1, 2).T
    thickness = bottoms - tops
    if top == bottom:
        holds = (tops < top - SLACK) | (tops <= SLACK)
        holds &= top <= bottoms + SLACK
        return _only(np.where(holds, -thickness, -np.inf))
    exact = (np.abs(tops - top) < SLACK) & (np.abs(bottoms - bottom) < SLACK)
    if exact.any():
        return _only(np.where(exact, 1.0, -np.inf))
    inside = overlap(tops, bottoms, top, bottom)
    if _disjoint(tops, bottoms):
        covered = abs(inside.sum() - (bottom - top)) < SLACK
        return inside / inside.sum() if covered else None
    share = inside / (thickness + (bottom - top) - inside)
    return _only(np.where(inside > SLACK, share, -np.inf))


def layers_text(layers: Sequence[tuple[float, float]], top: float, bottom: float) -> str:
    """The layers that answer a request, such as ``"0-100 cm"`` or ``"mean of 0-10 and 10-40 cm"``.

    Args:
        layers: as in `request_weights`; likewise ``top`` and ``bottom``.

    Returns:
        Empty where no rule applies.
    """
    weights = request_weights(layers, top, bottom)
    if weights is None:
        return ""
    used = [layers[i] for i in np.flatnonzero(weights).tolist()]
    names = [f"{100 * upper:g}-{100 * lower:g}" for upper, lower in used]
    if len(names) == 1:
        return f"{names[0]} cm"
    return f"mean of {', '.join(names[:-1])} and {names[-1]} cm"


def _only(score: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """All weight on the best finite score, None where there is none."""
    if not np.isfinite(score).any():
        return None
    weights = np.zeros(score.size)
    weights[np.argmax(score)] = 1.0
    return weights


def _disjoint(tops: NDArray[np.float64], bottoms: NDArray[np.float64]) -> bool:
    order = np.argsort(tops)
    return bool(np.all(tops[order][1:] >= bottoms[order][:-1] - SLACK))
