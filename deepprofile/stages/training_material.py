"""What the stage train reads: the cube of samples, and which of its cell-days are samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from deepprofile.model.checkpoints import fingerprints
from deepprofile.model.coverage import Coverage, coverage
from deepprofile.model.samples import Samples
from deepprofile.profile import Layer
from deepprofile.recipe import Recipe
from deepprofile.stages.cell_days import skipped
from deepprofile.stages.context import StageError
from deepprofile.stages.training_notes import Names, cells_without_samples, coverage_counts
from deepprofile.store import layers_of, open_cube


@dataclass(frozen=True)
class Material:
    """What a training reads.

    Attributes:
        cube: the cube of samples.
        names: of its cells and days.
        layers: of the targets.
        samples: its series with short gaps filled.
        found: what became of the cell-days of the period.
        training: whether a cell trains, (cells,).
        index: cell and last day of each training sample.
        validation: the same of the validation samples.
    """

    cube: xr.Dataset
    names: Names
    layers: Sequence[Layer]
    samples: Samples
    found: Coverage
    training: NDArray[np.bool_]
    index: Tensor
    validation: Tensor


def read_material(recipe: Recipe, url: str) -> Material:
    """Read a cube of samples, fill short gaps and find its samples.

    Raises:
        StageError: if there is no training sample, saying what became of the cell-days.
    """
    cube = open_cube(url, chunks=None)
    arrays = (cube[name].values for name in ("series", "auxiliary", "target", "weight"))
    series, auxiliary, target, weight = arrays
    gap, window, split = recipe.sample.max_gap_days, recipe.training.window, cube["split"].values
    samples = Samples.from_arrays(series, auxiliary, target, weight, gap)
    days = recipe.period.days
    found = coverage(samples, window, slice(days.start, min(days.stop, cube.sizes["time"])))
    training = training_cells(split, recipe.training.candidates, recipe.sample.seed)
    index = samples.sample_index(window, training)
    if not len(index):
        absent = cube["variable"].values[found.without_value].tolist()
        missing = f" Without any value in the period: {', '.join(absent)}." if absent else ""
        raise StageError(
            f"{url}: no training sample: no cell has {window} days of forcing before a day with a "
            f"target. Cell-days of the {np.count_nonzero(training)} training cells: "
            f"{skipped(found.counts(training))}.{missing} The period has "
            f"{days.stop - days.start} days from {recipe.period.start}; extend it, or look for "
            "holes with `deepprofile inspect`."
        )
    validation = samples.sample_index(window, split == "validation")
    names = Names(cube, training)
    return Material(cube, names, layers_of(cube), samples, found, training, index, validation)


def training_cells(split: NDArray[Any], candidates: float, seed: int) -> NDArray[np.bool_]:
    """Which cells train: those of the split "train" and some of the candidates.

    Args:
        split: (cells,), ``"train"``, ``"candidate"`` or ``"validation"``.
        candidates: share (0-1) of the candidate cells that train too. They are drawn in one
            order, so that the cells of a smaller share are among those of a larger one.
        seed: of that order.

    Returns:
        (cells,).
    """
    chosen: NDArray[np.bool_] = np.asarray(split == "train")
    order = np.random.default_rng(seed).permutation(np.flatnonzero(split == "candidate"))
    chosen[order[: round(candidates * len(order))]] = True
    return chosen


def counts_of(material: Material) -> dict[str, Any]:
    """What the model was trained on, for its metadata."""
    samples, index, validation = material.samples, material.index, material.validation
    return {
        "data": fingerprints(samples, index, validation),
        "training_samples": len(index),
        "validation_samples": len(validation),
        "filled_cell_days": samples.n_filled,
        "training_cells": int(np.count_nonzero(material.training)),
        "cell_days": coverage_counts(material.found, material.names),
        "cells_without_samples": cells_without_samples(material.found, material.names),
    }
