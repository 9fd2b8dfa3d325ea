"""Differences between an estimate and each layer of the products: RMSD, R and bias.

Neither is a reference: a large difference says that they disagree, not which of them is right.
Statistics of a part of the cells or days are added or put one after the other, so a decade can be
worked on in tiles and spans of days; the table is made once at the end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile.evaluation.estimates.base import (
    Estimate,
    LayerEstimate,
    cell_keys,
    positions,
)
from deepprofile.evaluation.reference.series import CELL, cell_table
from deepprofile.evaluation.skill.alignment import on_days
from deepprofile.evaluation.skill.metrics import Statistics, accumulate, constant, finish
from deepprofile.evaluation.skill.summaries import MIN_CELLS, quartiles
from deepprofile.evaluation.skill.tables import MIN_DAYS

BATCH = 64
"""Cells at a time."""
METRICS = ("rmsd", "ubrmsd", "r", "bias")
COLUMNS = (*("estimate", "product", "top", "bottom", "row", "column", "n", *METRICS, "reason"),)
Cells = NDArray[np.int64]


@dataclass(frozen=True)
class ProductLayer:
    """A layer of a product.

    Attributes:
        product: name of the product.
        top: metres.
        bottom: metres.
        covered: whether the estimate says anything about it.
    """

    product: str
    top: float
    bottom: float
    covered: bool = True


@dataclass(frozen=True, eq=False)
class Intercomparison:
    """An estimate against layers of products.

    Attributes:
        estimate: its name.
        row: rows of the cells, shape (cells,).
        column: columns of the cells, shape (cells,).
        layers: the layers.
        statistics: over days on which both have a value, shape (cells, layers).
    """

    estimate: str
    row: Cells
    column: Cells
    layers: tuple[ProductLayer, ...]
    statistics: Statistics

    def __add__(self, other: "Intercomparison") -> "Intercomparison":
        """The days of both.

        Raises:
            ValueError: if the two are not of the same estimate, cells and layers.
        """
        same = (self.estimate, self.layers) == (other.estimate, other.layers)
        same &= np.array_equal(self.row, other.row) & np.array_equal(self.column, other.column)
        if not same:
            raise ValueError(
                f"{self} and {other} can't be added: expected other days of the same estimate, "
                "cells and layers"
            )
        return Intercomparison(
            self.estimate, self.row, self.column, self.layers, self.statistics + other.statistics
        )

    def __str__(self) -> str:
        """What is compared."""
        layers = ", ".join(f"{one.product} {one.top}-{one.bottom} m" for one in self.layers)
        return f"{self.estimate!r} in {len(self.row)} cells against {layers}"

    def table(self, min_days: int = MIN_DAYS) -> pd.DataFrame:
        """A line per cell and layer.

        Args:
            min_days: common days below which metrics are missing.

        Returns:
            :data:`COLUMNS`: ``n`` common days; ``rmsd``, ``ubrmsd`` and ``bias`` (estimate minus
            product) in m³ m⁻³; ``r``; and ``reason``: why metrics are missing, empty where none is.
        """
        found = finish(self.statistics, max(min_days, 1))
        n_cells, n_layers = found.n.shape
        columns: dict[str, object] = {"estimate": self.estimate}
        for name in ("product", "top", "bottom"):
            columns[name] = np.tile([getattr(layer, name) for layer in self.layers], n_cells)
        columns |= {
            "row": np.repeat(self.row, n_layers),
            "column": np.repeat(self.column, n_layers),
            "n": found.n.ravel(),
            "rmsd": found.rmse.ravel(),
            "ubrmsd": found.ubrmse.ravel(),
            "r": found.r.ravel(),
            "bias": found.bias.ravel(),
            "reason": self._reasons(max(min_days, 1)).ravel(),
        }
        return pd.DataFrame(columns, index=range(n_cells * n_layers))[list(COLUMNS)]

    def _reasons(self, min_days: int) -> NDArray[np.object_]:
        n = self.statistics.n
        reason = np.full(n.shape, "", dtype=object)
        estimate_constant, product_constant = constant(self.statistics)
        reason[product_constant] = "the product is constant"
        reason[estimate_constant] = "the estimate is constant"
        for cell, layer in np.argwhere(n < min_days):
            reason[cell, layer] = f"{n[cell, layer]} common days, {min_days} needed"
        reason[:, [not layer.covered for layer in self.layers]] = "the estimate has no such layer"
        return reason


def intercompare(
    estimate: Estimate,
    products: Sequence[LayerEstimate],
    cells: Cells | None = None,
    *,
    batch: int = BATCH,
) -> Intercomparison:
    """Compare an estimate with every layer of some products, each layer on its own common days.

    Args:
        estimate: any estimate; of a product's layer its mean over that layer is taken.
        products: products with distinct names.
        cells: positions of cells of the estimate; all where None.
        batch: cells at a time.

    Returns:
        Statistics of the cells, without any day where a product lacks the cell.

    Raises:
        ValueError: if there is no product or a name repeats.
    """
    names = [product.name for product in products]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"products are named {names}: expected at least one, distinct names")
    chosen = np.arange(len(estimate.row)) if cells is None else np.asarray(cells, dtype=np.int64)
    layers = tuple(
        ProductLayer(product.name, top, bottom, estimate.covers(top, bottom))
        for product in products
        for top, bottom in product.layers
    )
    parts = [
        np.stack(
            [_sums(estimate, product, layer, chosen[start : start + batch])
             for product, layer in _with_layers(products, layers)],
            axis=1,
        )
        for start in range(0, chosen.size, batch)
    ]  # fmt: skip
    sums = np.concatenate([np.zeros((0, len(layers), len(fields(Statistics)))), *parts])
    row, column = np.asarray(estimate.row)[chosen], np.asarray(estimate.column)[chosen]
    return Intercomparison(estimate.name, row, column, layers, Statistics.of(sums))


def table_at(
    estimate: Estimate,
    products: Sequence[LayerEstimate],
    references: Sequence[xr.Dataset],
    min_days: int = MIN_DAYS,
    *,
    batch: int = BATCH,
) -> pd.DataFrame:
    """The table of an `Intercomparison` in the cells of references.

    Args:
        estimate: any estimate.
        products: products with distinct names.
        references: see :mod:`deepprofile.evaluation.reference.series`, at least one.
        min_days: common days below which metrics are missing.
        batch: cells at a time.

    Returns:
        Lines of the cells that the estimate has, with ``cell_class`` and ``split`` from the first
        reference that knows them.
    """
    labels = [*CELL, "cell_class", "split"]
    cells = pd.concat([cell_table(reference)[labels] for reference in references])
    known = cells.replace("", np.nan).groupby(CELL).first().fillna("").reset_index()
    at = positions(cell_keys(known["row"], known["column"]), estimate.keys)
    found = intercompare(estimate, products, at[at >= 0], batch=batch)
    return found.table(min_days).merge(known, on=CELL, how="left")


def medians(
    table: pd.DataFrame, min_cells: int = MIN_CELLS, *, by: Sequence[str] = ()
) -> pd.DataFrame:
    """Medians and quartiles over cells of the table of an `Intercomparison`.

    Args:
        table: from `Intercomparison.table`, or several in one.
        min_cells: cells below which a line is marked in ``few_cells``.
        by: further columns of the table within whose values medians are taken.

    Returns:
        A line per value of ``by``, estimate, product and layer: ``n_cells`` with metrics,
        ``n_cells_without``, of each metric the median under its own name and quartiles
        ``<metric>_q25`` and ``<metric>_q75``, and ``few_cells``.
    """
    groups = table.groupby([*by, "estimate", "product", "top", "bottom"], sort=False)
    summary = pd.DataFrame({"n_cells": groups["rmsd"].count()})
    summary["n_cells_without"] = groups.size() - summary["n_cells"]
    summary = summary.join(quartiles(groups, METRICS))
    summary["few_cells"] = summary["n_cells"] < min_cells
    return summary.reset_index()


def _with_layers(
    products: Sequence[LayerEstimate], layers: Sequence[ProductLayer]
) -> Iterator[tuple[LayerEstimate, ProductLayer]]:
    by_name = {product.name: product for product in products}
    return ((by_name[layer.product], layer) for layer in layers)


def _sums(
    estimate: Estimate, product: LayerEstimate, layer: ProductLayer, cells: Cells
) -> NDArray[np.float64]:
    """Sums of one layer, shape (cells, sums); zero for cells that the product lacks."""
    result = np.zeros((cells.size, len(fields(Statistics))))
    at = positions(estimate.keys[cells], product.keys)
    here = at >= 0
    days = np.intersect1d(estimate.days, product.days)
    if not layer.covered or not here.any() or not days.size:
        return result
    bounds = layer.top, layer.bottom
    x = on_days(estimate.values(cells[here], *bounds), estimate.days, days)
    y = on_days(product.values(at[here], *bounds), product.days, days)
    found = accumulate(x, y, np.isfinite(x) & np.isfinite(y))
    result[here] = np.stack([getattr(found, f.name) for f in fields(Statistics)], axis=-1)
    return result
