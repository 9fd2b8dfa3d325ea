"""The compiled kernel that runs soil columns.

Each column has 20 layers to 1 m and a reservoir from 1 to 2 m. Water moves by the Richards
equation with the Clapp-Hornberger relations (K = Ks S^(2b+3), D = b Ks ψs S^(b+2) / φ), solved
implicitly and linearised once per step; rain infiltrates, runs off when the soil is full, roots
and bare soil give water back, snow lies, melts, and frozen ground slows all movement.
"""

import math
from typing import Any

import numpy as np
from numba import njit, prange

from deepprofile.synthetic.config import STEPS_PER_DAY
from deepprofile.synthetic.weather import FREEZING, STEP_SECONDS

# fmt: off
INTERFACES = np.array([
    0.00, 0.01, 0.025, 0.05, 0.07, 0.10, 0.13, 0.17, 0.22, 0.28, 0.34,
    0.40, 0.46, 0.52, 0.58, 0.64, 0.70, 0.77, 0.84, 0.92, 1.00,
])
# fmt: on
"""Boundaries of the 20 layers in metres."""
DEEP_BOTTOM = 2.0
"""Bottom of the reservoir below the column in metres."""
EDGES = np.append(INTERFACES, DEEP_BOTTOM)
N_LAYERS = len(INTERFACES) - 1
STATE = (
    "surface_temp",
    "soil_temp_layer1",
    "soil_temp_layer2",
    "soil_temp_layer3",
    "soil_temp_layer4",
    "soil_temp_layer5",
    "soil_temp_layer6",
    "snow_mass",
    "snowfall_surface_flux",
    "snow_melt_flux",
    "soil_water_infiltration_flux",
    "overland_runoff_flux",
    "baseflow_flux",
    "land_evapotranspiration_flux",
)
"""What the kernel reports besides soil moisture."""
PORE_DECLINE = 0.08
"""Share of the porosity lost from the surface to 1 m."""
NUDGING_DEPTH = 0.04
"""Depth in m over which a nudging fades below 5 cm."""
_SOIL_TEMP_DAYS = np.array([0.3, 1.0, 3.0, 10.0, 30.0, 120.0])


@njit(cache=True, parallel=True, fastmath={"contract", "reassoc", "arcp", "afn"})
def run_kernel(
    soil: Any,
    rain: Any,
    temperature: Any,
    shortwave: Any,
    demand: Any,
    season: Any,
    weights: Any,
    spin_up: int,
    observed: Any,
    gain: float,
    means: Any,
    daily: Any,
    state: Any,
) -> None:  # pragma: no cover - compiled
    """All columns, one after another; the arguments are those of ``run_columns``."""
    n = EDGES.size - 1
    for cell in prange(rain.shape[0]):
        thick = EDGES[1:] - EDGES[:-1]
        middle = 0.5 * (EDGES[1:] + EDGES[:-1])
        pore = soil.porosity[cell] * (1.0 - PORE_DECLINE * np.minimum(middle, 1.0))
        conductivity = soil.conductivity[cell] * np.exp(-np.minimum(middle, 1.0) / soil.decay[cell])
        roots = np.exp(-middle / soil.root_depth[cell]) * thick
        roots[n - 1] = 0.0
        roots /= roots.sum()
        b = soil.exponent[cell]
        theta = 0.55 * pore
        work = np.empty((5, n))
        soil_temp = np.full(6, FREEZING + 12.0)
        snow = 0.0
        for t in range(rain.shape[1]):
            air = temperature[cell, t]
            water, fall, melt, snow = _snow(rain[cell, t], air, snow)
            surface = _surface_temp(air, shortwave[cell, t], theta[0] / pore[0], snow)
            for i in range(6):
                rate = 1.0 / (STEPS_PER_DAY * _SOIL_TEMP_DAYS[i])
                soil_temp[i] += (surface - soil_temp[i]) * (1.0 - math.exp(-rate))
            thaw = 1.0 / (1.0 + math.exp(-(soil_temp[1] - FREEZING + 1.0) * 2.0))
            leaf = soil.leaf_minimum[cell]
            leaf += (soil.leaf_maximum[cell] - leaf) * season[t]
            wanted = soil.evaporation[cell] * demand[cell, t] * STEP_SECONDS / 1000.0
            if snow > 1.0:
                wanted *= 0.2
            evaporated = _evaporate(
                theta, pore, roots, thick, soil.wilting[cell], wanted, leaf, thaw
            )
            depth = water * STEP_SECONDS / 1000.0
            saturated = min((theta[:6] / pore[:6]).mean(), 1.0) ** 8
            runoff = depth * saturated * 0.6
            baseflow = 0.0
            passes = 1 if depth < 5e-4 else 3
            for _ in range(passes):
                over, drained = _move(
                    theta,
                    pore,
                    thick,
                    middle,
                    conductivity,
                    b,
                    soil.suction[cell],
                    0.05 + 0.95 * thaw,
                    (depth - saturated * 0.6 * depth) / passes,
                    STEP_SECONDS / passes,
                    work,
                )
                runoff += over
                baseflow += drained
            if observed.shape[1] > 1 and not np.isnan(observed[cell, t]):
                _nudge(theta, pore, thick, middle, observed[cell, t], gain)
            if t < spin_up:
                continue
            k = t - spin_up
            for m in range(weights.shape[0]):
                total = 0.0
                for i in range(n):
                    total += weights[m, i] * theta[i]
                means[cell, m, k] = total
            for i in range(n - 1):
                daily[cell, i, k // STEPS_PER_DAY] += theta[i] / STEPS_PER_DAY
            if state.shape[2] > 0:
                per_second = 1000.0 / STEP_SECONDS
                state[cell, 0, k] = surface
                for i in range(6):
                    state[cell, 1 + i, k] = soil_temp[i]
                state[cell, 7, k] = snow
                state[cell, 8, k] = fall
                state[cell, 9, k] = melt
                state[cell, 10, k] = max(depth - runoff, 0.0) * per_second
                state[cell, 11, k] = runoff * per_second
                state[cell, 12, k] = baseflow * per_second
                state[cell, 13, k] = evaporated * per_second


@njit(cache=True)
def _snow(
    rain: float, air: float, snow: float
) -> tuple[float, float, float, float]:  # pragma: no cover - compiled
    """Water that reaches the soil, snowfall, melt (kg m⁻² s⁻¹) and the snow left (kg m⁻²)."""
    share = min(max((FREEZING + 2.0 - air) / 3.0, 0.0), 1.0)
    fall = rain * share
    snow += fall * STEP_SECONDS
    melt = min(snow, 4.0 / STEPS_PER_DAY * max(air - FREEZING, 0.0)) / STEP_SECONDS
    return rain - fall + melt, fall, melt, max(snow - melt * STEP_SECONDS, 0.0)


@njit(cache=True)
def _surface_temp(
    air: float, shortwave: float, wetness: float, snow: float
) -> float:  # pragma: no cover - compiled
    """Skin temperature in K: warmer than the air in the sun, the more so where it is dry."""
    skin = air - 1.0 + 0.012 * shortwave * (1.2 - 0.8 * wetness)
    return min(skin, FREEZING) if snow > 5.0 else skin


@njit(cache=True)
def _evaporate(
    theta: Any,
    pore: Any,
    roots: Any,
    thick: Any,
    wilting: float,
    wanted: float,
    leaf: float,
    thaw: float,
) -> float:  # pragma: no cover - compiled
    """Take water for roots and bare soil out of ``theta``; returns the metres taken."""
    critical = wilting + 0.30
    cover = 1.0 - math.exp(-0.5 * leaf)
    taken = 0.0
    for i in range(theta.size):
        wet = theta[i] / pore[i]
        stress = min(max((wet - wilting) / (critical - wilting), 0.0), 1.0)
        loss = wanted * cover * roots[i] * stress * thaw
        if i < 3:
            bare = min(max((wet - 0.16) / 0.55, 0.0), 1.0)
            loss += wanted * (1.0 - cover) * bare * bare * (0.4, 0.35, 0.25)[i] * thaw
        loss = min(loss, max(theta[i] - 0.05 * pore[i], 0.0) * thick[i])
        theta[i] -= loss / thick[i]
        taken += loss
    return taken


@njit(cache=True, fastmath={"contract", "reassoc", "arcp", "afn"})
def _move(
    theta: Any,
    pore: Any,
    thick: Any,
    middle: Any,
    conductivity: Any,
    b: float,
    suction: float,
    thaw: float,
    supply: float,
    seconds: float,
    work: Any,
) -> tuple[float, float]:  # pragma: no cover - compiled
    """One implicit step of the Richards equation on ``theta``, in place.

    Args are those of one column; ``supply`` is the water in metres that reaches the soil.
    Returns the metres that run off and that drain out of the bottom.
    """
    n = theta.size
    slope = 0.0
    lower, diagonal, upper, right, log_wet = work[0], work[1], work[2], work[3], work[4]
    for i in range(n):
        log_wet[i] = math.log(min(max(theta[i] / pore[i], 0.01), 1.0))
        diagonal[i] = thick[i] / seconds
        lower[i] = 0.0
        upper[i] = 0.0
        right[i] = 0.0
    over = max(supply - thaw * 4.0 * conductivity[0] * seconds, 0.0)
    right[0] = (supply - over) / seconds
    drained = 0.0
    for i in range(n):
        flow = thaw * conductivity[i] * math.exp((2.0 * b + 3.0) * log_wet[i])
        slope = (2.0 * b + 3.0) * flow / max(theta[i], 0.01 * pore[i])
        diagonal[i] += slope
        right[i] -= flow
        if i == n - 1:
            drained = flow
            break
        lower[i + 1] -= slope
        right[i + 1] += flow
        mean_log = 0.5 * (log_wet[i] + log_wet[i + 1])
        spread = thaw * b * suction * math.sqrt(conductivity[i] * conductivity[i + 1])
        spread *= math.exp((b + 2.0) * mean_log) / (middle[i + 1] - middle[i])
        across = spread * (theta[i] / pore[i] - theta[i + 1] / pore[i + 1])
        right[i] -= across
        right[i + 1] += across
        diagonal[i] += spread / pore[i]
        upper[i] -= spread / pore[i + 1]
        lower[i + 1] -= spread / pore[i]
        diagonal[i + 1] += spread / pore[i + 1]
    for i in range(1, n):
        factor = lower[i] / diagonal[i - 1]
        diagonal[i] -= factor * upper[i - 1]
        right[i] -= factor * right[i - 1]
    for i in range(n - 1, -1, -1):
        after = upper[i] * right[i + 1] if i < n - 1 else 0.0
        right[i] = (right[i] - after) / diagonal[i]
        theta[i] += right[i]
    drained = (drained + slope * right[n - 1]) * seconds
    return over + _spill(theta, pore, thick), drained


@njit(cache=True)
def _spill(theta: Any, pore: Any, thick: Any) -> Any:  # pragma: no cover - compiled
    """Move water above porosity up, layer by layer; returns the metres that leave the top.

    Water below a small residual is taken from the layer beneath, so that the balance closes.
    """
    n = theta.size
    for i in range(n):
        lack = (0.02 * pore[i] - theta[i]) * thick[i]
        if lack > 0.0 and i < n - 1:
            theta[i] += lack / thick[i]
            theta[i + 1] -= lack / thick[i + 1]
    for i in range(n - 1, -1, -1):
        excess = (theta[i] - pore[i]) * thick[i]
        if excess > 0.0:
            theta[i] = pore[i]
            if i == 0:
                return excess
            theta[i - 1] += excess / thick[i - 1]
    return 0.0


@njit(cache=True)
def _nudge(
    theta: Any, pore: Any, thick: Any, middle: Any, observed: float, gain: float
) -> None:  # pragma: no cover - compiled
    """Draw the top 5 cm towards ``observed``; the step fades with depth below."""
    surface = (theta[:3] * thick[:3]).sum() / thick[:3].sum()
    step = gain * (observed - surface)
    for i in range(theta.size - 1):
        share = 1.0 if i < 3 else math.exp(-(middle[i] - 0.05) / NUDGING_DEPTH)
        theta[i] = min(max(theta[i] + share * step, 0.03 * pore[i]), pore[i])
