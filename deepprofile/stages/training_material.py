"""What the stage train reads: the cube of samples, and which of its cell-days are samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from deepprofile.model.checkpoints import fingerprints
from deepprofile.model.coverage import Coverage, coverage
from deepprofile.model.samples import Samples
from deepprofile.profile import Layer
from deepprofile.recipe import Recipe
from deepprofile.stages.context import StageError
from deepprofile.stages.training_notes import (
    Names,
    cells_without_samples,
    coverage_counts,
    skipped,
)
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
        index: cell and last day of each training sample.
        validation: the same of the validation samples.
    """

    cube: xr.Dataset
    names: Names
    layers: Sequence[Layer]
    samples: Samples
    found: Coverage
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
    index = samples.sample_index(window, split == "train")
    if not len(index):
        absent = cube["variable"].values[found.without_value].tolist()
        missing = f" Without any value in the period: {', '.join(absent)}." if absent else ""
        raise StageError(
            f"{url}: no training sample: no cell has {window} days of forcing before a day with a "
            f"target. Cell-days of the {np.count_nonzero(split == 'train')} training cells: "
            f"{skipped(found.counts(split == 'train'))}.{missing} The period has "
            f"{days.stop - days.start} days from {recipe.period.start}; extend it, or look for "
            "holes with `deepprofile inspect`."
        )
    validation = samples.sample_index(window, split == "validation")
    return Material(cube, Names(cube), layers_of(cube), samples, found, index, validation)


def counts_of(material: Material) -> dict[str, Any]:
    """What the model was trained on, for its metadata."""
    samples, index, validation = material.samples, material.index, material.validation
    return {
        "data": fingerprints(samples, index, validation),
        "training_samples": len(index),
        "validation_samples": len(validation),
        "filled_cell_days": samples.n_filled,
        "training_cells": int(np.count_nonzero(material.cube["split"].values == "train")),
        "cell_days": coverage_counts(material.found, material.names),
        "cells_without_samples": cells_without_samples(material.found, material.names),
    }
