"""What a report is made from: plain tables and arrays, each of them optional."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import xarray as xr

from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.figures.plots import ExampleProfile
from deepprofile.evaluation.skill.summaries import CLASS_CELLS


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report may show. A part that is None or empty is left out of the report, or
    named as missing where ``missing`` gives the reason.

    Attributes:
        title: heading of the report.
        subtitle: one line below it, such as place, period and date of the run.
        subject: name of the estimate that is judged.
        assessment: what the evaluation has found. Where cells have a ``split``, only those of
            ``"validation"`` or ``"qualified"`` are judged; without one all qualified ones are.
        min_cells: cells below which a median is said to rest on few, and a class of cells is
            neither drawn nor compared with others.
        collocation: ``weight(product, y, x)`` and ``flag(y, x)`` with CF flag attributes.
        land: (y, x), true for the cells that collocation is shown and counted for; without it
            those with a finite weight.
        error_recovery: estimated against realised error variances, where the truth is known;
            any columns.
        history: ``epoch``, ``split`` and the loss terms.
        profiles: example profiles.
        maps: title of the panel to soil moisture (y, x) in m³ m⁻³.
        map_date: day of the maps.
        profile_checks: shares of impossible values, by ``estimate`` and ``group``.
        set_aside: granules that were not used, with ``url`` and ``reason``.
        out_of_range: counts of values outside the valid range, by variable.
        short_days: days with too few time steps.
        rejected_stations: stations or sensors that were not used, with the reason.
        station_notes: what was assumed of stations or left out of them, in a column ``note``.
        recipe: the recipe as text.
        versions: version of each package and product.
        missing: name of a field to the reason why it is not there.
    """

    title: str = "Soil moisture profiles"
    subtitle: str = ""
    subject: str = "deepprofile"
    assessment: Assessment | None = None
    min_cells: int = CLASS_CELLS
    collocation: xr.Dataset | None = None
    land: xr.DataArray | None = None
    error_recovery: pd.DataFrame | None = None
    history: pd.DataFrame | None = None
    profiles: Sequence[ExampleProfile] = ()
    maps: Mapping[str, xr.DataArray] = field(default_factory=dict)
    map_date: str = ""
    profile_checks: pd.DataFrame | None = None
    set_aside: pd.DataFrame | None = None
    out_of_range: pd.DataFrame | None = None
    short_days: pd.DataFrame | None = None
    rejected_stations: pd.DataFrame | None = None
    station_notes: pd.DataFrame | None = None
    recipe: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def absent(inputs: ReportInputs, name: str, what: str) -> list[str]:
    """Sentence saying that ``what`` is not there and why; none where no reason is given.

    Args:
        inputs: what is there, and the reasons for what is not.
        name: field of ``inputs`` that is empty.
        what: what it would have shown.
    """
    reason = inputs.missing.get(name)
    return [f"{what}: not available because {reason}."] if reason else []
