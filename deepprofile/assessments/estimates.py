"""The estimates of an assessment: looked at before any job, opened in jobs for some cells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.assessments.definition import (
    Baselines,
    Cube,
    Definition,
    Estimated,
    Neighbour,
    Sensor,
    Table,
    Weighted,
)
from deepprofile.assessments.tables import has_layers, open_table, table_axes, table_store
from deepprofile.evaluation.estimates.base import (
    Estimate,
    LayerEstimate,
    MeanEstimate,
    ProfileEstimate,
    cell_keys,
)
from deepprofile.evaluation.estimates.neighbour import NeighbourEstimate
from deepprofile.evaluation.estimates.restricted import mean_of
from deepprofile.evaluation.estimates.sensor import SensorEstimate
from deepprofile.evaluation.reference.series import CELL
from deepprofile.stages.compare import TC_MEAN
from deepprofile.stages.context import StageError
from deepprofile.store import layers_of, open_cube, open_pinned, read_cells, region_of
from deepprofile.store.ledger import head

Cells = NDArray[np.int64]
COEFFICIENTS, LAYERS = "coefficients", "soil_moisture"
"""Arrays of a cube that can be evaluated."""
WEIGHT = "weight"
"""Array of a cube of triple collocation."""


@dataclass(frozen=True)
class Source:
    """An estimate as it is sent to jobs.

    Attributes:
        estimate: what the definition says of it.
        place: URL of the cube, or of the store that a table was brought to; empty for estimates
            that are made of the ground truth.
        snapshot: the state of the cube that all jobs read.
    """

    estimate: Estimated
    place: str = ""
    snapshot: str = ""


def sources_of(definition: Definition) -> list[Source]:
    """The estimates of a definition; every cube is opened once, as it is now.

    Raises:
        NotACubeError: if a cube is not there.
        StageError: if a cube holds nothing that can be evaluated.
    """
    found = []
    for one in definition.estimates:
        if isinstance(one, Cube):
            source = Source(one, one.url, head(one.url))
            _check_cube(source)
        elif isinstance(one, Sensor | Neighbour):
            source = Source(one)
        else:
            source = Source(one, table_store(definition.root, one.name))
        found.append(source)
    return found


def check_products(definition: Definition, sources: Sequence[Source]) -> None:
    """Whether each of ``products`` has layers; tables must lie in their stores.

    Raises:
        StageError: if one has none.
    """
    for source in sources:
        name = source.estimate.name
        if name not in definition.products:
            continue
        if isinstance(source.estimate, Cube):
            layered = LAYERS in open_pinned(source.place, source.snapshot).data_vars
        else:
            layered = has_layers(source.place)
        if not layered:
            raise StageError(
                f"products: {name} has no layers to be compared with. Name cubes of products, or "
                "tables with layers"
            )


def open_estimates(
    sources: Sequence[Source], baselines: Baselines, truth: xr.Dataset, keys: Cells
) -> list[Estimate]:
    """Estimates with their values in some cells.

    Args:
        sources: the estimates.
        baselines: the means that are further ones.
        truth: the whole ground truth, read where it is indexed: a neighbour lies anywhere.
        keys: the cells, see `base.cell_keys`. Estimates made of the ground truth have all its
            cells.
    """
    made = {source.estimate.name: _open(source, truth, keys) for source in sources}
    means = {
        name: mean_of(name, [made[member] for member in members])
        for name, members in baselines.means.items()
    }
    if baselines.tc_mean:
        means[TC_MEAN] = _weighted(means[TC_MEAN], baselines.tc_mean)
    return [*made.values(), *means.values()]


def check_weights(baselines: Baselines) -> None:
    """Whether the cube of weights has the products that a weighted mean names.

    Raises:
        NotACubeError: if the cube is not there.
        StageError: if it holds no weights, or not those of a product.
    """
    if baselines.tc_mean is None:
        return
    cube = open_cube(baselines.tc_mean.url, chunks=None)
    known = list(map(str, cube["product"].to_numpy())) if WEIGHT in cube.data_vars else []
    stray = sorted(set(baselines.tc_mean.members) - set(known))
    if stray:
        raise StageError(
            f"baselines.tc_mean: the cube {baselines.tc_mean.url} has no weight of "
            f"{', '.join(stray)}; it has those of {', '.join(known) or 'nothing'}"
        )


def _weighted(mean: MeanEstimate, chosen: Weighted) -> MeanEstimate:
    """A mean with the weights of its cells; one outside the cube of weights has no values."""
    cube = open_cube(chosen.url, chunks=None)
    products = list(map(str, cube["product"].to_numpy()))
    order = [products.index(product) for product in chosen.members]
    weights = np.full((len(mean.row), len(order)), np.nan)
    inside = np.isin(mean.keys, _inside(cube, mean.keys))
    found = read_cells(cube, WEIGHT, mean.row[inside], mean.column[inside])
    weights[inside] = found[:, order]
    return replace(mean, weights=weights)


def extents(
    sources: Sequence[Source], baselines: Baselines, truth: xr.Dataset
) -> dict[str, tuple[int, int]]:
    """Of each estimate how many cells and days of the ground truth it has; values are not read."""
    keys = np.unique(cell_keys(*(truth[name].to_numpy() for name in CELL)))
    days = truth["time"].to_numpy().astype("datetime64[D]")
    axes = {source.estimate.name: _axes(source, truth) for source in sources}
    for mean, members in baselines.means.items():
        axes[mean] = tuple(  # type: ignore[assignment]
            _common([axes[name][axis] for name in members]) for axis in (0, 1)
        )
    return {
        name: (int(np.isin(keys, cells).sum()), int(np.isin(days, time).sum()))
        for name, (cells, time) in axes.items()
    }


def _common(found: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    common = found[0]
    for other in found[1:]:
        common = np.intersect1d(common, other)
    return common


def _open(source: Source, truth: xr.Dataset, keys: Cells) -> Estimate:
    one = source.estimate
    if isinstance(one, Sensor):
        return SensorEstimate.of(truth, one.depth, one.name)
    if isinstance(one, Neighbour):
        return NeighbourEstimate.of(truth, one.max_distance_km, one.name)
    if isinstance(one, Cube):
        return _open_cube(source, truth["time"].to_numpy(), keys)
    return open_table(one.name, source.place, keys)


def _axes(source: Source, truth: xr.Dataset) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Cells and days that an estimate has, those of the ground truth at most."""
    keys = np.unique(cell_keys(*(truth[name].to_numpy() for name in CELL)))
    if isinstance(source.estimate, Cube):
        cube = open_pinned(source.place, source.snapshot)
        return _inside(cube, keys), cube["time"].to_numpy().astype("datetime64[D]")
    if isinstance(source.estimate, Table):
        return table_axes(source.place)
    made = _open(source, truth, keys)
    return made.keys, np.asarray(made.time).astype("datetime64[D]")


def _check_cube(source: Source) -> None:
    cube = open_pinned(source.place, source.snapshot)
    name, arrays = source.estimate.name, list(map(str, cube.data_vars))
    if LAYERS not in arrays and COEFFICIENTS not in arrays:
        raise StageError(
            f"estimate {name}: the cube {source.place} holds {', '.join(arrays)}; expected "
            f"{LAYERS} (layers of a product) or {COEFFICIENTS} (profiles)"
        )
    if "time" not in cube:
        raise StageError(f"estimate {name}: the cube {source.place} has no days")


def _inside(cube: xr.Dataset, keys: Cells) -> Cells:
    """Those of some cells that lie in the region of a cube."""
    region = region_of(cube.attrs)
    row, column = np.divmod(keys, grid.N_COLUMNS)
    inside = (row >= region.rows.start) & (row < region.rows.stop)
    inside &= (column >= region.columns.start) & (column < region.columns.stop)
    return np.asarray(keys[inside])


def _open_cube(source: Source, days: NDArray[np.datetime64], keys: Cells) -> Estimate:
    """The days of a cube that the ground truth has, in the cells that lie in its region."""
    cube = open_pinned(source.place, source.snapshot)
    name, there = source.estimate.name, _inside(cube, keys)
    row, column = np.divmod(there, grid.N_COLUMNS)
    time = cube["time"].to_numpy().astype("datetime64[D]")
    wanted = np.flatnonzero(np.isin(time, days.astype("datetime64[D]")))
    span = (int(wanted[0]), int(wanted[-1]) + 1) if wanted.size else (0, 0)
    time = time[slice(*span)]
    if COEFFICIENTS in cube.data_vars:
        values = read_cells(cube, COEFFICIENTS, row, column, span)
        return ProfileEstimate(name, row, column, time, values)
    values = read_cells(cube, LAYERS, row, column, span)
    bounds = [(layer.top, layer.bottom) for layer in layers_of(cube)]
    return LayerEstimate(name, row, column, time, bounds, values)
