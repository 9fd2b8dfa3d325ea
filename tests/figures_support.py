"""A small assessment, made by hand, that has something for every figure and table."""

import numpy as np
import pandas as pd

from deepprofile.evaluation.assessment import DENSITY_EDGES, Assessment, DailySeries

REFERENCE = "stations"
SUBJECT = "model"
ESTIMATES = (SUBJECT, "smap_l4", "climatology")
GROUPS = {"0-5 cm": (0.0, 0.05), "0-100 cm": (0.0, 1.0)}
N_CELLS = 44
SKILL = {SUBJECT: 0.9, "smap_l4": 0.8, "climatology": 0.6}
LAYERS = [("smap_l4", 0.0, 0.05), ("gldas", 0.1, 0.4)]


def metrics() -> pd.DataFrame:
    """44 cells at two depths: every other one core, on two soils that differ, and 3 on a third."""
    random = np.random.default_rng(1)
    lines = []
    for cell in range(N_CELLS):
        soil = "peat" if cell >= 41 else ("sand", "clay")[cell % 2]
        for group, (top, bottom) in GROUPS.items():
            for estimate in ESTIMATES:
                r = SKILL[estimate] - 0.1 * (soil == "clay") + random.normal(0, 0.02)
                lines.append(
                    {
                        "reference": REFERENCE,
                        "estimate": estimate,
                        "group": group,
                        "top": top,
                        "bottom": bottom,
                        "row": 400 + cell,
                        "column": 900 + 3 * cell,
                        "cell_class": ("core", "extra")[cell // 22],
                        "network": "NET",
                        "texture": soil,
                        "n": 300,
                        "bias": random.normal(0, 0.02),
                        "r": r,
                        "rmse": 0.05,
                        "ubrmse": 0.04 * np.sqrt(1 - r**2),
                        "anomaly_r": r - 0.2,
                        "r_low": r - 0.05,
                        "r_high": r + 0.03,
                        "ubrmse_low": 0.01,
                        "ubrmse_high": 0.03,
                    }
                )
    return pd.DataFrame(lines)


def pairs() -> pd.DataFrame:
    """The model against each other estimate: better in 33 cells, worse in 11 by R."""
    lines = []
    for cell in range(N_CELLS):
        for group in GROUPS:
            for other in ESTIMATES[1:]:
                verdict = "worse" if cell % 4 == 0 else "better"
                line = {"reference": REFERENCE, "subject": SUBJECT, "other": other, "group": group}
                line |= {"row": 400 + cell, "column": 900 + 3 * cell}
                line |= {"r_difference": 0.1, "r_verdict": verdict}
                lines.append(line | {"ubrmse_difference": -0.01, "ubrmse_verdict": "unclear"})
    return pd.DataFrame(lines)


def intercomparison() -> pd.DataFrame:
    """Differences to two layers in six cells."""
    lines = [
        {
            "estimate": SUBJECT,
            "product": product,
            "top": top,
            "bottom": bottom,
            "row": 400 + cell,
            "column": 900 + 3 * cell,
            "n": 300,
            "rmsd": 0.03 + 0.001 * cell,
            "ubrmsd": 0.02,
            "r": 0.8,
            "bias": 0.012 * (cell - 3),
            "reason": "",
        }
        for cell in range(6)
        for product, top, bottom in LAYERS
    ]
    return pd.DataFrame(lines)


def series(n_cells: int = 5, n_days: int = 90, seed: int = 2) -> DailySeries:
    """Daily series of the first cells at both depths; a third of the reference is missing."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        [
            (REFERENCE, 400 + cell, 900 + 3 * cell, group, top, bottom, "as named", "NET", "core")
            for cell in range(n_cells)
            for group, (top, bottom) in GROUPS.items()
        ],
        columns=["reference", "row", "column", "group", "top", "bottom", "compared", "network",
                 "cell_class"],
    )  # fmt: skip
    shape = len(table), n_days
    truth = random.uniform(0.05, 0.4, shape).astype(np.float32)
    truth[random.random(shape) < 0.3] = np.nan
    estimates = {name: random.uniform(0.0, 0.5, shape).astype(np.float32) for name in ESTIMATES}
    estimates["climatology"][:2] = np.nan
    return DailySeries(table, np.arange(17000, 17000 + n_days), 1, truth, estimates)


def density() -> dict[tuple[str, str, str, str], np.ndarray]:
    """Some days of each estimate at each depth."""
    n = DENSITY_EDGES.size - 1
    found = {}
    for i, estimate in enumerate(ESTIMATES):
        for group in GROUPS:
            counts = np.zeros((n, n), dtype=np.int64)
            counts[np.arange(10, 20), np.arange(10, 20) + i] = 5
            found[REFERENCE, "", estimate, group] = counts
    return found


def assessment() -> Assessment:
    """All of it."""
    return Assessment(metrics(), pairs(), intercomparison(), density(), series())
