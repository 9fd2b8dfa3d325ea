"""Whether a model fits the forcing and the auxiliary features that it is given.

Each check returns what is wrong, one message for each problem, empty where all is well: callers
say where the data came from and what to do.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.network import DeepProfile

OUTSIDE = 0.5
"""A variable whose mean lies further than so many spans outside the limits is not the one of the
training. (Surface pressure in hPa instead of Pa is 0.98 spans below the limits of all land.)"""
FAR_OUTSIDE = 2.0
"""The same for the highest twentieth, which shows rare values such as rain in other units."""
WIDE = 10.0
"""Spans beyond the limits that a part of the cells, or features of other cells, may lie outside."""
FACTOR = 5.0
"""They may also lie outside by this factor: cells of other heights and climates do."""
RARE = 1000.0
"""What never lies below zero and reaches it, such as snow melt, may lie above by this factor: the
cells of a training may have hardly any. (Rain in mm a day is 86,400 times that in mm a second.)"""


class Labels(NamedTuple):
    """What lies along an axis of variables or features.

    Attributes:
        size: how many there are.
        names: their names; empty where unknown.
        units: their units; empty where unknown.
    """

    size: int
    names: tuple[str, ...]
    units: tuple[str, ...]

    def title(self, dim: str, index: int) -> str:
        """How a message calls one of them."""
        name = f" ({self.names[index]})" if self.names else ""
        return f"{dim} number {index}{name}"


def variables_of(config: NetworkConfig) -> Labels:
    """The variables that a model was trained with."""
    return Labels(config.n_variables, config.variables, config.variable_units)


def features_of(config: NetworkConfig) -> Labels:
    """The auxiliary features that a model was trained with."""
    return Labels(config.n_auxiliary, config.features, config.feature_units)


def labels_of(array: xr.DataArray, dim: str) -> Labels:
    """What an array says of ``dim``: its coordinates ``dim`` and ``units``, where it has them."""
    texts = (
        tuple(map(str, array[name].to_numpy()))
        if name in array.coords and array[name].dims == (dim,)
        else ()
        for name in (dim, "units")
    )
    return Labels(array.sizes[dim], *texts)


def label_problems(dim: str, found: Labels, expected: Labels) -> list[str]:
    """Where number, names, order or units along ``dim`` are not those of the training."""
    if found.size != expected.size:
        count = f"there are {found.size} along {dim!r}: the model expects {expected.size}"
        return [count + _different_names(found.names, expected.names)]
    return _name_problems(dim, found, expected) or _unit_problems(dim, found, expected)


def _different_names(found: tuple[str, ...], expected: tuple[str, ...]) -> str:
    """The names that only one of the two has, as the end of a sentence."""
    if not (found and expected):
        return ""
    missing = ", ".join(name for name in expected if name not in found)
    unknown = ", ".join(name for name in found if name not in expected)
    return (f"; missing: {missing}" if missing else "") + (
        f"; not known to it: {unknown}" if unknown else ""
    )


def _name_problems(dim: str, found: Labels, expected: Labels) -> list[str]:
    return [
        f"{dim} number {i} is {given!r}: the model was trained with {wanted!r} there"
        for i, (given, wanted) in enumerate(zip(found.names, expected.names, strict=False))
        if given != wanted
    ]


def _unit_problems(dim: str, found: Labels, expected: Labels) -> list[str]:
    """Units are compared as text: those of the cubes come from one table."""
    return [
        f"{expected.title(dim, i)} is in {given!r}: the model was trained with {wanted!r}"
        for i, (given, wanted) in enumerate(zip(found.units, expected.units, strict=False))
        if given != wanted
    ]


def setting_problems(config: NetworkConfig, *, window: int, n_coefficients: int) -> list[str]:
    """Where window or number of coefficients are not those asked for."""
    asked = {"window": window, "n_coefficients": n_coefficients}
    return [
        f"the model has {name} {getattr(config, name)}: asked for is {value}"
        for name, value in asked.items()
        if getattr(config, name) != value
    ]


def limit_problems(model: DeepProfile, probe: ArrayLike) -> list[str]:
    """Where the model's limits are no limits, or not those of such forcing.

    Args:
        model: the network with its limits.
        probe: (n, variables) values of real forcing in raw units, NaN where missing.
    """
    invalid = invalid_limits(model)
    if invalid:
        return invalid
    series, _ = _limits_of(model)
    outside = _outside(series, np.asarray(probe, np.float64))
    if outside and _untouched(series):
        return [
            "the limits of all variables are 0 to 1, as before training: "
            f"{outside[0]}. Train the model, or set its limits with model.set_limits"
        ]
    return outside


def part_problems(model: DeepProfile, probe: ArrayLike) -> list[str]:
    """Where forcing of some cells and days can't be in the units of the training.

    A small part may lie outside the limits rightly: a mountain, a desert, a single winter. So this
    is silent where :func:`limit_problems` is of the same values, and at much else besides.

    Args:
        model: the network with its limits.
        probe: (n, variables) values in raw units, NaN where missing. A variable with fewer values
            than a window is not judged.
    """
    series, _ = _limits_of(model)
    return _far_outside(series, np.asarray(probe, np.float64), OUTSIDE, model.config.window, RARE)


def feature_problems(model: DeepProfile, probe: ArrayLike) -> list[str]:
    """Where auxiliary features can't be in the units of the training.

    The limits are those of the cells of the training alone; others lie outside them rightly.

    Args:
        model: the network with its limits.
        probe: (cells, features) in raw units, NaN where missing.
    """
    _, auxiliary = _limits_of(model)
    return _far_outside(auxiliary, np.asarray(probe, np.float64), WIDE, 1)


def untrained(model: DeepProfile) -> bool:
    """Whether all limits are those before training and the network has seen no batch."""
    batches = [x for name, x in model.named_buffers() if name.endswith("num_batches_tracked")]
    return all(map(_untouched, _limits_of(model))) and not any(map(bool, batches))


def invalid_limits(model: DeepProfile) -> list[str]:
    """Where limits are not finite, or a minimum lies above its maximum."""
    return [problem for limits in _limits_of(model) for problem in _invalid(limits)]


class _Limits(NamedTuple):
    """Minimum and maximum of what lies along an axis, each (size,)."""

    dim: str
    labels: Labels
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    def text(self, index: int) -> str:
        units = f" {self.labels.units[index]}" if self.labels.units else ""
        return f"{self.minimum[index]:.4g} to {self.maximum[index]:.4g}{units}"


def _limits_of(model: DeepProfile) -> tuple[_Limits, _Limits]:
    arrays = {name: x.double().cpu().numpy() for name, x in model.named_buffers(recurse=False)}
    series = arrays["series_minimum"], arrays["series_maximum"]
    auxiliary = arrays["auxiliary_minimum"], arrays["auxiliary_maximum"]
    return (
        _Limits("variable", variables_of(model.config), *series),
        _Limits("feature", features_of(model.config), *auxiliary),
    )


def _untouched(limits: _Limits) -> bool:
    return bool((limits.minimum == 0).all() and (limits.maximum == 1).all())


def _invalid(limits: _Limits) -> list[str]:
    finite = np.isfinite(limits.minimum) & np.isfinite(limits.maximum)
    return [
        f"{limits.labels.title(limits.dim, i)} has limits {limits.text(i)}: expected finite "
        "numbers, the minimum not above the maximum"
        for i in np.flatnonzero(~(finite & (limits.minimum <= limits.maximum))).tolist()
    ]


def _outside(limits: _Limits, values: NDArray[np.float64]) -> list[str]:
    """Variables far outside their limits."""
    problems = []
    for i, known in _known(limits, values, 1):
        lowest, highest = limits.minimum[i], limits.maximum[i]
        mean, span = known.mean(), highest - lowest
        above = np.quantile(known, 0.95) - highest
        if max(lowest - mean, mean - highest) > OUTSIDE * span or above > FAR_OUTSIDE * span:
            problems.append(_misfit(limits, i, known))
    return problems


def _far_outside(
    limits: _Limits, values: NDArray[np.float64], spans: float, enough: int, rare: float = 1.0
) -> list[str]:
    """What lies below a floor or above a ceiling that no place on Earth should reach."""
    problems = []
    for i, known in _known(limits, values, enough):
        lowest, highest = limits.minimum[i], limits.maximum[i]
        floor = _floor(lowest, highest - lowest, spans)
        ceiling = -_floor(-highest, highest - lowest, spans)
        ceiling = max(ceiling, highest + FAR_OUTSIDE * (highest - lowest))
        ceiling = max(ceiling, rare * highest) if lowest == 0 else ceiling
        if known.mean() < floor or np.quantile(known, 0.95) > ceiling:
            problems.append(_misfit(limits, i, known))
    return problems


def _floor(lowest: float, span: float, spans: float) -> float:
    """The lowest mean that is let through.

    What is positive throughout the training is told by the factor: hPa for Pa, °C for K. What
    reaches zero may be any number of times smaller, and only spans tell.
    """
    if lowest > 0:
        return min(lowest / FACTOR, lowest - spans * span)
    return min(lowest * FACTOR, lowest - WIDE * span)


def _known(
    limits: _Limits, values: NDArray[np.float64], enough: int
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Values that are there, of what has enough of them and limits that are not constant.

    The network ignores what was constant.
    """
    for i in np.flatnonzero(limits.maximum > limits.minimum).tolist():
        known = values[np.isfinite(values[:, i]), i]
        if known.size >= enough:
            yield i, known


def _misfit(limits: _Limits, i: int, known: NDArray[np.float64]) -> str:
    return (
        f"{limits.labels.title(limits.dim, i)} lies at {known.min():.4g} to {known.max():.4g}, "
        f"mean {known.mean():.4g}: the model was trained with {limits.text(i)}"
    )
