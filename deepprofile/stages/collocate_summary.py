"""What a collocation found over its region: medians, reasons, and fields coarse enough to draw.

The cube is read one row of tiles at a time, so the globe takes no more memory than its valid cells'
weights.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile.collocation import Flag
from deepprofile.store import open_cube
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.layout import TILE_ROWS

DOMINANT = 0.9
"""A weight above this leaves little to the other products."""
FACTORS = (1, 2, 4, 8)
"""Cells that one cell of a map may stand for along each side; they divide every tile."""
MAP_CELLS = 1000
"""Cells that a map has along its longer side at most, as far as FACTORS allow."""


@dataclass(frozen=True)
class Summary:
    """A collocation over its region.

    Attributes:
        products: names of the three products.
        flags: number of land cells by value of the flag.
        meanings: what each value means.
        median_weight: over the valid cells, by product; NaN without any.
        median_error: median error variance in (m³ m⁻³)², likewise.
        dominant: share of the valid cells with a weight above DOMINANT.
        bootstrapped: valid cells with a sampling error.
        error_variance_std: median of sampling error over error variance, by product.
        weight_std: median of sampling error over weight, by product.
        fields: what `deepprofile.evaluation.figures.collocation_maps` draws.
    """

    products: list[str]
    flags: Mapping[int, int]
    meanings: list[str]
    median_weight: NDArray[np.float64]
    median_error: NDArray[np.float64]
    dominant: float
    bootstrapped: int
    error_variance_std: NDArray[np.float64]
    weight_std: NDArray[np.float64]
    fields: xr.Dataset

    @property
    def invalid(self) -> dict[str, float]:
        """Share of the land cells by reason, for reasons that are there."""
        total = max(sum(self.flags.values()), 1)
        return {
            self.meanings[value]: count / total
            for value, count in sorted(self.flags.items())
            if value != Flag.VALID
        }

    @property
    def line(self) -> str:
        """The summary in one line."""
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.invalid.items())
        parts = [
            f"{sum(self.flags.values())} land cells",
            f"median weights {self._named(self.median_weight, '.3f')}",
            f"median error variances {self._named(self.median_error, '.2e')}",
            f"invalid: {shares or 'none'}",
            f"a weight above {DOMINANT}: {100 * self.dominant:.1f} %",
        ]
        if self.bootstrapped:
            parts.append(
                f"sampling errors over {self.bootstrapped} valid cells, median share of the error "
                f"variance {self._named(100 * self.error_variance_std, '.0f')} %, of the weight "
                f"{self._named(100 * self.weight_std, '.0f')} %"
            )
        return "; ".join(parts)

    def _named(self, values: NDArray[np.float64], form: str) -> str:
        pairs = zip(self.products, values, strict=True)
        return ", ".join(f"{name} {value:{form}}" for name, value in pairs)


def summarise(url: str) -> Summary:
    """Look at the cube of a collocation."""
    cube = open_cube(url, chunks=None)
    factor = next((f for f in FACTORS if max(cube["flag"].shape) <= f * MAP_CELLS), FACTORS[-1])
    counts: Counter[int] = Counter()
    valid: dict[str, list[NDArray[np.float32]]] = {}
    fields = []
    for band in _bands(cube):
        flag = band["flag"].values
        counts.update(flag[flag != NOT_PROCESSED].tolist())
        for name, values in band.items():
            if name != "flag" and name != "n_samples":
                valid.setdefault(str(name), []).append(values.values[:, flag == Flag.VALID])
        fields.append(_coarse(band, factor))
    of_valid = {name: np.concatenate(parts, axis=1) for name, parts in valid.items()}
    weight, error = of_valid["weight"], of_valid["error_variance"]
    nothing = np.full_like(weight[:, :0], np.nan)
    weight_std = of_valid.get("weight_std", nothing)
    error_std = of_valid.get("error_variance_std", nothing)
    known = bool(weight_std.size)
    return Summary(
        products=[str(name) for name in cube["product"].values],
        flags=dict(counts),
        meanings=str(cube["flag"].attrs["flag_meanings"]).split(),
        median_weight=_median(weight),
        median_error=_median(error),
        dominant=float((weight.max(axis=0) > DOMINANT).mean()) if weight.size else 0.0,
        bootstrapped=int(np.isfinite(weight_std).all(axis=0).sum()) if known else 0,
        error_variance_std=_median(error_std / error if known else nothing),
        weight_std=_median(weight_std / weight if known else nothing),
        fields=xr.concat(fields, "y").assign_attrs(factor=factor),
    )


def _bands(cube: xr.Dataset) -> Iterator[xr.Dataset]:
    """A row of tiles at a time, in memory."""
    names = ["weight", "error_variance", "flag"]
    names += [name for name in ("error_variance_std", "weight_std") if name in cube]
    for start in range(0, cube.sizes["y"], TILE_ROWS):
        yield cube[names].isel(y=slice(start, start + TILE_ROWS)).load()


def _median(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Median of what is finite, by row; NaN where nothing is."""
    rows = [row[np.isfinite(row)] for row in values]
    return np.array([np.median(row) if row.size else np.nan for row in rows], dtype=np.float64)


def _coarse(band: xr.Dataset, factor: int) -> xr.Dataset:
    """Means over the valid cells of squares of ``factor`` cells, shares and reasons of the others.

    Returns:
        ``weight`` and ``error`` (standard deviation, m³ m⁻³) on (product, y, x), NaN without valid
        cell; ``invalid``, the share of the land cells, NaN without land; ``reason``, the value of
        the flag that most invalid cells have, VALID without one, NOT_PROCESSED without land.
    """
    flag = band["flag"].values
    by_value = np.stack([_added(flag == value, factor) for value in range(len(Flag))])
    land, n_valid = by_value.sum(axis=0), by_value[Flag.VALID]
    dims = ("product", "y", "x")
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {
            name: _added(np.where(flag == Flag.VALID, band[name].values, 0.0), factor) / n_valid
            for name in ("weight", "error_variance")
        }
        invalid = (land - n_valid) / land
    reason = np.where(land > n_valid, by_value[1:].argmax(axis=0) + 1, int(Flag.VALID))
    reason = np.where(land > 0, reason, NOT_PROCESSED).astype(np.uint8)
    return xr.Dataset(
        {
            "weight": (dims, means["weight"]),
            "error": (dims, np.sqrt(means["error_variance"])),
            "invalid": (("y", "x"), invalid),
            "reason": (("y", "x"), reason),
        },
        {
            "product": band["product"].values,
            "y": band["y"].values.reshape(-1, factor).mean(axis=1),
            "x": band["x"].values.reshape(-1, factor).mean(axis=1),
        },
    )


def _added(values: NDArray[np.generic], factor: int) -> NDArray[np.float64]:
    """Sums over squares of cells."""
    *leading, rows, columns = values.shape
    squares = values.reshape(*leading, rows // factor, factor, columns // factor, factor)
    return np.asarray(squares.sum(axis=(-3, -1), dtype=np.float64))
