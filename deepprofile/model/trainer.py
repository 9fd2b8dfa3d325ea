"""The state of a training, an epoch at a time: network, optimiser, average, draws, records."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from deepprofile.model.configuration import NetworkConfig, TrainingConfig
from deepprofile.model.divergence import NameSample, by_position, divergence
from deepprofile.model.loss import DeepProfileLoss, LossTerms
from deepprofile.model.network import DeepProfile
from deepprofile.model.parallel import ALONE, Processes
from deepprofile.model.samples import Batch, Samples
from deepprofile.profile import Layer

OnStep = Callable[[int, int, int], None]


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
        name_sample: NameSample = by_position,
        processes: Processes = ALONE,
    ) -> None:
        """Set the start of training; draws from torch's global generator."""
        network = network or _default_network(samples, layers)
        _check(samples, layers, network)
        _check_counts(index, validation, config, processes)
        self.config = config
        self.processes = processes
        self.name_sample = name_sample
        self.window = network.window
        self.samples = samples.to(config.device)
        self.index = index
        self.generator = torch.Generator().manual_seed(config.seed)
        self.validation = self._validation_subset(validation)
        self.model = DeepProfile.from_config(network)
        limits = samples.limits(index, self.window)
        self.model.set_limits(limits.series, limits.auxiliary)
        if config.small_heads:
            self.model.initialise_heads(samples.mean_target(index))
        self.model.to(config.device)
        self.network = processes.spread(self.model, config.device)
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
        self.processes.align(self.state())
        records = [self._train_epoch(epoch, on_step)]
        if epoch > self.config.epochs - self.config.average_last:
            self.average.update_parameters(self.model)
        if len(self.validation):
            records.append(self._validate(self.model, epoch, "validation"))
        self.records += records
        return records

    def finish(self) -> DeepProfile:
        """The averaged model with batch-norm statistics of its own, in evaluation mode."""
        draw = self._draw(self.config.statistics_batches * self.config.batch_size)
        batches = ((self._gather_share(part),) for part in self._batches(draw))
        model = cast(DeepProfile, self.average.module)
        update_bn(batches, _TakesBatch(model))
        if len(self.validation):
            epoch = self.config.epochs
            self.records.append(self._validate(model, epoch, "validation_average"))
        return _plain(model, self.processes).cpu().eval()

    def state(self) -> dict[str, Tensor]:
        """All tensors on which later epochs depend, by name."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "random": {"draws": self.generator.get_state(), "torch": torch.get_rng_state()},
        }
        for number, moments in self.optimiser.state_dict()["state"].items():
            parts[f"optimiser.{number}"] = moments
        return {f"{part}/{name}": x for part, named in parts.items() for name, x in named.items()}

    def restore(self, state: Mapping[str, Tensor], records: Sequence[EpochRecord]) -> None:
        """Go back to a state of this very training, and to its records."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = tensor
        self.model.load_state_dict(parts["model"])
        self.average.load_state_dict(parts["average"])
        self.generator.set_state(parts["random"]["draws"])
        torch.set_rng_state(parts["random"]["torch"])
        moments = {
            number: {name: _laid_out(x, p) for name, x in parts[f"optimiser.{number}"].items()}
            for number, p in enumerate(self.model.parameters())
        }
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.records = list(records)

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
        batch = self._gather_share(part)
        coefficients = self.network(batch.series, batch.auxiliary)
        terms = self._terms(coefficients, batch)
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        values = self.processes.mean(torch.stack((*terms, norm)).detach().double()).cpu()
        self._check_finite(where, values, part)
        self.optimiser.step()
        return values[: len(terms)]

    def _check_finite(self, where: str, values: Tensor, part: Tensor) -> None:
        """Raise TrainingDivergedError unless the terms, and the gradient's norm, are finite.

        The values are those of the whole batch, so that all processes stop at once.
        """
        if not torch.isfinite(values).all():
            names = (*LossTerms._fields, "gradient")
            named = dict(zip(names, values.tolist(), strict=False))
            raise divergence(where, named, part, self._gather(part), self.name_sample)

    @torch.no_grad()
    def _validate(self, model: DeepProfile, epoch: int, split: str) -> EpochRecord:
        model.eval()
        total = torch.zeros(len(LossTerms._fields), dtype=torch.float64)
        batches = self._batches(self.validation)
        for part in batches:
            batch = self._gather_share(part)
            terms = self._terms(model(batch.series, batch.auxiliary), batch)
            values = self.processes.mean(torch.stack(terms).double()).cpu()
            self._check_finite(f"the validation after epoch {epoch}", values, part)
            total += values
        return _record(epoch, split, total / len(batches), float("nan"))

    def _terms(self, coefficients: Tensor, batch: Batch) -> LossTerms:
        return self.processes.terms(self.loss(coefficients, batch.target, batch.weight))

    def _gather(self, part: Tensor) -> Batch:
        return self.samples.gather(part, self.window)

    def _gather_share(self, part: Tensor) -> Batch:
        """This process's samples of a batch."""
        return self._gather(self.processes.share(part))

    def _draw(self, n_samples: int | None) -> Tensor:
        """Samples in random order without replacement: all of them, or some."""
        return self.index[torch.randperm(len(self.index), generator=self.generator)[:n_samples]]

    def _batches(self, index: Tensor) -> Sequence[Tensor]:
        size = self.config.batch_size
        return torch.split(index[: len(index) // size * size], size)

    def _validation_subset(self, validation: Tensor) -> Tensor:
        """Some samples, the same for every seed: so losses of trainings can be compared."""
        order = torch.randperm(len(validation), generator=torch.Generator().manual_seed(0))
        chosen = validation[order[: self.config.validation_samples]]
        return chosen[: len(chosen) // self.config.batch_size * self.config.batch_size]


class _TakesBatch(nn.Module):
    """A model under the name of one argument, as ``update_bn`` calls it."""

    def __init__(self, model: DeepProfile) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch.series, batch.auxiliary)  # type: ignore[no-any-return]


def _plain(model: DeepProfile, processes: Processes) -> DeepProfile:
    """A model whose batch norms need no other process."""
    if processes.size == 1:
        return model
    plain = DeepProfile.from_config(model.config)
    plain.load_state_dict(model.state_dict())
    return plain


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


def _check_counts(
    index: Tensor, validation: Tensor, config: TrainingConfig, processes: Processes
) -> None:
    if config.batch_size % processes.size:
        raise ValueError(
            f"batch_size {config.batch_size} can't be shared equally by {processes.size} "
            "processes: expected a multiple of their number"
        )
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


def _laid_out(values: Tensor, parameter: Tensor) -> Tensor:
    """A moment in the memory order of its parameter, which the fused optimiser relies on."""
    if values.shape != parameter.shape:
        return values
    return torch.empty_like(parameter, requires_grad=False).copy_(values)
