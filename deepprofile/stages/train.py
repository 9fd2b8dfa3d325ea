"""Stage train: one network from the samples; the model, its losses and provenance in one folder."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from deepprofile import places
from deepprofile.cluster import cores
from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.io import save_model
from deepprofile.model.samples import Samples
from deepprofile.model.training import TrainingConfig, train
from deepprofile.profile import Layer
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.extent import land_of
from deepprofile.stages.models import describe_model, refuse_other_model
from deepprofile.stages.publication import inputs_of, versions
from deepprofile.stages.remote import Report, run_on_worker
from deepprofile.stages.sample import drawn_cells, series_bytes
from deepprofile.store import layers_of, open_cube
from deepprofile.store.layout import day_index

HISTORY = "history.csv"
REPORT_STEPS = 500
"""Steps between two reports inside an epoch."""


def run(context: Context) -> str:
    """Train on a worker; a model of the same samples and settings is left as it is."""
    recipe, paths = context.recipe, context.paths
    inputs = inputs_of([paths.samples], recipe.digest("training", "sample"))
    if _trained_on(paths.model) == inputs:
        return f"this model lies in {paths.model} already"
    refuse_other_model(paths.coefficients, None)
    summary = run_on_worker(context, "training", _train, recipe, paths.samples, paths.model, inputs)
    return f"{summary}; model in {paths.model}"


def plan(recipe: Recipe) -> Plan:
    """Everything in one worker: the series of all chosen cells in memory, once."""
    series = series_bytes(recipe)
    jobs = 1 if land_of(recipe).cells else 0
    return Plan(
        jobs,
        series,
        jobs * 1_200_000,
        2 * series + 1_000_000_000,
        "cells with stations come on top",
        {"read": series, "train": _epoch_samples(recipe) * recipe.training.epochs},
    )


def read_history(url: str) -> pd.DataFrame:
    """The loss terms of every epoch, from a model's folder."""
    return pd.read_csv(BytesIO(places.read_bytes(f"{url}/{HISTORY}")))


def _epoch_samples(recipe: Recipe) -> int:
    """Samples of an epoch, whole batches: full windows of the training share of the cells."""
    options, days = recipe.training, recipe.period.days
    windows = max(0, int(days.stop - days.start) - options.window + 1)
    found = round(recipe.sample.split.train * drawn_cells(recipe)) * windows
    drawn = min(found, options.samples_per_epoch or found)
    return drawn // options.batch_size * options.batch_size


def _trained_on(url: str) -> str:
    try:
        return str(describe_model(url)["metadata"].get("inputs", ""))
    except FileNotFoundError:
        return ""


def _train(report: Report, recipe: Recipe, samples_url: str, model_url: str, inputs: str) -> str:
    options = recipe.training
    cube = open_cube(samples_url, chunks=None)
    samples = Samples.from_arrays(
        cube["series"].values,
        cube["auxiliary"].values,
        cube["target"].values,
        cube["weight"].values,
        recipe.sample.max_gap_days,
    )
    layers, split = layers_of(cube), cube["split"].values
    index = samples.sample_index(options.window, split == "train")
    validation = samples.sample_index(options.window, split == "validation")
    if not len(index):
        raise StageError(
            f"{samples_url}: no training sample: no cell has {options.window} days of forcing "
            f"before a day with a target. The period has {cube.sizes['time']} days from "
            f"{day_index(recipe.period.start)}; extend it, or look for holes with "
            "`deepprofile inspect`."
        )
    model, history = train(
        samples,
        index,
        validation,
        layers,
        _config(recipe, layers),
        _network(recipe, cube),
        on_epoch=lambda records: report(
            records[0].epoch / options.epochs,
            f"epoch {records[0].epoch}, loss {records[-1].total:.5f}",
        ),
        on_step=lambda epoch, step, steps: _report_step(report, epoch, step, steps, options.epochs),
    )
    metadata = {
        "inputs": inputs,
        "recipe": recipe.name,
        "versions": versions(),
        "training": options.model_dump(),
        "training_samples": len(index),
        "validation_samples": len(validation),
        "filled_cell_days": samples.n_filled,
        "training_cells": int(np.count_nonzero(split == "train")),
    }
    fingerprint = save_model(model, model_url, metadata)
    places.write_bytes(f"{model_url}/{HISTORY}", history.to_csv(index=False).encode())
    speed = history["steps_per_second"].median()
    return f"{len(index):,} training samples, {speed:.1f} steps/s, model {fingerprint[:12]}"


def _config(recipe: Recipe, layers: Sequence[Layer]) -> TrainingConfig:
    options = recipe.training
    return TrainingConfig(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        samples_per_epoch=options.samples_per_epoch,
        averaged_epochs=options.average_last,
        smoothness=options.smoothness,
        seed=options.seed,
        surface_layer=_surface_layer(layers),
        threads=cores(),
    )


def _report_step(report: Report, epoch: int, step: int, steps: int, epochs: int) -> None:
    """An epoch of the paper's set has 45,000 steps: tell now and then how far it is."""
    if step % REPORT_STEPS == 0:
        report((epoch - 1 + step / steps) / epochs, f"epoch {epoch}, step {step:,} of {steps:,}")


def _surface_layer(layers: Sequence[Layer]) -> int:
    """Index of the thinnest surface layer of SMAP L4, the target of the surface term."""
    surface = [i for i, x in enumerate(layers) if x.product == "smap_l4" and x.top == 0.0]
    if not surface:
        raise StageError(
            "the surface term of the loss needs a layer of smap_l4 that begins at the surface, "
            f"found {[layer.name for layer in layers]}. Put smap_l4 into collocation.products."
        )
    return min(surface, key=lambda i: layers[i].bottom)


def _network(recipe: Recipe, cube: Any) -> NetworkConfig:
    return NetworkConfig(
        n_variables=cube.sizes["variable"],
        n_auxiliary=cube.sizes["feature"],
        window=recipe.training.window,
        n_coefficients=recipe.training.n_coefficients,
        variables=tuple(cube["variable"].values.tolist()),
        features=tuple(cube["feature"].values.tolist()),
        variable_units=tuple(cube["units"].values.tolist()),
        feature_units=tuple(cube["feature_units"].values.tolist()),
        layers=tuple(layers_of(cube)),
    )
