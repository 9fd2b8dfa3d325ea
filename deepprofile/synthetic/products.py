"""ERA5-Land and GLDAS of the demo Earth on their own grids: scale x truth + bias + error.

Each product sees the truth through the footprint of its grid box. Errors are made on the grids
and sized so that they have the intended standard deviation after bilinear interpolation to the
9 km cells. The two products share a part of their errors; in the square of independent errors they
share none and forget within a day, in the group of correlated errors they share most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.sparse import csr_array

from deepprofile.synthetic.config import STEPS_PER_DAY, EarthConfig, GriddedErrors
from deepprofile.synthetic.domain import Domain, land_share
from deepprofile.synthetic.noise import Float32, generator, local_km, noise
from deepprofile.synthetic.truth import ERA5_LAYERS, GLDAS_LAYERS, Truth

BORDER = 2
"""Grid boxes by which a product reaches beyond the window on each side."""
DRIEST, WETTEST = 0.005, 0.75
"""Products report no soil moisture beyond these, m³ m⁻³."""
SHORT_MEMORY = 0.7
"""Days within which errors are forgotten in the square of independent errors."""
GAP_CENTRE, GAP_RADIUS = (0.82, 0.10), 0.125
"""Where GLDAS has no data: relative column and row in the window, radius in window widths."""
STRONG_CENTRE, STRONG_RADIUS = (0.25, 0.62), 0.21
"""Where ERA5-Land and GLDAS share most of their errors."""
STRONG_SHARED = 0.97
"""Correlation of their errors at the centre of that group; it falls outwards to a half."""


@dataclass(frozen=True)
class LatLonGrid:
    """Boxes of a regular latitude-longitude grid.

    Attributes:
        longitude: of the boxes, ascending, degrees east.
        latitude: of the boxes, ascending, degrees north.
        land: boxes that have data, shape (latitude, longitude).
    """

    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    land: NDArray[np.bool_]

    @property
    def spacing(self) -> float:
        """Side of a box in degrees."""
        return float(self.longitude[1] - self.longitude[0])

    @property
    def position(self) -> NDArray[np.float64]:
        """Centres of the boxes with data in km, (boxes, 2)."""
        lat, lon = np.meshgrid(self.latitude, self.longitude, indexing="ij")
        return local_km(lon[self.land], lat[self.land])

    def at_cells(self, domain: Domain, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Bilinear interpolation of values (…, land boxes); 0 at sea. Returns (…, cells)."""
        full = np.zeros((*boxes.shape[:-1], *self.land.shape))
        full[..., self.land] = boxes
        interpolator = RegularGridInterpolator(
            (self.latitude, self.longitude), np.moveaxis(full, (-2, -1), (0, 1))
        )
        return np.moveaxis(interpolator((domain.latitude, domain.longitude)), 0, -1)


@dataclass(frozen=True)
class GriddedProduct:
    """One product on its own grid.

    Attributes:
        grid: its boxes; those with data are the boxes below.
        footprint: weights of the cells in each box, sparse (boxes, cells).
        scale: factor on the truth, (boxes,).
        bias: m³ m⁻³, (boxes,).
        error: daily, (boxes, layers, days), m³ m⁻³.
        truth: what would be seen without error, (cells, layers, steps).
    """

    grid: LatLonGrid
    footprint: csr_array
    scale: Float32
    bias: Float32
    error: Float32
    truth: Float32

    def values(self, steps: slice) -> Float32:
        """Soil moisture, (steps, layers, boxes), m³ m⁻³."""
        cells = self.truth[:, :, steps]
        seen = self.footprint @ cells.reshape(len(cells), -1)
        days = np.arange(steps.start, steps.stop) // STEPS_PER_DAY
        values = seen.reshape(-1, *cells.shape[1:]) * self.scale[:, None, None]
        values += self.bias[:, None, None] + self.error[:, :, days]
        return np.asarray(np.clip(values, DRIEST, WETTEST).transpose(2, 1, 0), dtype=np.float32)


@dataclass(frozen=True)
class Products:
    """ERA5-Land, GLDAS, and the groups of cells that they make.

    Attributes:
        era5: ERA5-Land.
        gldas: GLDAS.
        masks: by name, boolean (cells,): ``independent``, ``correlated``, ``no_product``.
    """

    era5: GriddedProduct
    gldas: GriddedProduct
    masks: dict[str, NDArray[np.bool_]]


def make_products(config: EarthConfig, truth: Truth) -> Products:
    """Make both products from the truth."""
    domain = truth.domain
    era5 = _grid(domain, 0.1, 0.0)
    gldas = _with_gap(domain, _grid(domain, 0.25, 0.125))
    noises = _noises(config, truth, (era5, gldas))
    masks = {
        "independent": truth.independent & _whole(domain, era5) & _whole(domain, gldas),
        "correlated": _distance(domain, domain.position, STRONG_CENTRE)
        < 0.7 * STRONG_RADIUS * _width(domain),
        "no_product": (era5.at_cells(domain, np.ones(era5.land.sum())) < 0.5)
        | (gldas.at_cells(domain, np.ones(gldas.land.sum())) < 0.5),
    }
    return Products(
        _product(config, truth, "era5", era5, config.era5_errors, noises[0]),
        _product(config, truth, "gldas", gldas, config.gldas_errors, noises[1]),
        masks,
    )


def error_profile(errors: GriddedErrors, layers: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Mean sizes of the surface and the root error in layers, (2, layers), m³ m⁻³."""
    depth = (np.arange(1000) + 0.5) / 1000.0
    surface = errors.surface * np.exp(-depth / 0.12)
    root = errors.root * (1.0 - 0.5 * np.exp(-depth / 0.3))
    return np.array(
        [
            [part[(depth > top) & (depth < bottom)].mean() for top, bottom in layers]
            for part in (surface, root)
        ]
    )


def _grid(domain: Domain, spacing: float, offset: float) -> LatLonGrid:
    """Boxes around the window; land where more than half of the box is land."""
    longitude = _axis(domain.longitude, spacing, offset)
    latitude = _axis(domain.latitude, spacing, offset)
    land = land_share(domain.dem, longitude, latitude, spacing) > 0.5
    return LatLonGrid(longitude, latitude, land)


def _axis(values: NDArray[np.float64], spacing: float, offset: float) -> NDArray[np.float64]:
    first = np.floor((values.min() - offset) / spacing) - BORDER
    last = np.ceil((values.max() - offset) / spacing) + BORDER
    return np.asarray(np.round(np.arange(first, last + 1) * spacing + offset, 3))


def _with_gap(domain: Domain, boxes: LatLonGrid) -> LatLonGrid:
    """The same boxes without those near the centre of the gap."""
    radius = max(GAP_RADIUS * _width(domain), 20.0)
    land = boxes.land.copy()
    land[boxes.land] = _distance(domain, boxes.position, GAP_CENTRE) > radius
    return LatLonGrid(boxes.longitude, boxes.latitude, land)


def _distance(
    domain: Domain, position: NDArray[np.float64], centre: tuple[float, float]
) -> NDArray[np.float64]:
    """Distance in km of positions from a point given in parts of the window."""
    low, high = domain.position.min(axis=0), domain.position.max(axis=0)
    east = low[0] + centre[0] * (high[0] - low[0])
    north = high[1] - centre[1] * (high[1] - low[1])
    return np.asarray(np.hypot(position[:, 0] - east, position[:, 1] - north))


def _width(domain: Domain) -> float:
    """Width of the window in km."""
    return float(np.ptp(domain.position[:, 0]))


def _whole(domain: Domain, boxes: LatLonGrid) -> NDArray[np.bool_]:
    """Cells whose four neighbours all have data."""
    return boxes.at_cells(domain, np.ones(boxes.land.sum())) > 0.999


def _near_independent(truth: Truth, position: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Positions within reach of a bilinear interpolation to a cell of the square."""
    square = truth.domain.position[truth.independent]
    if not len(square):
        return np.zeros(len(position), dtype=bool)
    reach = 0.3 * 111.2
    inside = (position > square.min(axis=0) - reach) & (position < square.max(axis=0) + reach)
    return np.asarray(inside.all(axis=1))


def _noises(
    config: EarthConfig, truth: Truth, grids: tuple[LatLonGrid, LatLonGrid]
) -> list[tuple[Float32, Float32]]:
    """Surface and root noise (days, boxes) of unit variance at the cells, for both products."""
    counts = [int(boxes.land.sum()) for boxes in grids]
    everywhere = np.concatenate([boxes.position for boxes in grids])
    square = _near_independent(truth, everywhere)
    shared = _shared(config, truth.domain, everywhere)
    parts: list[list[Float32]] = [[], []]
    for kind in ("surface", "root"):
        days = getattr(config.era5_errors, f"{kind}_memory")
        memory = np.where(square, SHORT_MEMORY, days)
        rng = generator(config.seed, f"shared {kind} error")
        common = noise(rng, config.n_days, everywhere, 16.0, memory)
        start = 0
        for i, (boxes, count) in enumerate(zip(grids, counts, strict=True)):
            span = slice(start, start + count)
            start += count
            rng = generator(config.seed, f"own {kind} error {i}")
            length = 0.6 * boxes.spacing * 111.2
            own = noise(rng, config.n_days, boxes.position, length, memory[span])
            share = np.where(square[span], 0.0, shared[span]).astype(np.float32)
            mixed = np.sqrt(share) * common[:, span] + np.sqrt(1.0 - share) * own
            parts[i].append(mixed / _kept(truth.domain, boxes, own))
    return [(part[0], part[1]) for part in parts]


def _shared(
    config: EarthConfig, domain: Domain, position: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlation of the two products' errors at positions."""
    distance = _distance(domain, position, STRONG_CENTRE)
    radius = STRONG_RADIUS * _width(domain)
    strong = STRONG_SHARED - (STRONG_SHARED - 0.5) * distance / radius
    return np.where(distance < radius, strong, config.era5_errors.shared)


def _kept(domain: Domain, boxes: LatLonGrid, sample: Float32) -> np.float32:
    """Share of a noise's standard deviation that bilinear interpolation keeps."""
    inner = _whole(domain, boxes)
    at_cells = boxes.at_cells(domain, sample[:200])[:, inner]
    return np.float32(at_cells.std() / sample[:200].std())


def _product(
    config: EarthConfig,
    truth: Truth,
    name: str,
    boxes: LatLonGrid,
    errors: GriddedErrors,
    noises: tuple[Float32, Float32],
) -> GriddedProduct:
    rng = generator(config.seed, f"{name} bias and scale")
    layers, seen = (ERA5_LAYERS, truth.era5) if name == "era5" else (GLDAS_LAYERS, truth.gldas)
    surface, root = error_profile(errors, layers).astype(np.float32)
    error = surface[:, None] * noises[0].T[:, None] + root[:, None] * noises[1].T[:, None]
    return GriddedProduct(
        boxes,
        _footprint(truth.domain, boxes),
        np.clip(1.0 + errors.scale * noise(rng, 1, boxes.position, 30.0)[0], 0.6, 1.4),
        np.float32(errors.bias) * noise(rng, 1, boxes.position, 30.0)[0],
        error,
        seen,
    )


def _footprint(domain: Domain, boxes: LatLonGrid) -> csr_array:
    """Weights of the cells in each box: a Gaussian of the box's own width.

    A box beyond the window sees the nearest cells, so that interpolation works at the border.
    """
    width = boxes.spacing * 111.2 / np.sqrt(12.0)
    distance = boxes.position[:, None] - domain.position[None]
    exponent = -(distance**2).sum(axis=2) / (2.0 * width**2)
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    weight[weight < 1e-3] = 0.0
    return csr_array((weight / weight.sum(axis=1, keepdims=True)).astype(np.float32))
