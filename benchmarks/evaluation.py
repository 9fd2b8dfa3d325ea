"""Time and memory of the evaluation: 1,000 cells, 9 depths, ten years, six estimates.

The estimates are those of stage evaluate: a profile of ten coefficients, three products of two and
three layers, their mean and their weighted mean; a fifth of the reference's days is missing. Run
with ``python benchmarks/evaluation.py [--cells 1000] [--threads 2]``.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from deepprofile.evaluation.assess import Settings, assess
from deepprofile.evaluation.estimates.base import (
    Estimate,
    LayerEstimate,
    MeanEstimate,
    ProfileEstimate,
)
from deepprofile.evaluation.estimates.climatology import Climatology
from deepprofile.evaluation.reference.depths import DEPTH_GROUPS, compared_bounds
from deepprofile.evaluation.reference.series import build_reference
from deepprofile.evaluation.skill.intercomparison import intercompare, medians
from deepprofile.evaluation.skill.pairs import paired
from deepprofile.evaluation.skill.summaries import summarise
from deepprofile.evaluation.skill.tables import evaluate

Result = TypeVar("Result")
TIME = np.arange("2015-04-01", "2025-04-01", dtype="datetime64[D]")
LAYERS = {
    "smap_l4": [(0.0, 0.05), (0.0, 1.0)],
    "era5_land": [(0.0, 0.07), (0.07, 0.28), (0.28, 1.0)],
    "gldas": [(0.0, 0.1), (0.1, 0.4), (0.4, 1.0)],
}


def season(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A season with noise, shape (*shape, days), m³ m⁻³ in single precision."""
    wave = 0.25 + 0.08 * np.sin(2 * np.pi * np.arange(TIME.size) / 365.25)
    return wave.astype("f4") + rng.normal(0, 0.04, (*shape, TIME.size)).astype("f4")


def make_reference(n_cells: int, rng: np.random.Generator) -> xr.Dataset:
    """Series at the nine depths of every cell, a fifth of the days missing."""
    bounds = [compared_bounds(g.name, g.typical, g.typical) for g in DEPTH_GROUPS]
    table = pd.DataFrame(
        [(g.name, *b) for g, b in zip(DEPTH_GROUPS, bounds, strict=True)] * n_cells,
        columns=["group", "top", "bottom"],
    )
    table["row"], table["column"] = np.repeat(np.arange(n_cells), len(bounds)), 100
    values = season(rng, len(table))
    values[rng.random(values.shape, "f4") < 0.2] = np.nan
    return build_reference(TIME, table, values, np.ones(values.shape, "u2"))


def make_estimates(n_cells: int, rng: np.random.Generator) -> list[Estimate]:
    """The six estimates."""
    row, column = np.arange(n_cells), np.full(n_cells, 100)
    three = []
    for name, layers in LAYERS.items():
        values = np.moveaxis(season(rng, n_cells, len(layers)), 1, 2)
        values = np.ascontiguousarray(values)
        three.append(LayerEstimate(name, row, column, TIME, layers, values))
    coefficients = rng.normal(0, 0.01, (n_cells, TIME.size, 10)).astype("f4")
    coefficients[..., 0] += season(rng, n_cells)
    return [
        ProfileEstimate("deepprofile", row, column, TIME, coefficients),
        *three,
        MeanEstimate.of("mean", three),
        MeanEstimate.of("tc_mean", three, rng.dirichlet([3, 3, 2], n_cells)),
    ]


def memory(field: str) -> float:
    """A line of this process's status in GiB: ``VmRSS`` now, ``VmHWM`` the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def timed(what: str, work: Callable[[], Result]) -> Result:
    """Run, and print wall and processor time and the peak of memory beyond what there was."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    more = memory("VmHWM") - before
    print(f"{what:45s} {wall:6.1f} s wall {processor:6.1f} s CPU {1024 * more:5.0f} MiB more")
    return result


def main() -> None:
    """Time each part; the first call on two cells compiles the kernels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    reference, estimates = make_reference(asked.cells, rng), make_estimates(asked.cells, rng)
    few = reference.isel(series=reference["row"].values < 2)
    paired(estimates, few, name="x", subject="deepprofile", replicates=2)
    evaluate(estimates, few, name="x", replicates=2)
    print(f"{asked.cells} cells, {asked.threads} threads; data {memory('VmRSS'):.2f} GiB")

    seven = [*estimates, Climatology.of(reference)]

    def measured(chosen: list[Estimate], replicates: int = 0) -> pd.DataFrame:
        options = {"replicates": replicates, "threads": asked.threads}
        return evaluate(chosen, reference, name="x", **options)

    def pairs() -> pd.DataFrame:
        options = {"subject": "deepprofile", "threads": asked.threads}
        return paired(estimates, reference, name="x", **options)

    table = timed("all metrics", lambda: measured(estimates))
    timed("summary over cells", lambda: summarise(table))
    timed("with the climatology as a seventh", lambda: measured(seven))
    timed("with limits of 500 replicates", lambda: measured(estimates, 500))
    timed("deepprofile paired with five, 500 replicates", pairs)
    products = [estimate for estimate in estimates if isinstance(estimate, LayerEstimate)]
    timed(
        "inter-comparison with eight layers",
        lambda: medians(intercompare(estimates[0], products).table()),
    )
    kept = Settings("deepprofile", step=30, climatology=False, threads=asked.threads)
    timed(
        "assess: all metrics, density and series", lambda: assess(estimates, {"x": reference}, kept)
    )


if __name__ == "__main__":
    main()
