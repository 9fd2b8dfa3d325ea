"""Training: Adam on random batches, and the average of the last epochs' parameters.

Everything random follows from ``TrainingConfig.seed``: on one machine with one number of threads
the same samples give the same loss curve bit for bit, also when the training was stopped and went
on from a checkpoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from deepprofile.model.checkpoints import (
    Checkpoint,
    CheckpointError,
    Checkpoints,
    differences,
    fingerprints,
    load_checkpoint,
    save_checkpoint,
)
from deepprofile.model.configuration import NetworkConfig, TrainingConfig
from deepprofile.model.divergence import NameSample, TrainingDivergedError, by_position
from deepprofile.model.network import DeepProfile
from deepprofile.model.parallel import ALONE, Processes
from deepprofile.model.samples import Samples
from deepprofile.model.trainer import EpochRecord, OnStep, Trainer
from deepprofile.profile import Layer

__all__ = [
    "Checkpoints",
    "EpochRecord",
    "Trainer",
    "TrainingConfig",
    "TrainingDivergedError",
    "torch_threads",
    "train",
]

CONDITIONS = ("threads", "device")
"""Settings that say where a training runs, not what it makes."""
LENGTH = ("training.epochs", "training.average_last")
"""Settings that change nothing before the first epoch that is averaged."""


OnEpoch = Callable[[list[EpochRecord]], None]


def train(
    samples: Samples,
    index: Tensor,
    validation: Tensor,
    layers: Sequence[Layer],
    config: TrainingConfig,
    network: NetworkConfig | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    name_sample: NameSample = by_position,
    processes: Processes = ALONE,
) -> tuple[DeepProfile, pd.DataFrame]:
    """Train a network from its start, or from the last checkpoint.

    Args:
        samples: series, features, targets and weights.
        index: (n, 2), cell and last day of each training sample.
        validation: (m, 2), the same of the validation samples; may be empty.
        layers: layers of the targets.
        config: how to train.
        network: shape of the network; by default that of the paper for these samples.
        on_epoch: called after each epoch, when its checkpoint is written, with its records
            (train, validation).
        on_step: called after each step with epoch, step and steps of an epoch, counted from 1.
        checkpoints: where a checkpoint is written after each epoch. If there is one already, the
            training goes on from it: on the same processor, with the same number of threads and
            versions, to the same bits. None: no checkpoint.
        name_sample: how an error names a sample.
        processes: this process among those that train together, see
            :func:`~deepprofile.model.parallel.joined`; by default it trains alone. All are given
            the same arguments; number 0 writes the checkpoints.

    Returns:
        The averaged model in evaluation mode on the CPU, and the history: one row an epoch and
        split, with the fields of :class:`EpochRecord` as columns.

    Raises:
        ValueError: if training or validation samples (where there are any) are fewer than one
            batch, the shapes don't match, or the processes can't share a batch equally.
        TrainingDivergedError: if a loss or gradient is not finite; names cells and days of the
            batch. The last checkpoint stays.
        CheckpointError: if the checkpoints are of another training, naming each difference, or
            none of them can be read.
        DifferentProcessesError: if the processes don't train the same.
    """
    with torch_threads(config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        trainer = Trainer(
            samples, index, validation, layers, config, network, name_sample, processes
        )
        data = fingerprints(samples, index, validation) if checkpoints else {}
        log = _Log(trainer, checkpoints, data)
        done = log.resume()
        processes.agree({**log.settings, "epochs done": done})
        for epoch in range(done + 1, config.epochs + 1):
            records = trainer.run_epoch(epoch, on_step)
            log.save(epoch)
            if on_epoch is not None:
                on_epoch(records)
        model = trainer.finish()
    return model, trainer.history()


class _Log:
    """The checkpoints of a training that runs; does nothing where none are wanted."""

    def __init__(
        self, trainer: Trainer, checkpoints: Checkpoints | None, data: Mapping[str, str]
    ) -> None:
        """Note what makes this training, and where it runs."""
        self.trainer, self.checkpoints = trainer, checkpoints
        training = asdict(trainer.config)
        self.conditions: dict[str, Any] = {
            **{name: training.pop(name) for name in CONDITIONS},
            "threads": torch.get_num_threads(),
            "processes": trainer.processes.size,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            "deepprofile": version("deepprofile"),
        }
        parts = {"training": training, "network": trainer.model.config.to_dict()}
        own = {f"{part}.{key}": x for part, named in parts.items() for key, x in named.items()}
        self.settings = {**(checkpoints.settings if checkpoints else {}), **own, **data}

    def resume(self) -> int:
        """Bring the trainer to the last checkpoint, if there is one; the epochs that are done."""
        found = load_checkpoint(self.checkpoints.url) if self.checkpoints else None
        if found is None or self.checkpoints is None:
            return 0
        self._check(self.checkpoints.url, found)
        records = [EpochRecord(**record) for record in found.history]
        self.trainer.restore(found.tensors, records)
        if self.checkpoints.on_resume is not None:
            changed = differences(found.conditions, self.conditions)
            notes = [f"last bits may differ: {'; '.join(changed)}"] if changed else []
            aside = [f"set aside: {text}" for text in found.set_aside]
            self.checkpoints.on_resume(found.epoch, aside + notes)
        return found.epoch

    def save(self, epoch: int) -> None:
        """Write the trainer's state after an epoch; one process does."""
        if self.checkpoints is not None and self.trainer.processes.rank == 0:
            history = [asdict(record) for record in self.trainer.records]
            state = self.trainer.state()
            done = Checkpoint(epoch, state, history, self.settings, self.conditions)
            save_checkpoint(self.checkpoints.url, done)

    def _check(self, url: str, found: Checkpoint) -> None:
        both = found.settings, self.settings
        unaveraged = min(s.get(LENGTH[0], 0) - s.get(LENGTH[1], 0) for s in both)
        free = LENGTH if found.epoch <= unaveraged else ()
        wrong = differences(*({k: x for k, x in s.items() if k not in free} for s in both))
        if wrong:
            raise CheckpointError(
                f"{url} holds epoch {found.epoch} of another training. {'; '.join(wrong)}. Go on "
                f"with the settings of the checkpoint, or remove the folder {url} to train from "
                "the start."
            )


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    """Have torch use so many threads while the context is open; None leaves its setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
