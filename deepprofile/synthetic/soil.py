"""Parameters of the soil columns, and a run of all of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepprofile.synthetic.column import EDGES, N_LAYERS, PORE_DECLINE, STATE, run_kernel
from deepprofile.synthetic.config import STEPS_PER_DAY
from deepprofile.synthetic.noise import Float32
from deepprofile.synthetic.weather import LATENT_HEAT, Weather


class Soil(NamedTuple):
    """Parameters of the columns, each of shape (cells,).

    Attributes:
        porosity: φ at the surface in m³ m⁻³.
        exponent: b of Clapp-Hornberger.
        conductivity: Ks at the surface in m s⁻¹.
        suction: ψs in m.
        decay: depth in m over which Ks falls by a factor e.
        root_depth: depth in m over which the root density falls by a factor e.
        evaporation: factor on the potential evaporation.
        wilting: saturation below which roots take nothing.
        leaf_minimum: leaf area index in winter.
        leaf_maximum: leaf area index in summer.
    """

    porosity: NDArray[np.float64]
    exponent: NDArray[np.float64]
    conductivity: NDArray[np.float64]
    suction: NDArray[np.float64]
    decay: NDArray[np.float64]
    root_depth: NDArray[np.float64]
    evaporation: NDArray[np.float64]
    wilting: NDArray[np.float64]
    leaf_minimum: NDArray[np.float64]
    leaf_maximum: NDArray[np.float64]


class Run(NamedTuple):
    """What a run of the columns gives, without the spin-up.

    Attributes:
        means: soil moisture of the asked layers in m³ m⁻³, (cells, layers, steps).
        daily: daily soil moisture of all 20 layers, (cells, 20, days).
        state: the variables of ``STATE``, (cells, variables, steps).
    """

    means: Float32
    daily: Float32
    state: Float32


def layer_weights(layers: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Weights of the column's 21 layers in the means of other layers, (layers, 21)."""
    bounds = np.asarray(layers)
    overlap = np.minimum(bounds[:, 1:], EDGES[1:]) - np.maximum(bounds[:, :1], EDGES[:-1])
    return np.asarray(np.maximum(overlap, 0.0) / (bounds[:, 1:] - bounds[:, :1]))


def column_porosity(surface: NDArray[np.float64]) -> NDArray[np.float64]:
    """Porosity of the column's 21 layers from that at the surface, (cells, 21)."""
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    return np.asarray(surface[:, None] * (1.0 - PORE_DECLINE * np.minimum(middle, 1.0)))


def leaf_season(n_steps: int, first_day_of_year: float) -> NDArray[np.float64]:
    """Share of the leaves that are out, 0-1, most in June, shape (steps,)."""
    day = first_day_of_year + np.arange(n_steps) / STEPS_PER_DAY
    return np.asarray((0.5 - 0.5 * np.cos(2.0 * np.pi * (day + 15.0) / 365.25)) ** 1.5)


def run_columns(
    soil: Soil,
    weather: Weather,
    season: NDArray[np.float64],
    layers: list[tuple[float, float]],
    *,
    spin_up: int,
    observed: Float32 | None = None,
    gain: float = 0.0,
    want_state: bool = False,
) -> Run:
    """Run all columns.

    Args:
        soil: parameters.
        weather: forcing, (cells, steps).
        season: share of leaves out, (steps,).
        layers: (top, bottom) in metres of the layers whose means are kept at every step.
        spin_up: steps at the beginning that are not kept.
        observed: 0-5 cm soil moisture towards which the state is nudged, (cells, steps), NaN
            where there is none.
        gain: share of the distance taken at a nudging.
        want_state: whether the variables of ``STATE`` are kept.
    """
    n_cells, n_steps = weather.rain.shape
    kept = n_steps - spin_up
    run = Run(
        np.empty((n_cells, len(layers), kept), np.float32),
        np.zeros((n_cells, N_LAYERS, kept // STEPS_PER_DAY), np.float32),
        np.empty((n_cells, len(STATE), kept if want_state else 0), np.float32),
    )
    if observed is None:
        observed = np.full((n_cells, 1), np.nan, np.float32)
    forcing = weather.rain, weather.temperature, weather.shortwave, weather.demand
    run_kernel(soil, *forcing, season, layer_weights(layers), spin_up, observed, gain, *run)
    return run


def evaporative_heat(flux: Float32) -> Float32:
    """Latent heat flux in W m⁻² of an evaporation in kg m⁻² s⁻¹."""
    return np.asarray(flux * np.float32(LATENT_HEAT))
