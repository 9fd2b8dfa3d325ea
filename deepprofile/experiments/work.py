"""One run of an experiment, in one worker: train, then measure what came out."""

import json
import threading
from dataclasses import dataclass

import numpy as np
import xarray as xr
from distributed import get_worker
from numpy.typing import NDArray

from deepprofile import places
from deepprofile.cluster import cores
from deepprofile.evaluation.estimates.base import cell_keys, positions
from deepprofile.experiments.definition import Run
from deepprofile.experiments.measure import held_out_coefficients, skill, spread
from deepprofile.model.io import load_model
from deepprofile.model.training import torch_threads
from deepprofile.stages.compare import read_references
from deepprofile.stages.train import train_model, trained_on
from deepprofile.store import open_cube

MODEL, COEFFICIENTS, SKILL, RESULT = "model", "coefficients.csv", "skill.csv", "result.json"
NOTES = "notes.txt"
"""What the training told: samples and skipped days, from where it went on, its speed."""
_ONE_TRAINING = threading.Lock()
"""Threads of a process share torch's random numbers and its number of threads."""


@dataclass(frozen=True)
class RunJob:
    """A run as it is sent to a worker.

    Attributes:
        run: the run.
        samples: URL of the cube of samples.
        ground_truth: URL of the stations' ground truth; empty for none.
        truth: path of a synthetic truth; empty for none.
        inputs: fingerprint of the samples and of the settings of the training.
        references: fingerprint of what the profiles are compared with.
        device: on which it trains.
        share: of a machine's cores, 1/n where n worker processes share it.
        topic: of the events that tell how far it is.
    """

    run: Run
    samples: str
    ground_truth: str
    truth: str
    inputs: str
    references: str
    device: str
    share: float
    topic: str

    @property
    def key(self) -> str:
        """Name of the run."""
        return self.run.name


def train_and_measure(job: RunJob) -> str:
    """Train the network of a run, unless it is there, and write its results; a line on it."""
    worker = get_worker()

    def report(share: float, note: str) -> None:
        worker.log_event(job.topic, (job.key, share, note))

    url = f"{job.run.folder}/{MODEL}"
    threads = max(1, int(cores() * job.share))
    with _ONE_TRAINING, torch_threads(threads):
        summary = "trained already"
        if trained_on(url) != job.inputs:
            *notes, summary = train_model(
                report, job.run.recipe, job.samples, url, job.inputs, job.device, threads
            )
            text = "".join(f"{line}\n" for line in [*notes, summary])
            places.write_bytes(f"{job.run.folder}/{NOTES}", text.encode())
        report(1.0, "measuring")
        _measure(job, url)
    return summary


def is_done(job: RunJob) -> bool:
    """Whether the results of a run are there, of these samples, settings and references."""
    try:
        found = json.loads(places.read_bytes(f"{job.run.folder}/{RESULT}"))
    except FileNotFoundError:
        return False
    return bool(found == _vouched(job))


def _vouched(job: RunJob) -> dict[str, str]:
    return {"inputs": job.inputs, "references": job.references}


def _measure(job: RunJob, url: str) -> None:
    """Write the spread of the coefficients, the skill, and last the file that vouches for them."""
    recipe, folder = job.run.recipe, job.run.folder
    model = load_model(url)
    samples = open_cube(job.samples, chunks=None)
    held, coefficients = held_out_coefficients(model, samples, recipe.sample.max_gap_days)
    keys = cell_keys(samples["row"].values[held], samples["column"].values[held])

    def known(places: xr.Dataset) -> NDArray[np.intp]:
        found = cell_keys(places["row"].values, places["column"].values)
        return np.flatnonzero(positions(found, keys) >= 0)

    references = read_references(job.ground_truth, job.truth, known)
    min_days = recipe.evaluate.min_days
    places.write_csv(f"{folder}/{COEFFICIENTS}", spread(coefficients))
    found = skill(samples, held, coefficients, references, min_days)
    places.write_csv(f"{folder}/{SKILL}", found)
    places.write_bytes(f"{folder}/{RESULT}", json.dumps(_vouched(job)).encode())
