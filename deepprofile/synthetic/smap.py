"""SMAP L4 of the demo Earth: an imperfect model of the truth and its 45 variables.

The model has soil parameters and rain of its own and is nudged to a noisy surface. Inputs and
targets come from this one state; nothing of the truth enters them. Only in the square of
independent errors does the model run with the true parameters and rain, and errors that forget
within a day are added to its soil moisture before any variable is derived from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepprofile.synthetic.column import DEEP_BOTTOM, STATE
from deepprofile.synthetic.config import STEPS_PER_DAY, EarthConfig
from deepprofile.synthetic.noise import Float32, generator, noise, static_field
from deepprofile.synthetic.soil import (
    Soil,
    column_porosity,
    evaporative_heat,
    layer_weights,
    run_columns,
)
from deepprofile.synthetic.truth import SURFACE, Truth
from deepprofile.synthetic.weather import STEP_SECONDS, Weather, saturation_humidity

LAYERS = [SURFACE, (0.0, 1.0), (0.0, DEEP_BOTTOM)]
"""0-5 cm, 0-100 cm and the whole profile."""
SHORT_ERRORS = (0.022, 0.022, 0.016)
"""Added errors of these layers in the square of independent errors, m³ m⁻³."""
PEAT_LEVEL = 0.97
"""Quantile of the mean root-zone wetness above which a cell is called peat."""


@dataclass(frozen=True)
class SmapState:
    """State of the model behind SMAP L4 at every step of three hours.

    Attributes:
        soil: its parameters.
        weather: its forcing.
        season: share of leaves out, (steps,).
        moisture: soil moisture of ``LAYERS``, (cells, 3, steps).
        state: variables of ``soil.STATE``, (cells, variables, steps).
        elevation: metres, (cells,).
    """

    soil: Soil
    weather: Weather
    season: NDArray[np.float64]
    moisture: Float32
    state: Float32
    elevation: NDArray[np.float64]

    @property
    def porosity(self) -> Float32:
        """Mean porosity of ``LAYERS``, (cells, 3)."""
        return porosity_of(self.soil.porosity, LAYERS)


def make_smap(config: EarthConfig, truth: Truth) -> SmapState:
    """Run the model behind SMAP L4."""
    soil = _soil(config, truth)
    weather = _weather(config, truth)
    spin_up = config.spin_up_days * STEPS_PER_DAY
    gain = config.smap_errors.nudging_gain
    observed = _observed(config, truth)
    run = run_columns(
        soil,
        weather,
        truth.season,
        LAYERS,
        spin_up=spin_up,
        observed=observed,
        gain=gain,
        want_state=True,
    )
    moisture = run.means + _short_error(config, truth)
    ceiling = porosity_of(soil.porosity, LAYERS)[:, :, None]
    return SmapState(
        soil,
        Weather(*(field[:, spin_up:] for field in weather)),
        truth.season[spin_up:],
        np.clip(moisture, 0.02, ceiling),
        run.state,
        truth.domain.elevation,
    )


def variables(smap: SmapState, steps: slice) -> dict[str, Float32]:
    """All 45 variables of an SPL4SMGP granule, each (cells, steps), by name.

    Args:
        smap: the state of the model.
        steps: steps of three hours since the first day.
    """
    fields = dict(zip(STATE, smap.state[:, :, steps].transpose(1, 0, 2), strict=True))
    fields |= _moisture(smap, steps)
    fields |= _atmosphere(smap, steps, fields)
    fields |= _vegetation(smap, steps)
    fields |= _energy(smap, steps, fields)
    fields |= _area_shares(smap, fields)
    fields |= _percentiles(smap, steps)
    return fields | _peat(smap, fields)


def months(config: EarthConfig) -> Iterator[slice]:
    """Spans of about a month of steps: what is held in memory at a time."""
    span = 30 * STEPS_PER_DAY
    total = config.n_days * STEPS_PER_DAY
    for first in range(0, total, span):
        yield slice(first, min(first + span, total))


def porosity_of(surface: NDArray[np.float64], layers: list[tuple[float, float]]) -> Float32:
    """Mean porosity of layers from the porosity at the surface, (cells, layers)."""
    return (column_porosity(surface) @ layer_weights(layers).T).astype(np.float32)


def _error_share(truth: Truth) -> NDArray[np.float64]:
    """1 where the model has its own parameters and rain, 0 in the independent square."""
    return np.where(truth.independent, 0.0, 1.0)


def _soil(config: EarthConfig, truth: Truth) -> Soil:
    """The truth's parameters, each off by a factor that varies in space."""
    factors: dict[str, NDArray[np.float64]] = {}
    for name, spread in config.smap_errors.parameters.items():
        rng = generator(config.seed, f"smap {name}")
        smooth = static_field(rng, truth.domain.position, 25.0)
        rough = static_field(rng, truth.domain.position, 4.0)
        offset = spread * _error_share(truth) * (0.8 * smooth + 0.6 * rough)
        factors[name] = getattr(truth.soil, name) * np.exp(offset)
    factors["porosity"] = np.clip(factors["porosity"], 0.3, 0.65)
    return truth.soil._replace(**factors)


def _weather(config: EarthConfig, truth: Truth) -> Weather:
    """The truth's weather with rain and temperature of its own."""
    errors, share = config.smap_errors, _error_share(truth)
    rng, position = generator(config.seed, "smap rain"), truth.domain.position
    rain = truth.weather.rain
    n_steps = rain.shape[1]
    storm = noise(rng, n_steps, position, 12.0, errors.rain_memory * STEPS_PER_DAY).T
    lasting = static_field(rng, position, 12.0) * errors.rain_bias * share
    spread = errors.rain_spread * share
    factor = np.exp(spread[:, None] * storm + (lasting - spread**2 / 2)[:, None])
    dry_drizzle = (rng.random(rain.shape) < errors.drizzle) & (rain == 0.0)
    drizzle = rng.exponential(0.35, rain.shape) / STEP_SECONDS * dry_drizzle * share[:, None]
    warm = 0.6 * noise(rng, n_steps, position, 60.0, 2 * STEPS_PER_DAY).T * share[:, None]
    return truth.weather._replace(
        rain=(rain * factor + drizzle).astype(np.float32),
        temperature=(truth.weather.temperature + warm).astype(np.float32),
    )


def _observed(config: EarthConfig, truth: Truth) -> Float32:
    """Noisy surface soil moisture at the updates, NaN at other steps; none in the square."""
    errors = config.smap_errors
    spin_up = config.spin_up_days * STEPS_PER_DAY
    observed = np.full((truth.domain.n_cells, spin_up + truth.surface.shape[1]), np.nan, "f4")
    updates = np.arange(2, truth.surface.shape[1], errors.nudging_days * STEPS_PER_DAY)
    rng = generator(config.seed, "smap observations")
    error = errors.nudging_noise * noise(rng, len(updates), truth.domain.position, 8.0).T
    observed[:, spin_up + updates] = truth.surface[:, updates] + error
    observed[truth.independent] = np.nan
    return observed


def _short_error(config: EarthConfig, truth: Truth) -> Float32:
    """Errors (cells, 3, steps) of the independent square, one value a day; zero elsewhere."""
    rng, position = generator(config.seed, "smap short error"), truth.domain.position
    layers = []
    root = noise(rng, config.n_days, position, 4.0, 0.7)
    surface = noise(rng, config.n_days, position, 4.0, 0.7)
    for size, share in zip(SHORT_ERRORS, (0.3, 0.95, 1.0), strict=True):
        daily = size * (share * root + np.sqrt(1.0 - share**2) * surface)
        layers.append(np.repeat(daily.T * truth.independent[:, None], STEPS_PER_DAY, axis=1))
    return np.stack(layers, axis=1)


def _moisture(smap: SmapState, steps: slice) -> dict[str, Float32]:
    """Soil moisture and wetness of surface, root zone and profile."""
    fields = {}
    for i, name in enumerate(("sm_surface", "sm_rootzone", "sm_profile")):
        fields[name] = smap.moisture[:, i, steps]
        fields[f"{name}_wetness"] = fields[name] / smap.porosity[:, i, None]
    return fields


def _atmosphere(smap: SmapState, steps: slice, fields: dict[str, Float32]) -> dict[str, Float32]:
    """Lowest atmospheric level, precipitation and downward radiation."""
    air, humidity = smap.weather.temperature[:, steps], smap.weather.humidity[:, steps]
    cloud, shortwave = smap.weather.cloud[:, steps], smap.weather.shortwave[:, steps]
    level = 101325.0 * (1.0 - 2.2557e-5 * smap.elevation[:, None]) ** 5.256
    pressure = (level - 1200.0 * (cloud - 0.4)).astype(np.float32)
    net_longwave = smap.weather.net_longwave[:, steps]
    return {
        "surface_pressure": pressure,
        "height_lowatmmodlay": 0.22 * air,
        "temp_lowatmmodlay": air,
        "specific_humidity_lowatmmodlay": humidity * saturation_humidity(air, pressure),
        "windspeed_lowatmmodlay": 2.0 + 6.0 * cloud**2 + smap.elevation[:, None] / 1500.0,
        "radiation_shortwave_downward_flux": shortwave,
        "radiation_longwave_absorbed_flux": 5.67e-8 * air**4 + net_longwave,
        "net_downward_shortwave_flux": shortwave
        * (0.82 - 0.5 * (1.0 - np.exp(-fields["snow_mass"] / 15.0))),
        "net_downward_longwave_flux": net_longwave,
        "precipitation_total_surface_flux": smap.weather.rain[:, steps],
        "snow_depth": fields["snow_mass"] / 220.0,
    }


def _vegetation(smap: SmapState, steps: slice) -> dict[str, Float32]:
    """Leaf area, greenness and the opacity that a radiometer sees."""
    low, high = smap.soil.leaf_minimum[:, None], smap.soil.leaf_maximum[:, None]
    leaf = (low + (high - low) * smap.season[steps]).astype(np.float32)
    return {
        "leaf_area_index": leaf,
        "vegetation_greenness_fraction": 1.0 - np.exp(-0.6 * leaf),
        "mwrtm_vegopacity": 0.11 * leaf,
    }


def _energy(smap: SmapState, steps: slice, fields: dict[str, Float32]) -> dict[str, Float32]:
    """Latent, ground and sensible heat; the sensible heat closes the balance."""
    latent = evaporative_heat(fields["land_evapotranspiration_flux"])
    ground = 9.0 * (fields["surface_temp"] - fields["soil_temp_layer1"])
    net = fields["net_downward_shortwave_flux"] + fields["net_downward_longwave_flux"]
    return {
        "heat_flux_latent": latent,
        "heat_flux_ground": ground,
        "heat_flux_sensible": net - latent - ground,
    }


def _area_shares(smap: SmapState, fields: dict[str, Float32]) -> dict[str, Float32]:
    """Shares of a cell under snow and, of the rest, saturated, wilting and in between."""
    snow = 1.0 - np.exp(-fields["snow_mass"] / 15.0)
    wet, root = fields["sm_surface_wetness"], fields["sm_rootzone_wetness"]
    saturated = (1.0 - snow) * (0.5 * wet + 0.5 * root) ** 6
    wilting = np.clip((smap.soil.wilting[:, None] + 0.06 - root) / 0.12, 0.0, 1.0)
    wilting = (1.0 - snow - saturated) * wilting
    return {
        "land_fraction_snow_covered": snow,
        "land_fraction_saturated": saturated,
        "land_fraction_wilting": wilting,
        "land_fraction_unsaturated": np.clip(1.0 - snow - saturated - wilting, 0.0, 1.0),
    }


def _percentiles(smap: SmapState, steps: slice) -> dict[str, Float32]:
    """Standing among all days of the cell's own series, in %."""
    fields = {}
    for i, name in ((1, "sm_rootzone_pctl"), (2, "sm_profile_pctl")):
        series = smap.moisture[:, i]
        ranked = np.sort(series[:, ::STEPS_PER_DAY], axis=1)
        place = [
            np.searchsorted(row, values)
            for row, values in zip(ranked, series[:, steps], strict=True)
        ]
        fields[name] = (100.0 / ranked.shape[1] * np.asarray(place)).astype(np.float32)
    return fields


def _peat(smap: SmapState, fields: dict[str, Float32]) -> dict[str, Float32]:
    """Water table and free water of the wettest cells; NaN in all others."""
    mean = (smap.moisture[:, 1] / smap.porosity[:, 1, None]).mean(axis=1)
    peat = (mean >= np.quantile(mean, PEAT_LEVEL))[:, None]
    wet = fields["sm_profile_wetness"]
    table = np.where(peat, -0.9 * (1.0 - wet), np.nan)
    free = np.where(peat, 1e-5 * (wet - 0.5), np.nan)
    return {
        "depth_to_water_table_from_surface_in_peat": table.astype(np.float32),
        "free_surface_water_on_peat_flux": free.astype(np.float32),
    }
