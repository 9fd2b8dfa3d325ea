"""Small references and estimates for tests of evaluation, and noise with a memory."""

import numpy as np
import pandas as pd

from deepprofile.evaluation.estimates.base import Estimate, LayerEstimate
from deepprofile.evaluation.reference.series import build_reference

TIME = np.datetime64("2018-01-01") + np.arange(500)


def memory_noise(rng, shape, days=10.0):
    """Noise of standard deviation 1 whose memory is some days."""
    keep = np.exp(-1 / days)
    noise = rng.normal(size=shape)
    for t in range(1, shape[-1]):
        noise[..., t] = keep * noise[..., t - 1] + np.sqrt(1 - keep**2) * noise[..., t]
    return noise


def block_starts(first, last, draws, block_days=60):
    """First day of every block of every replicate of a series, shape (replicates, blocks)."""
    span = last - first + 1
    offsets = np.floor(draws[: -(-span // block_days)] * (span - block_days + 1))
    return first + offsets.astype(np.int64).T


def reference_at(depth, values, time=TIME, **labels):
    """A reference with one series a cell at one depth; cells lie in rows 10, 11, ..."""
    values = np.asarray(values, dtype=np.float32)
    n = len(values)
    group = {0.5: "50 cm", 0.2: "20 cm", 0.1: "5-10 cm"}[depth]
    table = pd.DataFrame({"row": np.arange(10, 10 + n), "column": 5, "group": group})
    table["top"] = table["bottom"] = depth
    made = build_reference(time[: values.shape[1]], table, values, np.ones(values.shape, "u2"))
    return made.assign_coords({name: ("series", list(v)) for name, v in labels.items()})


def column_estimate(name, values, time=TIME, first_row=10) -> Estimate:
    """A product with one layer, 0-1 m, in cells of rows ``first_row``, ..."""
    values = np.asarray(values)
    row = np.arange(first_row, first_row + len(values))
    time = time[: values.shape[1]]
    return LayerEstimate(name, row, np.full(row.size, 5), time, [(0.0, 1.0)], values[..., None])
