"""Everything that can be found out about estimates against references, whole or in parts.

`assess` knows estimates and references and nothing of where they come from. Parts of the cells,
such as tiles worked on by different jobs, are put together by `merge` and give what the whole
gives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepprofile import places
from deepprofile.evaluation.assessment import Assessment
from deepprofile.evaluation.estimates.base import Estimate, LayerEstimate, cell_keys
from deepprofile.evaluation.estimates.climatology import CLIMATOLOGY, Climatology
from deepprofile.evaluation.reference.series import CELL
from deepprofile.evaluation.skill import uncertainty
from deepprofile.evaluation.skill.alignment import (
    Aligned,
    Common,
    Days,
    calendar_or_own,
    distinct_names,
    reference_days,
)
from deepprofile.evaluation.skill.intercomparison import medians, table_at
from deepprofile.evaluation.skill.keeping import (
    Density,
    Spans,
    density_keys,
    merge_density,
    merge_lines,
    merge_series,
)
from deepprofile.evaluation.skill.overview import KEYS, overview
from deepprofile.evaluation.skill.pairs import paired, summarise_pairs
from deepprofile.evaluation.skill.summaries import CLASS_CELLS
from deepprofile.evaluation.skill.tables import BATCH, MIN_DAYS, evaluate

STEPS = (1, 5, 10, 30)
"""Days of a span that `step_for` chooses from."""
SERIES_BYTES = 256 * 2**20
"""Memory that kept series may take."""
STEMS = (
    *("metrics", "summary", "classes", "class_tests", "missing_metrics", "pairs"),
    *("pairs_summary", "intercomparison", "intercomparison_medians"),
)
"""Tables of an assessment, by the stem of the file's name."""
_ORDER = ["reference", "row", "column", "top", "bottom", "group"]


@dataclass(frozen=True)
class Settings:
    """How estimates are assessed.

    Attributes:
        subject: name of the estimate that is judged: paired with every other, and inter-compared
            with ``products``.
        min_days: common days that a comparison needs.
        replicates: replicates of the bootstrap behind confidence limits and pairs; 0 for neither.
        level: share of the replicates between the limits.
        seed: of the bootstrap.
        products: names of the estimates with layers that the subject is inter-compared with.
        step: days of a span of the kept series, see `step_for`; 0 keeps no series.
        climatology: whether the climatology of each reference is a baseline; never of one whose
            days hold no day of the calendar in three years.
        smap: name of the estimate of the column ``r_with_smap``.
        batch: series at a time; memory grows with batch x estimates x days x threads.
        threads: batches at a time.
    """

    subject: str
    min_days: int = MIN_DAYS
    replicates: int = 0
    level: float = uncertainty.LEVEL
    seed: int = 0
    products: tuple[str, ...] = ()
    step: int = 1
    climatology: bool = True
    smap: str = "smap_l4"
    batch: int = BATCH
    threads: int = 1


def assess(
    estimates: Sequence[Estimate], references: Mapping[str, xr.Dataset], settings: Settings
) -> Assessment:
    """Compare estimates with references.

    Args:
        estimates: any, with distinct names.
        references: by name, see :mod:`deepprofile.evaluation.reference.series`; one without series
            adds nothing.
        settings: what is done.

    Returns:
        Lines and series sorted by reference, cell and depth. An estimate that has no day or cell in
        common with a series keeps its line there, with the reason. Inter-comparison is made over
        the cells of all references, with the labels ``cell_class`` and ``split`` of the first that
        knows them.

    Raises:
        ValueError: if names repeat, or if the subject or a product is none of the estimates, or a
            product has no layers, or a reference has no days.
    """
    _check(estimates, settings)
    filled = {name: one for name, one in references.items() if one.sizes["series"]}
    parts = [_against(estimates, name, one, settings) for name, one in filled.items()]
    products = _products(estimates, list(filled.values()), settings)
    return merge([*parts, Assessment(pd.DataFrame(), intercomparison=products)])


def merge(parts: Sequence[Assessment]) -> Assessment:
    """Put parts together, whatever their order.

    Args:
        parts: assessments of different cells by the same estimates and settings.

    Returns:
        What the whole gives. Lines of one series stand in the order of the estimates.

    Raises:
        ValueError: if kept series have spans of different lengths.
    """
    series = [part.series for part in parts if part.series is not None]
    return Assessment(
        merge_lines([part.metrics for part in parts], _ORDER),
        merge_lines([part.pairs for part in parts], _ORDER),
        merge_lines([part.intercomparison for part in parts], CELL),
        merge_density([part.density for part in parts]),
        merge_series(series, _ORDER),
    )


def step_for(n_series: int, n_days: int, n_estimates: int) -> int:
    """Days of a span with which kept series stay below ``SERIES_BYTES``.

    Args:
        n_series: series of all references.
        n_days: days of the longest.
        n_estimates: estimates, the climatology included.

    Returns:
        The shortest of ``STEPS``, or 0, for no series, where even the longest needs more.
    """
    for step in STEPS:
        if 4 * n_series * (n_days // step + 2) * (n_estimates + 1) <= SERIES_BYTES:
            return step
    return 0


def tables(assessment: Assessment, *, min_cells: int = CLASS_CELLS) -> dict[str, pd.DataFrame]:
    """The tables of an assessment as they are written, by the stem of the file's name.

    Cells of different ``split`` are never summarised together, so that cells that trained a model
    don't flatter it.

    Args:
        assessment: of all cells.
        min_cells: cells below which a summary is marked, and a class is not compared with others.

    Returns:
        Those of ``STEMS`` that have a line.
    """
    found = {"metrics": assessment.metrics, "pairs": assessment.pairs}
    found["intercomparison"] = assessment.intercomparison
    if len(assessment.metrics):
        found |= overview(assessment.metrics, min_cells)
    if len(assessment.pairs):
        found["pairs_summary"] = summarise_pairs(assessment.pairs, KEYS, min_cells=min_cells)
    if len(assessment.intercomparison):
        found["intercomparison_medians"] = medians(
            assessment.intercomparison, min_cells, by=("split",)
        )
    return {stem: found[stem] for stem in STEMS if stem in found and len(found[stem])}


def write_tables(folder: str, assessment: Assessment, **options: int) -> dict[str, pd.DataFrame]:
    """Write `tables` as CSV files; one of an earlier assessment that has no line now goes.

    Args:
        folder: path or URL; made as needed.
        assessment: of all cells.
        options: of `tables`.

    Returns:
        The tables written.
    """
    found = tables(assessment, **options)
    for stem in STEMS:
        url = places.inside(folder, f"{stem}.csv")
        if stem in found:
            places.write_csv(url, found[stem])
        elif places.exists(url):
            store, path = places.filesystem(url)
            store.rm(path)
    return found


def _check(estimates: Sequence[Estimate], settings: Settings) -> None:
    names = distinct_names(estimates)
    layered = [one.name for one in estimates if isinstance(one, LayerEstimate)]
    if settings.subject not in names:
        raise ValueError(f"the subject {settings.subject!r} is none of the estimates {names}")
    unknown = [name for name in settings.products if name not in layered]
    if unknown:
        raise ValueError(
            f"can't inter-compare {settings.subject!r} with {unknown}: the estimates with layers "
            f"are {layered}"
        )
    if settings.climatology and CLIMATOLOGY in names:
        raise ValueError(
            f"an estimate is named {CLIMATOLOGY!r}, as the baseline that is made of each reference:"
            " rename it, or set climatology to false"
        )


def _against(
    estimates: Sequence[Estimate], name: str, reference: xr.Dataset, settings: Settings
) -> Assessment:
    """Everything but inter-comparison, against one reference."""
    if not reference_days(reference).size:
        raise ValueError(f"reference {name!r} has no days: expected at least one")
    seasonal = settings.climatology and Climatology.possible(reference)
    made = [*estimates, *([Climatology.of(reference)] if seasonal else [])]
    days = calendar_or_own(made, reference)
    density = Density(density_keys(reference))
    names = [one.name for one in made]
    spans = Spans(reference, names, days, settings.step) if settings.step else None

    def visit(series: NDArray[np.int64], aligned: Aligned, common: Common) -> None:
        density.add(series, aligned, common)
        if spans is not None:
            spans.add(series, aligned, common)

    table = evaluate(
        made,
        reference,
        name=name,
        smap=settings.smap,
        days=days,
        visit=visit,
        **_options(settings),
    )
    return Assessment(
        table,
        _pairs(made, name, reference, days, settings),
        density={(name, *key): counts for key, counts in density.counts.items()},
        series=None if spans is None else spans.kept(name, settings.batch),
    )


def _pairs(
    estimates: Sequence[Estimate],
    name: str,
    reference: xr.Dataset,
    days: Days,
    settings: Settings,
) -> pd.DataFrame:
    """The subject with every other, in the cells that it has."""
    subject = next(one for one in estimates if one.name == settings.subject)
    cells = cell_keys(reference["row"].to_numpy(), reference["column"].to_numpy())
    here = np.flatnonzero(np.isin(cells, subject.keys))
    there = here.size and np.isin(days, subject.days).any()
    if not settings.replicates or len(estimates) < 2 or not there:
        return pd.DataFrame()
    own, options = reference.isel(series=here), _options(settings)
    return paired(estimates, own, name=name, subject=settings.subject, **options)


def _options(settings: Settings) -> dict[str, Any]:
    """Settings that metrics and pairs share."""
    names = ("min_days", "replicates", "level", "seed", "batch", "threads")
    return {name: getattr(settings, name) for name in names}


def _products(
    estimates: Sequence[Estimate], references: Sequence[xr.Dataset], settings: Settings
) -> pd.DataFrame:
    """The subject against the layers of the products in all cells of the references."""
    by_name = {one.name: one for one in estimates}
    subject = by_name[settings.subject]
    products = [
        one
        for name in settings.products
        if isinstance(one := by_name[name], LayerEstimate) and one is not subject
    ]
    if not products or not references:
        return pd.DataFrame()
    return table_at(subject, products, references, settings.min_days, batch=settings.batch)
