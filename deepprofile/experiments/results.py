"""The results of all runs of an experiment in four tables, and what they say in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from deepprofile import places
from deepprofile.evaluation.reference.depths import GROUP_NAMES
from deepprofile.experiments.definition import Run
from deepprofile.experiments.work import COEFFICIENTS, MODEL, SKILL
from deepprofile.model.configuration import SMOOTHNESS
from deepprofile.model.io import read_description
from deepprofile.profile import N_COEFFICIENTS
from deepprofile.stages.train import read_history

HIGH_ORDER = 5
"""Degree from which on coefficients count as high-order here."""
SETTINGS = ("candidates", "smoothness", "n_coefficients", "small_heads", "seed")
"""Settings of the training by which runs are compared."""
TERMS = ("total", "surface", "root", "negative", "smoothness")


@dataclass(frozen=True)
class Results:
    """What the runs of an experiment gave.

    Attributes:
        runs: a line per run: ``run``, the SETTINGS (``lambda`` for ``smoothness``),
            ``training_cells``, ``training_samples`` and the loss terms of the averaged
            parameters on the validation samples.
        losses: the history of every run, with its settings.
        coefficients: the spread of each coefficient of every run, see
            `deepprofile.experiments.measure.spread`, with its settings.
        skill: medians over the validation cells by run, reference and depth group: ``n_cells``,
            ``r``, ``ubrmse``, ``anomaly_r``, with the run's settings.
    """

    runs: pd.DataFrame
    losses: pd.DataFrame
    coefficients: pd.DataFrame
    skill: pd.DataFrame


def gather(runs: Sequence[Run]) -> Results:
    """Read the results of some runs, which are all done."""
    losses = [_labelled(run, read_history(f"{run.folder}/{MODEL}")) for run in runs]
    lines = [
        {**_of(run), **_counts(run), **_final(history)}
        for run, history in zip(runs, losses, strict=True)
    ]
    spreads = [_labelled(run, _read(f"{run.folder}/{COEFFICIENTS}")) for run in runs]
    skills = [_labelled(run, _medians(_read(f"{run.folder}/{SKILL}"))) for run in runs]
    return Results(
        pd.DataFrame(lines),
        pd.concat(losses, ignore_index=True),
        pd.concat(spreads, ignore_index=True),
        pd.concat(skills, ignore_index=True),
    )


def findings(figure: str, results: Results) -> list[str]:
    """What an experiment shows, in sentences with its numbers."""
    lines = _of_size(results) if figure == "training_size" else _of_smoothness(results)
    return [*lines, *_of_convergence(results)]


def main_n(runs: pd.DataFrame) -> int:
    """The number of coefficients that is shown where one is: the paper's, or else the largest."""
    found = runs["n_coefficients"]
    return N_COEFFICIENTS if (found == N_COEFFICIENTS).any() else int(found.max())


def _of(run: Run) -> dict[str, Any]:
    options = run.recipe.training.model_dump()
    named = {name: options[name] for name in SETTINGS}
    named["lambda"] = named.pop("smoothness")  # the loss has a term of that name
    return {"run": run.name, **named}


def _labelled(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """A table of a run with the run's settings in front."""
    settings = _of(run)
    return table.assign(**settings)[[*settings, *table.columns]]


def _counts(run: Run) -> dict[str, int]:
    found = read_description(f"{run.folder}/{MODEL}")["metadata"]
    return {name: int(found[name]) for name in ("training_cells", "training_samples")}


def _final(history: pd.DataFrame) -> dict[str, float]:
    averaged = history[history["split"] == "validation_average"]
    if averaged.empty:
        return dict.fromkeys(TERMS, np.nan)
    return {term: float(averaged[term].iloc[-1]) for term in TERMS}


def _read(url: str) -> pd.DataFrame:
    return pd.read_csv(BytesIO(places.read_bytes(url)))


def _medians(skill: pd.DataFrame) -> pd.DataFrame:
    """Medians over cells; a cell with several series in a group counts once, with their mean."""
    metrics = ["r", "ubrmse", "anomaly_r"]
    cells = skill.groupby(["reference", "group", "row", "column"], sort=False)[metrics].mean()
    groups = cells.groupby(["reference", "group"], sort=False)
    table = groups.median()
    table.insert(0, "n_cells", groups["r"].count())
    order = {name: i for i, name in enumerate(GROUP_NAMES)}
    return table.reset_index().sort_values(
        ["reference", "group"], key=lambda x: x.map(order) if x.name == "group" else x
    )


def _of_size(results: Results) -> Iterator[str]:
    sizes = results.runs.groupby("training_cells")["total"]
    mean, spread = sizes.mean(), sizes.std(ddof=1)
    course = ", ".join(f"{loss:.5f} with {cells}" for cells, loss in mean.items())
    total = _percent(mean.iloc[-1], mean.iloc[0])
    yield f"validation loss by number of training cells: {course} ({total} from first to last)"
    if spread.notna().any():
        yield (
            "runs that differ in the seed alone have a standard deviation of "
            f"{spread.mean():.5f}: steps below that say nothing"
        )


def _of_smoothness(results: Results) -> Iterator[str]:
    for n, runs in results.runs[results.runs["small_heads"]].groupby("n_coefficients"):
        means = runs.groupby("lambda")[list(TERMS)].mean()
        if 0.0 in means.index and SMOOTHNESS in means.index and int(str(n)) > HIGH_ORDER:
            yield _against_none(results, int(str(n)), means)
    own = results.runs[(results.runs["lambda"] == 0) & ~results.runs["small_heads"]]
    for n in own["n_coefficients"].unique():
        if n > HIGH_ORDER:
            yield _starts(results, int(n))
    yield from _best_by_depth(results)


def _against_none(results: Results, n: int, means: pd.DataFrame) -> str:
    none, chosen = (means.loc[value].to_dict() for value in (0.0, SMOOTHNESS))
    high = [_high_order(results, n, value) for value in (0.0, SMOOTHNESS)]
    return (
        f"n = {n}, λ = {SMOOTHNESS:g} against 0: size of β_i for i ≥ {HIGH_ORDER} "
        f"{high[0]:.3g} to {high[1]:.3g}, L_surf {_percent(chosen['surface'], none['surface'])}, "
        f"L_root {_percent(chosen['root'], none['root'])}"
    )


def _starts(results: Results, n: int) -> str:
    sizes = [_high_order(results, n, 0.0, small) for small in (True, False)]
    return (
        f"n = {n}, λ = 0: size of β_i for i ≥ {HIGH_ORDER} {sizes[0]:.3g} from small heads, "
        f"{sizes[1]:.3g} from PyTorch's"
    )


def _high_order(results: Results, n: int, value: float, small_heads: bool = True) -> float:
    """Root mean square over the high-order coefficients, cells and days."""
    table = results.coefficients
    chosen = table[(table["n_coefficients"] == n) & (table["lambda"] == value)]
    chosen = chosen[(chosen["small_heads"] == small_heads) & (chosen["degree"] >= HIGH_ORDER)]
    return float(np.sqrt(np.mean(chosen["rms"] ** 2))) if len(chosen) else float("nan")


def _best_by_depth(results: Results) -> Iterator[str]:
    """The λ with the highest median R at each depth, for one number of coefficients."""
    chosen, n = results.skill[results.skill["small_heads"]], main_n(results.runs)
    chosen = chosen[chosen["n_coefficients"] == n]
    for reference, table in chosen.groupby("reference"):
        by_depth = table.groupby(["group", "lambda"], sort=False)["r"].mean().unstack()
        by_depth = by_depth.dropna(how="all")
        words = ", ".join(
            f"{group} {line.idxmax():g} ({line.max():.3f}; lowest {line.min():.3f})"
            for group, line in by_depth.iterrows()
        )
        yield f"n = {n}: against {reference} the highest median R is at λ: {words}"


def _of_convergence(results: Results) -> Iterator[str]:
    """How much the losses still move over the last fifth of the epochs."""
    falls, moves, averages = [], [], []
    for run, history in results.losses.groupby("run"):
        train, validation = (
            history.loc[history["split"] == split, "total"] for split in ("train", "validation")
        )
        fifth = len(train) // 5
        if not fifth:
            continue
        falls.append(train.iloc[-fifth:].mean() / train.iloc[-2 * fifth : -fifth].mean() - 1)
        late = validation.iloc[-fifth:]
        final = results.runs.set_index("run")["total"][str(run)]
        moves.append(late.std(ddof=1) / late.mean())
        averages.append(final / late.mean() - 1)
    if falls and np.isfinite([*moves, *averages]).all():
        yield (
            "over the last fifth of the epochs the mean training loss is "
            f"{min(falls):+.1%} to {max(falls):+.1%} from that of the fifth before; the validation "
            f"loss after an epoch moves by {np.median(moves):.1%} (median of the standard "
            f"deviations) and that of the averaged parameters lies {np.median(averages):+.1%} from "
            "its mean"
        )


def _percent(new: float, old: float) -> str:
    return f"{new / old - 1:+.1%}" if old else "from 0"
