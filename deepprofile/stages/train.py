"""Stage train: one network from the samples; the model, its losses and provenance in one folder.

While it trains, the folder ``checkpoint`` in that of the model holds the last checkpoints and the
losses so far. It is removed when the model is complete.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pandas as pd

from deepprofile import places
from deepprofile.cluster import cores
from deepprofile.model.checkpoints import (
    HISTORY,
    CheckpointError,
    Checkpoints,
    load_checkpoint,
    remove_checkpoints,
    write_history,
)
from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.io import save_model
from deepprofile.model.network import DeepProfile
from deepprofile.model.parallel import ALONE, DifferentProcessesError, Processes
from deepprofile.model.training import TrainingConfig, TrainingDivergedError, train
from deepprofile.profile import Layer
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.devices import gpu_resources, training_workers, unless_all
from deepprofile.stages.extent import land_of
from deepprofile.stages.models import describe_model, refuse_other_model
from deepprofile.stages.publication import inputs_of, versions
from deepprofile.stages.remote import Report, run_on_worker
from deepprofile.stages.sample import drawn_cells, series_bytes
from deepprofile.stages.train_parallel import run_together
from deepprofile.stages.training_material import Material, counts_of, read_material
from deepprofile.stages.training_notes import Names, constant_inputs, coverage_lines
from deepprofile.store import head, layers_of

CHECKPOINT = "checkpoint"
"""Folder of the checkpoints in that of the model."""
DIVERGED = "diverged.csv"
"""Table of the samples of a batch whose loss was not finite, beside the checkpoints."""
REPORT_STEPS = 500
"""Steps between two reports inside an epoch."""


def run(context: Context) -> str:
    """Train on workers; a model of the same samples and settings is left as it is."""
    recipe, paths = context.recipe, context.paths
    inputs = inputs_of([paths.samples], settings_of(recipe))
    if trained_on(paths.model) == inputs:
        remove_checkpoints(f"{paths.model}/{CHECKPOINT}")  # a run was stopped just before this
        return f"this model lies in {paths.model} already"
    refuse_other_model(paths.coefficients, None)
    device, workers = training_workers(context)
    task = recipe, paths.samples, paths.model, inputs, device
    if recipe.training.processes == 1:
        needed = gpu_resources(context, device)
        able = None if device == "cpu" else unless_all(context, workers)
        told = run_on_worker(
            context, "training", train_model, *task, workers=able, resources=needed
        )
    else:
        told = run_together(context, "training", _take_part, *task, workers=workers, device=device)
    *notes, summary = told
    for note in notes:
        context.console.print(f"  {note}", highlight=False, markup=False)
    return f"{summary}; model in {paths.model}"


def plan(recipe: Recipe) -> Plan:
    """One job, or as many as there are processes, each with the series of all chosen cells."""
    processes = recipe.training.processes
    series = series_bytes(recipe)
    jobs = 1 if land_of(recipe).cells else 0
    samples, epochs = _epoch_samples(recipe), recipe.training.epochs
    steps = samples // recipe.training.batch_size
    return Plan(
        jobs * processes,
        series * processes,
        jobs * 1_200_000,
        2 * series + 1_000_000_000,
        f"{epochs} epochs of {samples:,} samples in {steps:,} steps; cells with stations come on "
        "top",
        {"read": series, "train": samples * epochs},
        at_once=1,
    )


def read_history(url: str) -> pd.DataFrame:
    """The loss terms of every epoch, from a model's folder."""
    return pd.read_csv(BytesIO(places.read_bytes(f"{url}/{HISTORY}")))


def _epoch_samples(recipe: Recipe) -> int:
    """Samples of an epoch, whole batches: full windows of the training share of the cells."""
    options, days = recipe.training, recipe.period.days
    windows = max(0, int(days.stop - days.start) - options.window + 1)
    split = recipe.sample.split
    share = split.train + options.candidates * split.candidate
    found = round(share * drawn_cells(recipe)) * windows
    drawn = min(found, options.samples_per_epoch or found)
    return drawn // options.batch_size * options.batch_size


def settings_of(recipe: Recipe) -> str:
    """What a model depends on as canonical JSON; where it was trained makes no other model."""
    document = recipe.model_dump(mode="json", include={"training", "sample"})
    for where in ("device", "processes"):
        document["training"].pop(where)
    return json.dumps(document, sort_keys=True)


def trained_on(url: str) -> str:
    """Fingerprint of the samples and settings of the model in a folder; empty if there is none."""
    try:
        return str(describe_model(url)["metadata"].get("inputs", ""))
    except FileNotFoundError:
        return ""


def _take_part(report: Report, processes: Processes, *task: Any) -> list[str]:
    """Be one of several processes that train a model."""
    recipe, samples_url, model_url, inputs, device = task
    threads = max(1, cores() // processes.neighbours)
    return train_model(report, recipe, samples_url, model_url, inputs, device, threads, processes)


def train_model(
    report: Report,
    recipe: Recipe,
    samples_url: str,
    model_url: str,
    inputs: str,
    device: str,
    threads: int | None = None,
    processes: Processes = ALONE,
) -> list[str]:
    """Train in this process, and write the model; what is to be told, the summary last.

    Args:
        report: told how far it is.
        recipe: its training and sample sections say how.
        samples_url: the cube of samples.
        model_url: folder of the model; it goes on from the checkpoints there.
        inputs: fingerprint that the model carries, see `trained_on`.
        device: ``cpu`` or ``cuda``.
        threads: of torch; None for all cores.
        processes: this process among those that train one model; number 0 writes and tells.

    Raises:
        StageError: if there is no sample, the loss diverges, the checkpoints are of another
            training, or processes don't train the same.
    """
    threads = threads or cores()
    material = read_material(recipe, samples_url)
    notes = coverage_lines(material.found, material.names)
    folder = f"{model_url}/{CHECKPOINT}"
    try:
        model, history = _fit(report, recipe, material, folder, device, threads, notes, processes)
    except TrainingDivergedError as error:
        if processes.rank == 0:
            _list_samples(error, material.names, folder)
        raise StageError(_diverged(error, folder)) from error
    except (CheckpointError, DifferentProcessesError) as error:
        raise StageError(str(error)) from error
    if processes.rank:
        return []
    constant = constant_inputs(model)
    if constant:
        notes.append(f"constant in training, so the network ignores them: {', '.join(constant)}")
    metadata = {
        "inputs": inputs,
        "recipe": recipe.model_dump(mode="json"),
        "versions": versions(),
        "device": device,
        "threads": threads,
        "processes": processes.size,
        "samples_snapshot": head(samples_url),
        **counts_of(material),
        "constant_inputs": constant,
        "metrics": _metrics(history),
    }
    # The model vouches for all, so its losses are there first; then the checkpoints have served.
    write_history(model_url, history)
    fingerprint = save_model(model, model_url, metadata)
    remove_checkpoints(folder)
    speed = history["steps_per_second"].median()
    where = device if processes.size == 1 else f"{processes.size} x {device}"
    summary = f"{len(material.index):,} training samples, {speed:.1f} steps/s on {where}"
    return [*notes, f"{summary}, model {fingerprint[:12]}"]


def _fit(
    report: Report,
    recipe: Recipe,
    material: Material,
    folder: str,
    device: str,
    threads: int,
    notes: list[str],
    processes: Processes,
) -> tuple[DeepProfile, pd.DataFrame]:
    """Train, from the last checkpoint if there is one; a note says so."""
    epochs = recipe.training.epochs

    def went_on(epoch: int, remarks: list[str]) -> None:
        notes.append("; ".join([f"went on after epoch {epoch} of {epochs}", *remarks]))

    sampling = recipe.sample.model_dump(mode="json")
    return train(
        material.samples,
        material.index,
        material.validation,
        material.layers,
        _config(recipe, material.layers, device, threads),
        _network(recipe, material.cube),
        on_epoch=lambda records: report(
            records[0].epoch / epochs, f"epoch {records[0].epoch}, loss {records[-1].total:.5f}"
        ),
        on_step=lambda epoch, step, steps: _report_step(report, epoch, step, steps, epochs),
        checkpoints=Checkpoints(folder, {f"sample.{k}": v for k, v in sampling.items()}, went_on),
        name_sample=material.names.sample,
        processes=processes,
    )


def _list_samples(error: TrainingDivergedError, names: Names, folder: str) -> None:
    """List all samples of the batch beside the checkpoints."""
    places.write_csv(f"{folder}/{DIVERGED}", names.table(error.samples))


def _diverged(error: TrainingDivergedError, folder: str) -> str:
    """The error, where its samples are listed, and what is kept."""
    kept = load_checkpoint(folder)
    stays = (
        f"The checkpoint of epoch {kept.epoch} stays there; to train with other settings or "
        f"samples, remove {folder} first."
        if kept
        else "There is no checkpoint yet."
    )
    listed = f"All {len(error.samples)} samples of the batch are listed in {folder}/{DIVERGED}."
    return f"{error} {listed} {stays}"


def _metrics(history: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Terms of the loss at the end, by split."""
    last = history.drop(columns=["epoch", "steps_per_second"]).groupby("split").last()
    return {
        str(split): {str(term): float(value) for term, value in terms.items()}
        for split, terms in last.iterrows()
    }


def _config(recipe: Recipe, layers: Sequence[Layer], device: str, threads: int) -> TrainingConfig:
    options = recipe.training
    return TrainingConfig(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        samples_per_epoch=options.samples_per_epoch,
        validation_samples=options.validation_samples,
        average_last=options.average_last,
        smoothness=options.smoothness,
        small_heads=options.small_heads,
        seed=options.seed,
        surface_layer=_surface_layer(layers),
        threads=threads,
        device=device,
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
