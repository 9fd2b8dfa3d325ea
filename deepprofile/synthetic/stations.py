"""Stations of the demo Earth: an archive in the header+values format of the ISMN."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepprofile import grid
from deepprofile.synthetic.config import EarthConfig
from deepprofile.synthetic.noise import generator
from deepprofile.synthetic.truth import Truth, depth_weights

NETWORK = "DEMO"
INSTRUMENT = "Hydraprobe"
FULL = (0.05, 0.10, 0.20, 0.50, 1.00)
DEPTHS = (FULL, FULL, (0.05, 0.20, 0.50), (0.05, 0.10, 0.20))
"""Depths in metres; a station has one of these sets."""
SHALLOW = (0.05, 0.10)
"""Depths of every tenth station of the extra cells, too shallow for a root zone."""
STATION_OFFSET, STATION_SCALE = 0.025, 0.10
"""How a place differs from its cell: offset in m³ m⁻³ and factor on the variation."""
WANDER, WANDER_DAYS = 0.008, 10.0
"""Size (m³ m⁻³) and memory of what goes on at the place and not in the cell."""
SENSOR_BIAS, SENSOR_NOISE = 0.008, 0.004
GAP_SHARE = 0.5
"""Share of the sensors that have a gap of a tenth of their record."""
BAD_FLAGS = ("D03", "C01", "D05,D04", "D07")


@dataclass(frozen=True)
class Station:
    """One station.

    Attributes:
        name: its name.
        cell: index of its cell among the land cells.
        longitude: degrees east.
        latitude: degrees north.
        depths: depths of its sensors in metres.
        replaced: whether its uppermost sensor was replaced half-way.
    """

    name: str
    cell: int
    longitude: float
    latitude: float
    depths: tuple[float, ...]
    replaced: bool


def place_stations(config: EarthConfig, truth: Truth, unusable: NDArray[np.bool_]) -> list[Station]:
    """Choose cells and stations: core cells get 3 or 4, extra cells 1 or 2.

    Args:
        config: the demo Earth.
        truth: its cells.
        unusable: cells that get none, (cells,).
    """
    rng = generator(config.seed, "stations")
    cells = rng.permutation(np.flatnonzero(~unusable))
    n_core = min(config.core_cells, len(cells) // 8)
    n_extra = min(config.extra_cells, len(cells) // 5)
    stations: list[Station] = []
    for i, cell in enumerate(cells[: n_core + n_extra]):
        core = i < n_core
        for _ in range(int(rng.integers(3, 5) if core else rng.integers(1, 3))):
            shallow = not core and len(stations) % 10 == 0
            depths = SHALLOW if shallow else DEPTHS[int(rng.integers(len(DEPTHS)))]
            longitude, latitude = _place(rng, truth, int(cell))
            name = f"Station{len(stations) + 1:03d}"
            replaced = len(stations) in (0, 5)
            stations.append(Station(name, int(cell), longitude, latitude, depths, replaced))
    return stations


def write_stations(
    stations: list[Station],
    config: EarthConfig,
    truth: Truth,
    path: Path,
    progress: Callable[[float], None],
) -> int:
    """Write the archive; returns the number of sensor files in it."""
    rng = generator(config.seed, "station readings")
    stamps = _stamps(config)
    n_files = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("Readme.txt", "Synthetic stations of the DeepProfile demo Earth.\n")
        for i, station in enumerate(stations):
            folder = f"{NETWORK}/{station.name}"
            archive.writestr(
                f"{folder}/{NETWORK}_{NETWORK}_{station.name}_static_variables.csv",
                _static(truth, station.cell),
            )
            for name, text in _sensor_files(rng, station, config, truth, stamps):
                archive.writestr(f"{folder}/{name}", text)
                n_files += 1
            progress((i + 1) / len(stations))
    return n_files


def _place(rng: np.random.Generator, truth: Truth, cell: int) -> tuple[float, float]:
    """A point well inside a cell."""
    lon, lat = grid.longitudes(), grid.latitudes()
    column = truth.domain.columns[truth.domain.column[cell]]
    row = truth.domain.rows[truth.domain.row[cell]]
    east, north = rng.uniform(-0.35, 0.35, 2)
    return (
        float(lon[column] + east * (lon[column + 1] - lon[column])),
        float(lat[row] + north * (lat[row - 1] - lat[row])),
    )


def _stamps(config: EarthConfig) -> list[str]:
    step = np.timedelta64(config.station_hours, "h")
    count = config.n_days * 24 // config.station_hours
    times = np.datetime64(config.start, "m") + np.arange(count) * step
    return [f"{time:%Y/%m/%d %H:%M}" for time in times.tolist()]


def _sensor_files(
    rng: np.random.Generator,
    station: Station,
    config: EarthConfig,
    truth: Truth,
    stamps: list[str],
) -> list[tuple[str, str]]:
    """Name and text of each sensor file of a station."""
    per_day = 24 // config.station_hours
    wander = _wander(rng, config.n_days)
    offset = STATION_OFFSET * rng.standard_normal()
    scale = 1.0 + STATION_SCALE * rng.standard_normal()
    files = []
    for depth in station.depths:
        here = depth_weights(depth) @ truth.run.daily[station.cell]
        daily = here.mean() + scale * (here - here.mean()) + offset + wander
        readings = np.repeat(daily, per_day) + _diurnal(depth, per_day, config.n_days)
        half = len(stamps) // 2
        spans = [slice(0, len(stamps))]
        if station.replaced and depth == station.depths[0]:
            spans = [slice(0, half), slice(half, len(stamps))]
        for letter, span in zip("AB", spans, strict=False):
            sensor = f"{INSTRUMENT}-{letter}" if len(spans) > 1 else INSTRUMENT
            values = readings[span] + SENSOR_BIAS * rng.standard_normal()
            values = values + SENSOR_NOISE * rng.standard_normal(len(values))
            text = _header(truth, station, depth, sensor)
            text += _lines(rng, stamps[span], np.clip(values, 0.0, 0.7))
            files.append((_file_name(config, station, depth, sensor), text))
    return files


def _wander(rng: np.random.Generator, n_days: int) -> NDArray[np.float64]:
    """What happens at the place alone, one value a day."""
    keep = np.exp(-1.0 / WANDER_DAYS)
    series = rng.standard_normal(n_days)
    for day in range(1, n_days):
        series[day] = keep * series[day - 1] + np.sqrt(1.0 - keep**2) * series[day]
    return WANDER * series


def _diurnal(depth: float, per_day: int, n_days: int) -> NDArray[np.float64]:
    """A daily wave without mean that fades with depth."""
    phase = 2.0 * np.pi * np.arange(per_day) / per_day
    wave = np.cos(phase) - np.cos(phase).mean()
    return np.tile(0.003 * np.exp(-depth / 0.08) * wave, n_days)


def _lines(rng: np.random.Generator, stamps: list[str], values: NDArray[np.float64]) -> str:
    """Reading lines with bad readings flagged, missing ones marked, and a gap."""
    n = len(values)
    flags = np.full(n, "G", dtype=object)
    for flag in BAD_FLAGS:
        start, length = int(rng.integers(n)), int(rng.integers(2, max(n // 150, 3)))
        span = slice(start, start + length)
        flags[span] = flag
        values[span] = -0.02 if flag == "C01" else values[span] + rng.uniform(0.1, 0.3)
    start = int(rng.integers(n))
    flags[start : start + n // 100] = "M"
    kept = np.ones(n, dtype=bool)
    if rng.random() < GAP_SHARE:
        start = int(rng.integers(n))
        kept[start : start + n // 10] = False
    return "".join(
        f"{stamp} -9999 M M\n" if flag == "M" else f"{stamp} {value:.4f} {flag} M\n"
        for stamp, value, flag, keep in zip(
            stamps, values.tolist(), flags.tolist(), kept.tolist(), strict=True
        )
        if keep
    )


def _header(truth: Truth, station: Station, depth: float, sensor: str) -> str:
    height = truth.domain.elevation[station.cell]
    return (
        f"{NETWORK:<10} {NETWORK:<10} {station.name:<12} {station.latitude:9.5f} "
        f"{station.longitude:10.5f} {height:8.1f} {depth:.4f} {depth:.4f} {sensor}\n"
    )


def _file_name(config: EarthConfig, station: Station, depth: float, sensor: str) -> str:
    return (
        f"{NETWORK}_{NETWORK}_{station.name}_sm_{depth:.6f}_{depth:.6f}_{sensor}_"
        f"{config.start:%Y%m%d}_{config.stop:%Y%m%d}.stm"
    )


def _static(truth: Truth, cell: int) -> str:
    """The station's static variables in the archive's own table."""
    texture = (truth.soil.exponent[cell] - 3.5) / 6.0
    clay, sand = 10.0 + 40.0 * texture, 70.0 - 50.0 * texture
    lines = [
        "quantity_name;unit;depth_from[m];depth_to[m];value;description;quantity_source_name;"
        "quantity_source_description;quantity_source_provider;quantity_source_version;"
        "quantity_source_resolution;quantity_source_timerange;quantity_source_url;"
    ]
    source = "demo;DeepProfile demo Earth;None;None;None;None;None;"
    for top, bottom in (("0.00", "0.30"), ("0.30", "1.00")):
        for name, unit, value in (
            ("saturation", "m^3*m^-3", truth.soil.porosity[cell]),
            ("clay fraction", "% weight", clay),
            ("sand fraction", "% weight", sand),
            ("silt fraction", "% weight", 100.0 - clay - sand),
            ("organic carbon", "% weight", 1.0),
        ):
            lines.append(f"{name};{unit};{top};{bottom};{value:.2f};;{source}")
    lines.append(f"land cover classification;;;;130;Grassland;CCI_landcover_2010;{source[5:]}")
    lines.append(
        "climate classification;;;;Csb;Temperate - Dry And Warm Summer;koeppen_geiger_2007;"
        f"{source[5:]}"
    )
    return "\n".join(lines) + "\n"
