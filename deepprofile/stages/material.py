"""What the report of a run shows, gathered from its cubes."""

import json
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import xarray as xr

from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.report.inputs import ReportInputs
from deepprofile.evaluation.skill.summaries import SHARES
from deepprofile.model.flags import Flag
from deepprofile.stages.context import Context
from deepprofile.stages.examples import example_profiles
from deepprofile.stages.publication import versions
from deepprofile.stages.recovery import error_recovery
from deepprofile.stages.stations import ground_truth_attributes
from deepprofile.stages.train import read_history
from deepprofile.store import history, open_cube
from deepprofile.store.layout import BLOCK_DAYS

MAP_DEPTHS = (0.05, 0.5)
"""Depths of the two maps in metres."""


def report_inputs(context: Context, assessment: Assessment) -> ReportInputs:
    """Everything that the report shows; a part that a run has not is named with the reason."""
    paths, recipe = context.paths, context.recipe
    coefficients = open_cube(paths.coefficients)
    land = (open_cube(paths.static, chunks=None)["land"] == 1).load()
    day = _map_day(coefficients)
    known = recipe.synthetic is not None
    return ReportInputs(
        title=f"DeepProfile: {recipe.name}",
        subtitle=f"{recipe.period.start} to {recipe.period.end}; "
        f"written {datetime.now(UTC):%Y-%m-%d}",
        assessment=assessment,
        collocation=open_cube(paths.collocation, chunks=None).load(),
        land=land,
        error_recovery=error_recovery(context) if known else None,
        history=read_history(paths.model),
        profiles=example_profiles(context),
        maps={
            f"{100 * depth:g} cm": coefficients.sel(time=day).profile.at(depth).compute()
            for depth in MAP_DEPTHS
        },
        map_date=str(day)[:10],
        profile_checks=_profile_checks(assessment.metrics),
        set_aside=_set_aside(context),
        out_of_range=_out_of_range(context),
        short_days=_short_days(context),
        rejected_stations=_of_stations(context, "rejected", ["path", "reason"]),
        station_notes=_of_stations(context, "notes", ["note"]),
        recipe=json.dumps(recipe.model_dump(mode="json"), indent=2),
        versions=versions(),
        min_cells=recipe.evaluate.min_cells,
        missing={} if known else {"error_recovery": "only a synthetic Earth knows its truth"},
    )


def _map_day(coefficients: xr.Dataset) -> np.datetime64:
    """Of the last days, the last with a profile in as many cells as any."""
    recent = coefficients["flag"].isel(time=slice(-BLOCK_DAYS, None))
    there = recent.isin([Flag.VALID, Flag.GAP_FILLED]).sum(("y", "x")).compute()
    best = np.flatnonzero(there.values == there.values.max())[-1]
    return np.datetime64(recent["time"].values[best])


def _profile_checks(metrics: pd.DataFrame) -> pd.DataFrame:
    """Mean share of impossible values of every estimate by depth group, where there are any."""
    shares = metrics.groupby(["estimate", "group"], sort=False)[list(SHARES)].mean().reset_index()
    return shares[(shares[list(SHARES)] > 0).any(axis=1)]


def _commits(context: Context, key: str) -> list[tuple[str, object]]:
    """What the ledgers of the products' cubes hold under a key, with the product's name."""
    return [
        (name, commit.metadata[key])
        for name in context.recipe.products
        for commit in history(context.paths.product(name))
        if key in commit.metadata
    ]


def _set_aside(context: Context) -> pd.DataFrame:
    lines = [
        {"product": name, **item}
        for name, items in _commits(context, "set_aside")
        for item in items  # type: ignore[attr-defined]
    ]
    return pd.DataFrame(lines, columns=["product", "url", "reason"]).drop_duplicates()


def _out_of_range(context: Context) -> pd.DataFrame:
    counts: Counter[tuple[str, str]] = Counter()
    for name, found in _commits(context, "out_of_range"):
        counts.update({(name, key): count for key, count in found.items()})  # type: ignore[attr-defined]
    lines = [(*key, count) for key, count in sorted(counts.items())]
    return pd.DataFrame(lines, columns=["product", "variable", "values"])


def _short_days(context: Context) -> pd.DataFrame:
    lines = sorted(
        {(name, day) for name, days in _commits(context, "short_days") for day in days}  # type: ignore[attr-defined]
    )
    return pd.DataFrame(lines, columns=["product", "day"])


def _of_stations(context: Context, attribute: str, columns: list[str]) -> pd.DataFrame:
    """A list that the ground truth keeps in an attribute; empty without stations."""
    if context.recipe.stations is None:
        return pd.DataFrame(columns=columns)
    noted = ground_truth_attributes(context.paths.ground_truth)[attribute]
    return pd.DataFrame(json.loads(str(noted)), columns=columns)
