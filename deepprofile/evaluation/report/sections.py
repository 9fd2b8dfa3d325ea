"""The sections of the report, each from its own part of the inputs."""

import pandas as pd
import xarray as xr

from deepprofile.evaluation.figures.maps import moisture_maps
from deepprofile.evaluation.figures.plots import example_profiles, loss_curves
from deepprofile.evaluation.figures.style import label
from deepprofile.evaluation.figures.weights import weights_map
from deepprofile.evaluation.report import comparison_sections as comparison
from deepprofile.evaluation.report import findings
from deepprofile.evaluation.report import spread_sections as spread
from deepprofile.evaluation.report.blocks import Section, picture, plain_table
from deepprofile.evaluation.report.inputs import ReportInputs, absent
from deepprofile.evaluation.report.result_sections import brief, results
from deepprofile.evaluation.report.station_map import station_map


def all_sections(inputs: ReportInputs) -> list[Section]:
    """Every section that has something to say, in the order of the report."""
    sections = [
        brief(inputs),
        *results(inputs),
        station_map(inputs),
        spread.distributions(inputs),
        spread.density(inputs),
        spread.series(inputs),
        spread.skill_on_maps(inputs),
        comparison.classes(inputs),
        comparison.pairs(inputs),
        comparison.products(inputs),
        profiles(inputs),
        maps(inputs),
        training(inputs),
        collocation(inputs),
        quality(inputs),
        provenance(inputs),
    ]
    return [section for section in sections if not section.empty]


def profiles(inputs: ReportInputs) -> Section:
    """Example profiles."""
    section = Section("profiles", "Example profiles")
    if not inputs.profiles:
        section.missing.extend(absent(inputs, "profiles", "Example profiles"))
        return section
    caption = (
        "Profiles of soil moisture for some cells and days. The black line is θ(z) = Σ β_i z^i "
        "from the predicted coefficients; coloured steps are the layers of the products on that "
        "day, whose values train the network but are no input of it. Circles are daily "
        "means of stations, averaged over the cell; the dotted line is the known truth, where "
        "there is one."
    )
    section.pictures.append(picture("profiles", caption, example_profiles(inputs.profiles), "svg"))
    return section


def maps(inputs: ReportInputs) -> Section:
    """Soil moisture at several depths on one day."""
    section = Section("maps", "Soil moisture map")
    if not inputs.maps:
        section.missing.extend(absent(inputs, "maps", "The map of soil moisture"))
        return section
    cells = int(next(iter(inputs.maps.values())).notnull().sum())
    day = f" on {inputs.map_date}" if inputs.map_date else ""
    caption = (
        f"Predicted soil moisture{day} at {' and '.join(inputs.maps)}, {cells} cells of 9 km. "
        "Axes are the plane of the EASE-2 grid (EPSG:6933), so that every cell is a square of "
        "equal area; labels give degrees. Both panels share one scale from the 1st to the 99th "
        "percentile. Grey: no prediction (sea, or no 360 days of input)."
    )
    section.pictures.append(picture("maps", caption, moisture_maps(inputs.maps), "png"))
    return section


def training(inputs: ReportInputs) -> Section:
    """Loss curves."""
    section = Section("training", "Training")
    if inputs.history is None:
        section.missing.extend(absent(inputs, "history", "Loss curves"))
        return section
    caption = (
        "Total loss and each of its four terms by epoch. Training is the mean over the steps of "
        "an epoch while the parameters change; validation is computed after the epoch on samples "
        "of validation cells; the diamond is validation with the parameters averaged over the last "
        "epochs. Axes are logarithmic, linear below the smallest positive value where a term "
        "reaches zero. L_surf and L_root are per sample, L_neg is summed over a batch, L_o is "
        "shown before its factor λ."
    )
    section.pictures.append(picture("loss", caption, loss_curves(inputs.history), "svg"))
    return section


def collocation(inputs: ReportInputs) -> Section:
    """Weights as a map and in numbers, validity by reason, recovery of known error variances."""
    section = Section("collocation", "Triple collocation")
    if inputs.collocation is None:
        section.missing.extend(absent(inputs, "collocation", "Weights"))
    else:
        _add_weights(section, inputs, inputs.collocation)
    if inputs.error_recovery is None:
        what = "The comparison of estimated with realised error variances"
        section.missing.extend(absent(inputs, "error_recovery", what))
    else:
        caption = (
            "Estimated over realised error variance, for cells with a valid collocation. The "
            "realised one is that of the product's error against the truth, which only a "
            "synthetic Earth can tell."
        )
        section.tables.append(plain_table(inputs.error_recovery, caption, _RECOVERY_HEADS, 3))
    return section


def quality(inputs: ReportInputs) -> Section:
    """What was set aside, out of range, short or rejected, and impossible predicted values."""
    section = Section("quality", "Data quality")
    for name, what in _QUALITY.items():
        frame: pd.DataFrame | None = getattr(inputs, name)
        if frame is None:
            section.missing.extend(absent(inputs, name, what))
        else:
            section.tables.append(plain_table(frame, f"{what}: {len(frame)}."))
    if inputs.profile_checks is not None:
        caption = "Impossible values: mean share by estimate and depth, where there are any."
        heads = {"group": "Depth", "share_below_0": "Below 0", "share_above_06": "Above 0.6 m³ m⁻³"}
        section.tables.append(plain_table(inputs.profile_checks, caption, heads))
    return section


def provenance(inputs: ReportInputs) -> Section:
    """Versions and the recipe."""
    section = Section("provenance", "Recipe and versions", text=inputs.recipe)
    if inputs.versions:
        rows = pd.DataFrame(list(inputs.versions.items()), columns=["part", "version"])
        section.tables.append(plain_table(rows, "Versions of packages and products."))
    else:
        section.missing.extend(absent(inputs, "versions", "Versions"))
    if not inputs.recipe:
        section.missing.extend(absent(inputs, "recipe", "The recipe"))
    return section


_RECOVERY_HEADS = {
    "median_ratio": "Estimated / realised, median",
    "ratio_q25": "Lower quartile",
    "ratio_q75": "Upper quartile",
    "within_two": "Share within two standard errors",
}
_QUALITY = {
    "set_aside": "Granules set aside",
    "out_of_range": "Variables with values outside their valid range",
    "short_days": "Days with too few time steps",
    "rejected_stations": "Stations and sensors not used",
    "station_notes": "What was assumed of stations, or left out of them",
}


def _add_weights(section: Section, inputs: ReportInputs, cube: xr.Dataset) -> None:
    shares = findings.invalid_reasons(cube, inputs.land)
    cells, names = shares["cells"].sum(), [label(str(p)) for p in cube["product"].values]
    caption = (
        f"Triple-collocation weights of the column from 0 to 100 cm in {cells} cells. In the "
        f"large map {names[0]} is red, {names[1]} green and {names[2]} blue, mixed as light; the "
        "triangle shows the colour of every mixture and each cell as a point. A marker stands on "
        "cells where the collocation is not valid and gives the reason; they show the "
        "fallback weights, medians of the valid cells. The small maps show each weight by itself."
    )
    section.pictures.append(picture("weights", caption, weights_map(cube, inputs.land), "png"))
    caption = "Weights over the cells with a valid collocation: median, quartiles, dominance."
    heads = {"q25": "Lower quartile", "q75": "Upper quartile"}
    heads["share_above"] = f"Cells above {findings.DOMINANT} (%)"
    weights = findings.weight_summary(cube, inputs.land)
    section.tables.append(plain_table(weights, caption, heads, digits=3))
    caption = "Validity of the collocation, with the first reason found in each cell."
    section.tables.append(plain_table(shares, caption, {"share": "Share (%)"}, digits=1))
