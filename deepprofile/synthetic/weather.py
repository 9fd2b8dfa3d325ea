"""Weather of the demo Earth: rain, air temperature, radiation and evaporative demand."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepprofile.synthetic.config import STEPS_PER_DAY, EarthConfig
from deepprofile.synthetic.domain import Domain
from deepprofile.synthetic.noise import Float32, generator, noise, static_field

STEP_SECONDS = 86400 // STEPS_PER_DAY
FREEZING = 273.15
SECONDS_PER_YEAR = 365.25 * 86400.0
ANNUAL_RAIN = 900.0
"""Mean precipitation in kg m⁻² a year over all cells."""
LATENT_HEAT = 2.5e6
"""Of vaporisation, in J kg⁻¹."""


class Weather(NamedTuple):
    """Forcing of the columns in steps of three hours, each array (cells, steps).

    Attributes:
        rain: precipitation, rain or snow, in kg m⁻² s⁻¹.
        temperature: air temperature in K.
        humidity: relative humidity, 0-1.
        cloud: cloud cover, 0-1.
        shortwave: downward shortwave radiation in W m⁻².
        net_longwave: net downward longwave radiation in W m⁻².
        demand: potential evaporation in kg m⁻² s⁻¹.
    """

    rain: Float32
    temperature: Float32
    humidity: Float32
    cloud: Float32
    shortwave: Float32
    net_longwave: Float32
    demand: Float32


def make_weather(config: EarthConfig, domain: Domain, plain: NDArray[np.float64]) -> Weather:
    """Weather of the spin-up and of the span, seeded.

    Args:
        config: the demo Earth.
        domain: its cells.
        plain: shape (cells,), 0-1: where it is 1 the weather is the same in all cells.

    Returns:
        Arrays of (cells, 8 x (spin-up days + days)).
    """
    n_steps = (config.spin_up_days + config.n_days) * STEPS_PER_DAY
    day = np.arange(n_steps) / STEPS_PER_DAY - config.spin_up_days
    day = (day + config.start.timetuple().tm_yday - 1) % 365.25
    hour = 24.0 * (np.arange(n_steps) % STEPS_PER_DAY + 0.5) / STEPS_PER_DAY
    wet, rain = _rain(config, domain, plain, day)
    cloud = _cloud(day, wet)
    temperature = _temperature(config, domain, plain, day, hour, cloud)
    humidity = np.clip(0.42 + 0.45 * cloud - 0.012 * (temperature - 288.0), 0.2, 1.0)
    shortwave = _clear_sky(day, hour, domain.latitude) * (1.0 - 0.7 * cloud**2)
    longwave = _net_longwave(temperature, humidity, cloud)
    demand = _potential_evaporation(0.8 * shortwave + longwave, temperature)
    fields = rain, temperature, humidity, cloud, shortwave, longwave, demand
    return Weather(*(np.ascontiguousarray(field.T, dtype=np.float32) for field in fields))


def saturation_humidity(temperature: Float32, pressure: Float32) -> Float32:
    """Specific humidity at saturation in kg kg⁻¹ (Magnus formula over water)."""
    celsius = temperature - FREEZING
    vapour = 611.2 * np.exp(17.62 * celsius / (243.12 + celsius))
    return np.asarray(0.622 * vapour / (pressure - 0.378 * vapour), dtype=np.float32)


def flatten(field: NDArray[np.float64], plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw a field (…, cells) towards its mean over the plain, where ``plain`` is near 1."""
    if not plain.any():
        return field
    mean = (field * plain).sum(axis=-1, keepdims=True) / plain.sum()
    return np.asarray(field + plain * (mean - field))


def _season(day: NDArray[np.float64]) -> NDArray[np.float64]:
    """Phase of the year, 0 in mid-January."""
    return np.asarray(2.0 * np.pi * (day - 15.0) / 365.25)


def _rain(
    config: EarthConfig,
    domain: Domain,
    plain: NDArray[np.float64],
    day: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wetness of the air (about 0 ± 1) and rain in kg m⁻² s⁻¹, both (steps, cells)."""
    rng, position = generator(config.seed, "rain"), domain.position
    spell = noise(rng, len(day), position, 250.0, 30.0)
    storm = noise(rng, len(day), position, 45.0, 3.0)
    wet = flatten((0.65 * spell + 0.76 * storm).astype(np.float64), plain)
    climate = static_field(generator(config.seed, "rain climate"), position, 60.0)
    height = domain.elevation / 1000.0
    shift = flatten(0.16 * climate + 0.22 * np.minimum(height, 1.5), plain)
    threshold = 1.60 - shift
    excess = np.maximum(wet - threshold, 0.0)
    intensity = 2.0 + np.cos(_season(day) - np.pi)[:, None]
    rain = intensity * (excess + 1.6 * excess**2)
    return wet, rain * (ANNUAL_RAIN / SECONDS_PER_YEAR / rain.mean())


def _cloud(day: NDArray[np.float64], wet: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cloud cover 0-1, more in winter and in wet air, (steps, cells)."""
    cover = 0.35 + 0.25 * np.cos(_season(day))[:, None] + 0.22 * wet
    return np.asarray(np.clip(cover, 0.02, 1.0))


def _temperature(
    config: EarthConfig,
    domain: Domain,
    plain: NDArray[np.float64],
    day: NDArray[np.float64],
    hour: NDArray[np.float64],
    cloud: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Air temperature in K, (steps, cells)."""
    rng = generator(config.seed, "temperature")
    synoptic = 3.0 * noise(rng, len(day), domain.position, 250.0, 4.0 * STEPS_PER_DAY)
    mean = FREEZING + 16.0 - 0.0062 * domain.elevation - 0.8 * (domain.latitude - 40.7)
    annual = -10.0 * np.cos(_season(day) - 0.1)[:, None]
    diurnal = -np.cos(2.0 * np.pi * (hour - 3.0) / 24.0)[:, None] * (6.0 - 4.0 * cloud)
    return flatten(mean + synoptic, plain) + annual + diurnal


def _clear_sky(
    day: NDArray[np.float64], hour: NDArray[np.float64], latitude: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Clear-sky shortwave radiation in W m⁻² at 23°E (hours are UTC), (steps, cells)."""
    declination = np.radians(-23.44 * np.cos(2.0 * np.pi * (day + 10.0) / 365.25))[:, None]
    angle = np.radians(15.0 * (hour + 23.0 / 15.0 - 12.0))[:, None]
    phi = np.radians(latitude)
    sine = np.sin(phi) * np.sin(declination)
    sine = sine + np.cos(phi) * np.cos(declination) * np.cos(angle)
    return np.asarray(1361.0 * 0.75 * np.maximum(sine, 0.0))


def _net_longwave(
    temperature: NDArray[np.float64], humidity: NDArray[np.float64], cloud: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Net downward longwave radiation in W m⁻²: always a loss."""
    emitted = 5.67e-8 * temperature**4
    return np.asarray(-emitted * (0.30 - 0.10 * humidity) * (1.0 - 0.75 * cloud))


def _potential_evaporation(
    net: NDArray[np.float64], temperature: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Priestley-Taylor evaporation in kg m⁻² s⁻¹ from net radiation in W m⁻²."""
    celsius = temperature - FREEZING
    slope = 4098.0 * 0.6112 * np.exp(17.62 * celsius / (243.12 + celsius))
    slope = slope / (237.3 + celsius) ** 2
    return np.asarray(1.26 * slope / (slope + 0.066) * np.maximum(net, 0.0) / LATENT_HEAT)
