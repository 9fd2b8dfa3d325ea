"""Made-up station archives, and records of stations straight from daily values."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from deepprofile import grid
from deepprofile.evaluation.stations import StationRecords

LONGITUDE, LATITUDE = -98.8, 30.4


@dataclass
class SensorFile:
    """One sensor of a made-up archive; readings are (value, flag) by hour."""

    values: np.ndarray
    station: str = "A"
    depth: float = 0.05
    bottom: float | None = None
    instrument: str = "Probe"
    flags: list[str] | None = None
    start: str = "2019-01-01"
    longitude: float = LONGITUDE
    latitude: float = LATITUDE
    step: str = "h"
    variable: str = "sm"
    ceop: bool = False

    @property
    def name(self) -> str:
        bottom = self.depth if self.bottom is None else self.bottom
        depths = f"{self.depth:.6f}_{bottom:.6f}"
        ending = f"{self.variable}_{depths}_{self.instrument}_20190101_20200101.stm"
        return f"NET/{self.station}/NET_NET_{self.station}_{ending}"

    @property
    def text(self) -> str:
        bottom = self.depth if self.bottom is None else self.bottom
        head = (
            f"NET NET {self.station} {self.latitude:.5f} {self.longitude:.5f} 100.00 "
            f"{self.depth:.4f} {bottom:.4f}"
        )
        times = pd.date_range(self.start, periods=len(self.values), freq=self.step)
        stamps = times.strftime("%Y/%m/%d %H:%M")
        flags = self.flags or ["G"] * len(self.values)
        readings = [f"{v:.4f} {f} M" for v, f in zip(self.values, flags, strict=True)]
        if self.ceop:
            lines = [f"{t} {t} {head} {r}" for t, r in zip(stamps, readings, strict=True)]
        else:
            lines = [f"{head} {self.instrument}"]
            lines += [f"{t} {r}" for t, r in zip(stamps, readings, strict=True)]
        return "\n".join(lines) + "\n"


def write_folder(folder: Path, sensors: list[SensorFile]) -> Path:
    for sensor in sensors:
        path = folder / sensor.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sensor.text)
    return folder


def write_zip(path: Path, sensors: list[SensorFile]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for sensor in sensors:
            archive.writestr(sensor.name, sensor.text)
    return path


def hourly(n_days: int, level: float = 0.2, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.01, n_days * 24)
    return np.round(np.clip(level + noise, 0.01, 0.9), 4)


def daily(n_days: int, level: float = 0.2) -> np.ndarray:
    """One reading a day, to keep long archives small."""
    return level + 0.05 * np.sin(np.arange(n_days) / 20)


def records(series: list[dict], n_days: int) -> StationRecords:
    """Records straight from daily values; every series is ``station``, ``depth``, ``values``."""
    rows = []
    for s in series:
        longitude, latitude = s.get("place", (LONGITUDE, LATITUDE))
        row, column = grid.cell_index(longitude, latitude)
        rows.append(
            {
                "network": s.get("network", "NET"),
                "station": s["station"],
                "row": int(row),
                "column": int(column),
                "top": s.get("top", s["depth"]),
                "bottom": s["depth"],
            }
        )
    time = np.datetime64("2019-01-01", "D") + np.arange(n_days)
    values = np.stack([np.broadcast_to(s["values"], n_days) for s in series])
    return StationRecords(pd.DataFrame(rows), time, values.astype(np.float32))


def series_of(reference, group: str):
    return reference.sel(series=reference["group"].to_numpy() == group)
