"""Training: Adam on random batches, and the average of the last epochs' parameters.

Everything random follows from ``TrainingConfig.seed``: on one machine with one number of threads
the same samples give the same loss curve bit for bit.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from deepprofile.model.configuration import NetworkConfig, TrainingConfig
from deepprofile.model.loss import DeepProfileLoss, LossTerms
from deepprofile.model.network import DeepProfile
from deepprofile.model.samples import Batch, Samples
from deepprofile.profile import Layer

__all__ = ["EpochRecord", "Trainer", "TrainingConfig", "TrainingDivergedError", "train"]

MAX_NAMED = 10
"""How many samples an error message names."""


@dataclass(frozen=True)
class EpochRecord:
    """Mean loss terms of an epoch; one row of the history.

    ``split`` is ``"train"`` (means over the epoch's steps), ``"validation"`` (after the epoch)
    or, in one last row, ``"validation_average"`` (the averaged parameters).
    """

    epoch: int
    split: str
    total: float
    surface: float
    root: float
    negative: float
    smoothness: float
    steps_per_second: float


class TrainingDivergedError(RuntimeError):
    """The loss is not finite; the message names the samples."""


OnEpoch = Callable[[list[EpochRecord]], None]
OnStep = Callable[[int, int, int], None]


def train(
    samples: Samples,
    index: Tensor,
    validation: Tensor,
    layers: Sequence[Layer],
    config: TrainingConfig,
    network: NetworkConfig | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> tuple[DeepProfile, pd.DataFrame]:
    """Train a network from its start.

    Args:
        samples: series, features, targets and weights.
        index: (n, 2), cell and last day of each training sample.
        validation: (m, 2), the same of the validation samples; may be empty.
        layers: layers of the targets.
        config: how to train.
        network: shape of the network; by default that of the paper for these samples.
        on_epoch: called after each epoch with its records (train, validation).
        on_step: called after each step with epoch, step and steps of an epoch, counted from 1.

    Returns:
        The averaged model in evaluation mode on the CPU, and the history: one row an epoch and
        split, with the fields of :class:`EpochRecord` as columns.

    Raises:
        ValueError: if training or validation samples (where there are any) are fewer than one
            batch, or the shapes don't match.
        TrainingDivergedError: if the loss is not finite; names cells and days of the batch.
    """
    with _threads(config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        trainer = Trainer(samples, index, validation, layers, config, network)
        for epoch in range(1, config.epochs + 1):
            # A checkpoint of the trainer's state belongs here, between epochs.
            records = trainer.run_epoch(epoch, on_step)
            if on_epoch is not None:
                on_epoch(records)
        model = trainer.finish()
    return model, trainer.history()


class Trainer:
    """State of a training between epochs: model, optimiser, average, random draws, history."""

    def __init__(
        self,
        samples: Samples,
        index: Tensor,
        validation: Tensor,
        layers: Sequence[Layer],
        config: TrainingConfig,
        network: NetworkConfig | None,
    ) -> None:
        """Set the start of training; draws from torch's global generator."""
        network = network or _default_network(samples, layers)
        _check(samples, layers, network)
        _check_counts(index, validation, config)
        self.config = config
        self.window = network.window
        self.samples = samples.to(config.device)
        self.index = index
        self.generator = torch.Generator().manual_seed(config.seed)
        self.validation = self._validation_subset(validation)
        self.model = DeepProfile.from_config(network)
        limits = samples.limits(index, self.window)
        self.model.set_limits(limits.series, limits.auxiliary)
        self.model.initialise_heads(samples.mean_target(index))
        self.model.to(config.device)
        self.loss = DeepProfileLoss(
            layers, config.surface_layer, config.smoothness, network.n_coefficients
        ).to(config.device)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, fused=True
        )
        self.average = AveragedModel(self.model)
        self.records: list[EpochRecord] = []

    def run_epoch(self, epoch: int, on_step: OnStep | None = None) -> list[EpochRecord]:
        """One epoch of training and its validation; ``epoch`` counts from 1."""
        records = [self._train_epoch(epoch, on_step)]
        if epoch > self.config.epochs - self.config.averaged_epochs:
            self.average.update_parameters(self.model)
        if len(self.validation):
            records.append(self._validate(self.model, epoch, "validation"))
        self.records += records
        return records

    def finish(self) -> DeepProfile:
        """The averaged model with batch-norm statistics of its own, in evaluation mode."""
        draw = self._draw(self.config.statistics_batches * self.config.batch_size)
        batches = ((self._gather(part),) for part in self._batches(draw))
        model = cast(DeepProfile, self.average.module)
        update_bn(batches, _TakesBatch(model))
        if len(self.validation):
            epoch = self.config.epochs
            self.records.append(self._validate(model, epoch, "validation_average"))
        return model.cpu().eval()

    def history(self) -> pd.DataFrame:
        """All records so far as a table."""
        return pd.DataFrame([asdict(record) for record in self.records])

    def _train_epoch(self, epoch: int, on_step: OnStep | None) -> EpochRecord:
        self.model.train()
        batches = self._batches(self._draw(self.config.samples_per_epoch))
        total = torch.zeros(len(LossTerms._fields), dtype=torch.float64)
        start = time.perf_counter()
        for step, part in enumerate(batches, 1):
            total += self._step(part, f"epoch {epoch}, step {step}")
            if on_step is not None:
                on_step(epoch, step, len(batches))
        speed = len(batches) / (time.perf_counter() - start)
        return _record(epoch, "train", total / len(batches), speed)

    def _step(self, part: Tensor, where: str) -> Tensor:
        batch = self._gather(part)
        coefficients = self.model(batch.series, batch.auxiliary)
        terms = self.loss(coefficients, batch.target, batch.weight)
        values = torch.stack(terms).detach().double().cpu()
        if not torch.isfinite(values).all():
            raise TrainingDivergedError(_describe_divergence(where, terms, part, batch))
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        self.optimiser.step()
        return values

    @torch.no_grad()
    def _validate(self, model: DeepProfile, epoch: int, split: str) -> EpochRecord:
        model.eval()
        total = torch.zeros(len(LossTerms._fields), dtype=torch.float64)
        batches = self._batches(self.validation)
        for part in batches:
            batch = self._gather(part)
            terms = self.loss(model(batch.series, batch.auxiliary), batch.target, batch.weight)
            total += torch.stack(terms).double().cpu()
        return _record(epoch, split, total / len(batches), float("nan"))

    def _gather(self, part: Tensor) -> Batch:
        return self.samples.gather(part, self.window)

    def _draw(self, n_samples: int | None) -> Tensor:
        """Samples in random order without replacement: all of them, or some."""
        return self.index[torch.randperm(len(self.index), generator=self.generator)[:n_samples]]

    def _batches(self, index: Tensor) -> Sequence[Tensor]:
        size = self.config.batch_size
        return torch.split(index[: len(index) // size * size], size)

    def _validation_subset(self, validation: Tensor) -> Tensor:
        order = torch.randperm(len(validation), generator=self.generator)
        chosen = validation[order[: self.config.validation_samples]]
        return chosen[: len(chosen) // self.config.batch_size * self.config.batch_size]


class _TakesBatch(nn.Module):
    """A model under the name of one argument, as ``update_bn`` calls it."""

    def __init__(self, model: DeepProfile) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch.series, batch.auxiliary)  # type: ignore[no-any-return]


def _record(epoch: int, split: str, terms: Tensor, speed: float) -> EpochRecord:
    values = LossTerms(*terms)._asdict()
    means = {name: float(value) for name, value in values.items()}
    return EpochRecord(epoch, split, **means, steps_per_second=speed)


def _default_network(samples: Samples, layers: Sequence[Layer]) -> NetworkConfig:
    return NetworkConfig(
        n_variables=samples.series.shape[2],
        n_auxiliary=samples.auxiliary.shape[1],
        layers=tuple(layers),
    )


def _check(samples: Samples, layers: Sequence[Layer], network: NetworkConfig) -> None:
    found = samples.series.shape[2], samples.auxiliary.shape[1], samples.target.shape[2]
    expected = network.n_variables, network.n_auxiliary, len(layers)
    if found != expected:
        raise ValueError(
            f"samples have {found[0]} variables, {found[1]} auxiliary features and {found[2]} "
            f"target layers: the network expects {expected[0]} and {expected[1]}, and "
            f"{expected[2]} layers were given"
        )


def _check_counts(index: Tensor, validation: Tensor, config: TrainingConfig) -> None:
    drawn = {
        "an epoch": min(len(index), config.samples_per_epoch or len(index)),
        "validation": min(len(validation), config.validation_samples),
    }
    if not len(validation):
        del drawn["validation"]
    for name, count in drawn.items():
        if count < config.batch_size:
            raise ValueError(
                f"{name} has {count} samples, fewer than one batch of {config.batch_size}: give "
                "more cells or days, or a smaller batch_size"
            )


def _describe_divergence(where: str, terms: LossTerms, part: Tensor, batch: Batch) -> str:
    values = ", ".join(f"{k} {v.item():g}" for k, v in terms._asdict().items())
    wrong = ~torch.isfinite(batch.series).all(2).all(1) | ~torch.isfinite(batch.auxiliary).all(1)
    wrong |= torch.isinf(batch.target).any(1) | ~torch.isfinite(batch.weight).all(1)
    culprits = part[wrong.cpu()]
    if len(culprits):
        what = f"{len(culprits)} samples of the batch have inputs that are not finite"
    else:
        what, culprits = "all inputs of the batch are finite; its samples", part
    named = "; ".join(f"cell {cell} day {day}" for cell, day in culprits[:MAX_NAMED].tolist())
    more = f" and {len(culprits) - MAX_NAMED} more" if len(culprits) > MAX_NAMED else ""
    return (
        f"the loss is not finite at {where} ({values}). {what}: {named}{more} (indices of cell "
        "and last day). Look at these series, or lower learning_rate if they are sound."
    )


@contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
