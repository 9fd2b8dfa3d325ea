"""Estimates of soil moisture that can be asked for any layer or depth.

An estimate knows cells, days and a way to give the mean of a layer or the value at a depth: from a
product's layers, from a profile, or as a mean of other estimates. Where it comes from is no matter.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepprofile import grid, profile
from deepprofile.evaluation.estimates.layers import layers_text, request_weights
from deepprofile.evaluation.reference.depths import compared_text

Series = NDArray[np.float64]


def cell_keys(row: ArrayLike, column: ArrayLike) -> NDArray[np.int64]:
    """One number for each cell of the global grid."""
    return np.asarray(row, dtype=np.int64) * grid.N_COLUMNS + np.asarray(column, dtype=np.int64)


def positions(wanted: NDArray[np.int64], available: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each wanted number among the available ones, -1 where it is not there."""
    if available.size == 0:
        return np.full(wanted.shape, -1, dtype=np.int64)
    order = np.argsort(available, kind="stable")
    found = np.minimum(np.searchsorted(available, wanted, sorter=order), available.size - 1)
    return np.where(available[order[found]] == wanted, order[found], -1)


@dataclass(frozen=True, eq=False)
class Estimate(ABC):
    """Daily soil moisture of some cells.

    Attributes:
        name: name in tables.
        row: grid rows of the cells, shape (cells,).
        column: grid columns of the cells, shape (cells,).
        time: days, datetime64, shape (time,).
        yields: whether it takes no part in a comparison of a series where it would cost the others
            most of their days, see `alignment.common_days`; so of a yardstick, not of a rival.

    Raises:
        ValueError: if the shapes don't agree or a cell or day appears twice.
    """

    yields: ClassVar[bool] = False

    name: str
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    time: NDArray[np.datetime64]

    def __post_init__(self) -> None:
        """Check the axes."""
        if np.shape(self.row) != np.shape(self.column) or np.ndim(self.row) != 1:
            raise ValueError(
                f"estimate {self.name!r}: rows of shape {np.shape(self.row)} and columns of shape "
                f"{np.shape(self.column)} don't name cells: expected two 1-d arrays of one length"
            )
        for what, values in ("cell", self.keys), ("day", self.days):
            if np.unique(values).size != values.size:
                raise ValueError(f"estimate {self.name!r} has a {what} twice: expected each once")

    @property
    def keys(self) -> NDArray[np.int64]:
        """One number per cell, see :func:`cell_keys`."""
        return cell_keys(self.row, self.column)

    @property
    def days(self) -> NDArray[np.int64]:
        """Days since 1970-01-01."""
        return np.asarray(self.time).astype("datetime64[D]").astype(np.int64)

    @abstractmethod
    def covers(self, top: float, bottom: float) -> bool:
        """Whether the estimate can say anything about this layer or depth."""

    @abstractmethod
    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """Soil moisture of a layer, or at a depth where ``top == bottom``.

        Args:
            cells: indices into ``row`` and ``column``.
            top: metres.
            bottom: metres.

        Returns:
            Shape (cells, time), m³ m⁻³, NaN where unknown.

        Raises:
            ValueError: if the estimate does not cover the request.
        """

    @property
    def absence(self) -> str:
        """Why a series has no day in common with the reference, in words for tables."""
        return "the estimate has no day in common with the reference"

    def answered_by(self, top: float, bottom: float) -> str:
        """What of the estimate answers a request that it covers, in words for tables."""
        return compared_text(top, bottom)


@dataclass(frozen=True, eq=False)
class LayerEstimate(Estimate):
    """A product that gives means of layers.

    Attributes:
        layers: (top, bottom) of each layer in metres.
        soil_moisture: shape (cells, time, layers), m³ m⁻³.
    """

    layers: Sequence[tuple[float, float]]
    soil_moisture: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Check the axes and the layers."""
        super().__post_init__()
        expected = (len(self.row), len(self.time), len(self.layers))
        _check_shape(self.name, "soil moisture", self.soil_moisture.shape, expected)
        for top, bottom in self.layers:
            profile.check_layer(top, bottom)

    def covers(self, top: float, bottom: float) -> bool:
        """Whether one or several layers stand for the request."""
        return request_weights(self.layers, top, bottom) is not None

    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values` and `layers.request_weights`."""
        weights = request_weights(self.layers, top, bottom)
        if weights is None:
            raise _not_covered(self.name, top, bottom, f"layers {list(self.layers)}")
        return _weighted(self.soil_moisture, cells, weights)

    def answered_by(self, top: float, bottom: float) -> str:
        """The layers, such as ``"mean of 0-10, 10-40 and 40-100 cm"``."""
        return layers_text(self.layers, top, bottom)


@dataclass(frozen=True, eq=False)
class ProfileEstimate(Estimate):
    """A polynomial profile.

    Attributes:
        coefficients: shape (cells, time, degree), see :mod:`deepprofile.profile`.
    """

    coefficients: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Check the axes."""
        super().__post_init__()
        expected = (len(self.row), len(self.time))
        _check_shape(self.name, "coefficients", self.coefficients.shape[:2], expected)

    def covers(self, top: float, bottom: float) -> bool:
        """Whether the request lies inside the profile."""
        return 0.0 <= top <= bottom <= profile.MAX_DEPTH

    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values`."""
        if not self.covers(top, bottom):
            raise _not_covered(self.name, top, bottom, f"0 to {profile.MAX_DEPTH} m")
        n = self.coefficients.shape[-1]
        if top < bottom:
            matrix = profile.layer_matrix([(top, bottom)], n)
        else:
            matrix = profile.depth_matrix(top, n)
        return _weighted(self.coefficients, cells, matrix[:, 0])

    def answered_by(self, top: float, bottom: float) -> str:
        """The profile, at a depth or as the mean of a layer."""
        where = compared_text(top, bottom)
        return f"profile {where}" if top == bottom else f"profile, {where}"


@dataclass(frozen=True, eq=False)
class MeanEstimate(Estimate):
    """A mean of other estimates; a day that one of them lacks is missing.

    Attributes:
        members: estimates on the same cells and days.
        weights: shape (cells, members), normalised here so that a cell's weights sum to 1; equal
            weights where None. A cell with a weight that is not finite, or with weights that sum to
            0, has no values.
    """

    members: Sequence[Estimate]
    weights: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        """Check the axes."""
        super().__post_init__()
        for member in self.members:
            same = np.array_equal(member.keys, self.keys) and np.array_equal(member.days, self.days)
            if not same:
                raise ValueError(
                    f"mean {self.name!r}: member {member.name!r} lies on other cells or days; "
                    "expected the same ones in the same order"
                )
        if self.weights is not None:
            expected = (len(self.row), len(self.members))
            _check_shape(self.name, "weights", self.weights.shape, expected)

    @classmethod
    def of(
        cls,
        name: str,
        members: Sequence[Estimate],
        weights: NDArray[np.floating] | None = None,
    ) -> "MeanEstimate":
        """The mean of ``members`` on the cells and days of the first."""
        first = members[0]
        return cls(name, first.row, first.column, first.time, members, weights)

    def covers(self, top: float, bottom: float) -> bool:
        """Whether every member covers the request."""
        return all(member.covers(top, bottom) for member in self.members)

    def values(self, cells: NDArray[np.int64], top: float, bottom: float) -> Series:
        """See :meth:`Estimate.values`."""
        weights = np.ones((len(cells), len(self.members)))
        if self.weights is not None:
            weights = self.weights[cells].astype(np.float64)
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, np.nan, total)
        mean = np.zeros((len(cells), len(self.time)))
        for weight, member in zip(weights.T, self.members, strict=True):
            mean += weight[:, None] * member.values(cells, top, bottom)
        return mean

    def answered_by(self, top: float, bottom: float) -> str:
        """Each member with what answers of it."""
        return "; ".join(f"{one.name} {one.answered_by(top, bottom)}" for one in self.members)


def _weighted(
    values: NDArray[np.floating], cells: NDArray[np.int64], weights: NDArray[np.float64]
) -> Series:
    """Weighted sum over the last axis of (cells, time, parts); parts of weight 0 don't matter.

    Added part by part, so that a day's value has the same bits in whatever company it is computed;
    a matrix product does not promise that.
    """
    used = np.flatnonzero(weights)
    if not used.size:
        return np.zeros((len(cells), values.shape[1]))
    total = weights[used[0]] * values[cells, :, used[0]].astype(np.float64)
    for part in used[1:]:
        total += weights[part] * values[cells, :, part].astype(np.float64)
    return np.asarray(total)


def _check_shape(name: str, what: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(f"estimate {name!r}: {what} has shape {found}, expected {expected}")


def _not_covered(name: str, top: float, bottom: float, has: str) -> ValueError:
    return ValueError(
        f"estimate {name!r} says nothing about {top} to {bottom} m: it has {has}. "
        "Ask covers() first, or leave this depth out."
    )
