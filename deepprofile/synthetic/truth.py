"""The truth of the demo Earth: parameters of its soil, its run, and its file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepprofile import places
from deepprofile.profile import check_depth, check_layer
from deepprofile.store.layout import EPOCH
from deepprofile.synthetic.column import INTERFACES
from deepprofile.synthetic.config import STEPS_PER_DAY, EarthConfig
from deepprofile.synthetic.domain import Domain, make_domain
from deepprofile.synthetic.noise import Float32, generator, static_field
from deepprofile.synthetic.soil import Run, Soil, leaf_season, run_columns
from deepprofile.synthetic.weather import Weather, flatten, make_weather

ERA5_LAYERS = [(0.0, 0.07), (0.07, 0.28), (0.28, 1.0)]
GLDAS_LAYERS = [(0.0, 0.10), (0.10, 0.40), (0.40, 1.0)]
SURFACE = (0.0, 0.05)
MASKS = ("independent", "correlated", "no_product")
"""Groups of cells marked in the truth."""


@dataclass(frozen=True)
class Truth:
    """The world as it is.

    Attributes:
        domain: cells.
        plain: (cells,), 0-1: how far soil and weather are those of one uniform plain.
        independent: (cells,): cells whose product errors are independent of each other.
        soil: parameters.
        weather: forcing, with the spin-up.
        season: share of leaves out at every step, with the spin-up.
        run: layers of ERA5-Land (3), of GLDAS (3) and 0-5 cm at every step; daily columns.
    """

    domain: Domain
    plain: NDArray[np.float64]
    independent: NDArray[np.bool_]
    soil: Soil
    weather: Weather
    season: NDArray[np.float64]
    run: Run

    @property
    def era5(self) -> Float32:
        """Soil moisture of the ERA5-Land layers, (cells, 3, steps)."""
        return self.run.means[:, :3]

    @property
    def gldas(self) -> Float32:
        """Soil moisture of the GLDAS layers, (cells, 3, steps)."""
        return self.run.means[:, 3:6]

    @property
    def surface(self) -> Float32:
        """Soil moisture of 0-5 cm, (cells, steps)."""
        return self.run.means[:, 6]


def make_truth(config: EarthConfig) -> Truth:
    """Run the columns of the demo Earth."""
    domain = make_domain(config)
    plain, independent = _plain(config, domain)
    soil = _soil(config, domain, plain)
    weather = make_weather(config, domain, plain)
    first_day = config.start.timetuple().tm_yday - 1 - config.spin_up_days
    season = leaf_season(weather.rain.shape[1], first_day)
    layers = [*ERA5_LAYERS, *GLDAS_LAYERS, SURFACE]
    spin_up = config.spin_up_days * STEPS_PER_DAY
    run = run_columns(soil, weather, season, layers, spin_up=spin_up)
    return Truth(domain, plain, independent, soil, weather, season, run)


def write_truth(
    truth: Truth, config: EarthConfig, masks: dict[str, NDArray[np.bool_]], path: Path
) -> None:
    """Write the daily truth of every cell and the masks as netCDF.

    Args:
        truth: the world.
        config: what it was made from.
        masks: boolean arrays (cells,) by name.
        path: the file.
    """
    domain, n_days = truth.domain, truth.run.daily.shape[2]
    first = (config.start - EPOCH).days
    cells = {
        "row": domain.rows[domain.row].astype(np.int32),
        "column": domain.columns[domain.column].astype(np.int32),
        "longitude": domain.longitude,
        "latitude": domain.latitude,
        "elevation": domain.elevation.astype(np.float32),
    }
    moisture = {"units": "m3 m-3", "long_name": "true daily soil moisture of each soil layer"}
    dataset = xr.Dataset(
        {
            "soil_moisture": (("cell", "soil_layer", "time"), truth.run.daily, moisture),
            "interface": ("boundary", INTERFACES, {"units": "m", "long_name": "depth"}),
            **{name: ("cell", mask.astype(np.uint8)) for name, mask in masks.items()},
        },
        coords={
            **{name: ("cell", values) for name, values in cells.items()},
            "time": ("time", first + np.arange(n_days), {"units": f"days since {EPOCH}"}),
        },
        attrs={"title": "Truth of the DeepProfile demo Earth", "config": repr(config)},
    )
    dataset.to_netcdf(path, engine="h5netcdf")


def read_truth(path: str | Path) -> xr.Dataset:
    """Open the truth of a demo Earth, at a local path or a URL.

    Returns:
        ``soil_moisture(cell, soil_layer, time)`` in m³ m⁻³, ``interface(boundary)`` in metres,
        coordinates ``row``, ``column``, ``longitude``, ``latitude``, ``elevation`` of each cell,
        and boolean masks ``independent``, ``correlated``, ``no_product``.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not places.exists(path):
        raise FileNotFoundError(f"no truth at {path}: write the demo Earth first")
    with places.local_copy(path) as file, xr.open_dataset(file, engine="h5netcdf") as dataset:
        loaded = dataset.load()
    masks = {name: loaded[name].astype(bool) for name in MASKS}
    return loaded.assign(masks)


def truth_layer(truth: xr.Dataset, top: float, bottom: float) -> xr.DataArray:
    """True mean soil moisture (cell, time) of the layer from ``top`` to ``bottom`` in metres."""
    check_layer(top, bottom)
    edges = truth["interface"].values
    overlap = np.minimum(edges[1:], bottom) - np.maximum(edges[:-1], top)
    weights = xr.DataArray(np.maximum(overlap, 0.0) / (bottom - top), dims="soil_layer")
    mean: xr.DataArray = xr.dot(
        truth["soil_moisture"], weights.astype(np.float32), dim="soil_layer"
    )
    return mean


def truth_at(truth: xr.Dataset, depth: float) -> xr.DataArray:
    """True soil moisture (cell, time) at ``depth`` in metres, linear between layer middles."""
    weights = xr.DataArray(depth_weights(depth), dims="soil_layer")
    mean: xr.DataArray = xr.dot(
        truth["soil_moisture"], weights.astype(np.float32), dim="soil_layer"
    )
    return mean


def depth_weights(depth: float) -> NDArray[np.float64]:
    """Weights of the 20 layers in the value at a depth (metres); constant beyond the middles."""
    check_depth(depth)
    middle = 0.5 * (INTERFACES[1:] + INTERFACES[:-1])
    unit = np.eye(len(middle))
    return np.array([np.interp(depth, middle, row) for row in unit])


def _plain(config: EarthConfig, domain: Domain) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How uniform soil and weather are (0-1), and the cells with independent errors.

    The products see a footprint of several cells. Around the independent square the world is
    made nearly uniform, so that what they see there is the cell's own truth. The square is at
    most a third of the window wide.
    """
    side = min(config.independent_cells, len(domain.rows) // 3, len(domain.columns) // 3)
    distance = np.maximum(domain.row, domain.column) - side
    plain = 0.95 * np.clip(1.0 - (distance - 1.0) / 5.0, 0.0, 1.0)
    if side == 0:
        plain = np.zeros(domain.n_cells)
    return plain, distance < 0


def _soil(config: EarthConfig, domain: Domain, plain: NDArray[np.float64]) -> Soil:
    """Parameters that vary smoothly, a little from cell to cell, and with height."""

    def field(name: str) -> NDArray[np.float64]:
        rng = generator(config.seed, f"soil {name}")
        smooth = static_field(rng, domain.position, 30.0)
        rough = static_field(rng, domain.position, 4.0)
        return flatten(0.92 * smooth + 0.39 * rough, plain)

    texture = field("texture")
    high = flatten(np.minimum(domain.elevation / 1500.0, 1.0), plain)
    return Soil(
        porosity=np.clip(0.46 + 0.035 * field("porosity"), 0.36, 0.56),
        exponent=np.clip(5.5 * np.exp(0.22 * texture), 3.5, 9.5),
        conductivity=5.0e-6 * np.exp(-0.45 * texture + 0.35 * field("conductivity")),
        suction=0.20 * np.exp(0.25 * field("suction")),
        decay=0.9 * np.exp(0.25 * field("decay") - 0.2 * high),
        root_depth=0.30 * np.exp(0.30 * field("root_depth")),
        evaporation=1.0 * np.exp(0.06 * field("evaporation")),
        wilting=0.10 + 0.028 * 5.5 * np.exp(0.22 * texture) + 0.02 * field("wilting"),
        leaf_minimum=np.clip(0.7 + 0.3 * field("leaf_minimum"), 0.1, 1.6),
        leaf_maximum=np.clip(3.2 + 0.8 * field("leaf_maximum"), 1.7, 5.5),
    )
