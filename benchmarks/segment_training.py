"""Training on segments against training on single windows, side by side.

    make demo
    OMP_NUM_THREADS=1 python benchmarks/segment_training.py --costs
    OMP_NUM_THREADS=1 python benchmarks/segment_training.py

A batch KxSxD is K segments of S windows of one cell, D days apart (`segments.py`). 128x1x1, single
windows at random through the network itself, is the printed procedure. Batch norm, loss and
gradients of a step on segments are those of its windows cut one by one, which is checked first;
segments only share the work. All else is alike: start, Adam, clipping, the mean of the parameters
after the last five epochs with batch-norm statistics of 200 batches of single windows, and the
validation samples. Negative values count as in a batch of 128, whatever the size of the batch.
Sides take turns, an epoch (with --costs six steps) at a time. Times are those of this process's
processor, and those that passed.
"""

import argparse
import copy
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from deepprofile.cluster import ENVIRONMENT

if __name__ == "__main__" and not ENVIRONMENT.keys() <= os.environ.keys():  # as workers have it
    settings = {name: str(value) for name, value in ENVIRONMENT.items()}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})

import numpy as np
import torch
from segments import Shape, cut_segments, segment_coefficients, segment_index
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.loss import DeepProfileLoss
from deepprofile.model.network import DeepProfile
from deepprofile.model.samples import Batch, Samples
from deepprofile.profile import Layer
from deepprofile.store import layers_of, open_cube

BATCH, WINDOW, LAST, STATISTICS, VALIDATION = 128, 360, 5, 200, 64
FIELDS = ("series", "auxiliary", "target", "weight")
PRINTED = "128x1x1"
SHAPES = ("64x1x1", "32x8x8", "32x4x40")
COSTS = ("64x1x1", "8x16x1", "16x32x1", "16x8x8", "32x8x8", "64x8x8", "32x4x8", "32x4x40")


@dataclass(frozen=True)
class Case:
    """Samples of the demo, and which of them train and validate."""

    samples: Samples
    index: Tensor
    validation: Tensor
    layers: Sequence[Layer]


@dataclass
class Run:
    """One training on batches of a shape; saved: parameters after the last epochs."""

    case: Case
    shape: Shape
    seed: int
    saved: list[list[Tensor]] = field(default_factory=list)
    passed: float = 0.0
    worked: float = 0.0

    def __post_init__(self) -> None:
        """Take the start of the training stage."""
        torch.manual_seed(self.seed)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.model = started(self.case)
        self.loss = DeepProfileLoss(self.case.layers)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.index = segment_index(self.case.index, self.shape)

    def steps(self, count: int) -> None:
        """Some steps on segments drawn without replacement; times are added."""
        self.model.train()
        start = time.perf_counter(), time.process_time()
        size, n = self.shape.segments, len(self.index)
        rounds = -(-count * size // n)
        order = torch.cat([torch.randperm(n, generator=self.generator) for _ in range(rounds)])
        for part in torch.split(self.index[order[: count * size]], size):
            self._step(cut_segments(self.case.samples, part, self.shape, WINDOW))
        self.passed += time.perf_counter() - start[0]
        self.worked += time.process_time() - start[1]

    def epoch(self, count: int) -> None:
        """An epoch of so many steps."""
        self.steps(count)
        now = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.saved = [*self.saved, now][-LAST:]

    def validate(self, chosen: Tensor) -> list[float]:
        """Terms of the loss of the mean of the last epochs' parameters."""
        model, index = copy.deepcopy(self.model), self.case.index
        with torch.no_grad():
            for parameter, *values in zip(model.parameters(), *self.saved, strict=True):
                parameter.copy_(torch.stack(values).mean(0))
        generator = torch.Generator().manual_seed(self.seed)
        drawn = index[torch.randperm(len(index), generator=generator)[: STATISTICS * BATCH]]
        whole = TakesBatch(model)
        update_bn(((self._gather(part),) for part in torch.split(drawn, BATCH)), whole)
        model.eval()
        terms = []
        with torch.no_grad():
            for batch in map(self._gather, torch.split(chosen, BATCH)):
                parts = self.loss(whole(batch), batch.target, batch.weight)
                terms.append(torch.stack(parts))
        return torch.stack(terms).mean(0).tolist()

    def _gather(self, part: Tensor) -> Batch:
        return self.case.samples.gather(part, WINDOW)

    def _step(self, batch: Batch) -> None:
        if self.shape.windows == 1:
            coefficients = self.model(batch.series, batch.auxiliary)
        else:
            inputs = batch.series, batch.auxiliary
            coefficients = segment_coefficients(self.model, *inputs, self.shape)
        terms = self.loss(coefficients, batch.target, batch.weight)
        surplus = (BATCH / len(coefficients) - 1) * terms.negative
        self.optimiser.zero_grad(set_to_none=True)
        (terms.total + surplus).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        torch.stack(terms).detach().cpu()
        self.optimiser.step()


class TakesBatch(nn.Module):
    """A model that takes a batch as one argument, as ``update_bn`` calls it."""

    def __init__(self, model: DeepProfile) -> None:
        """Keep the model."""
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Coefficients of the batch."""
        return self.model(batch.series, batch.auxiliary)  # type: ignore[no-any-return]


def read_case(url: str) -> Case:
    """The cube of samples."""
    cube = open_cube(url, chunks=None)
    series, auxiliary, target, weight = (cube[name].values for name in FIELDS)
    samples = Samples.from_arrays(series, auxiliary, target, weight)
    split = cube["split"].values
    index, validation = (samples.sample_index(WINDOW, split == x) for x in ("train", "validation"))
    return Case(samples, index, validation, layers_of(cube))


def started(case: Case) -> DeepProfile:
    """A network with the limits of the samples, at its start."""
    series, auxiliary = case.samples.series, case.samples.auxiliary
    model = DeepProfile.from_config(NetworkConfig(series.shape[2], auxiliary.shape[1]))
    limits = case.samples.limits(case.index, WINDOW)
    model.set_limits(limits.series, limits.auxiliary)
    model.initialise_heads(case.samples.mean_target(case.index))
    return model


def check_equal(case: Case, shape: Shape) -> None:
    """Compare one step in float64 with that of the same windows cut one by one."""
    batch = cut_segments(case.samples, segment_index(case.index, shape)[:3], shape, WINDOW)
    series, auxiliary = batch.series.double(), batch.auxiliary.double()
    starts = range(0, shape.windows * shape.step, shape.step)
    windows = torch.cat([series[:, :, start : start + WINDOW] for start in starts])
    model = started(case).double().train()
    other = copy.deepcopy(model)
    expected = model(windows, auxiliary.repeat(shape.windows, 1))
    found = segment_coefficients(other, series, auxiliary, shape)
    for result in (expected, found):
        result.square().sum().backward()
    pairs = [(a.grad, b.grad) for a, b in zip(model.parameters(), other.parameters(), strict=True)]
    errors = [(a - b).norm() / max(a.norm(), 1) for a, b in [(expected, found), *pairs]]
    print(f"{shape}: coefficients differ by {errors[0]:.0e}, gradients by {max(errors[1:]):.0e}")
    assert max(errors) < 1e-9


def print_costs(runs: Sequence[Run], turns: int) -> None:
    """Processor time of a step and of a sample, and medians of their ratios turn by turn."""
    costs = np.empty((turns + 1, len(runs)))
    for turn in costs:
        for place, run in enumerate(runs):
            run.worked = 0.0
            run.steps(6)
            turn[place] = run.worked / 6
    for run, values in zip(runs, costs[1:].T, strict=True):  # the first turn warms up
        size, quicker = run.shape.segments * run.shape.windows, np.median(costs[1:, 0] / values)
        print(f"{run.shape!s:8s} {np.median(values) * 1e3:6.1f} ms a step, {size:4d} samples; "
              f"times quicker: a step {quicker:.2f}, "
              f"a sample {quicker * size / BATCH:.2f}")  # fmt: skip


def compare(runs: Sequence[Run], chosen: Tensor, epochs: int, steps: int) -> None:
    """Train all sides by turns; losses every five epochs."""
    print("shape, seed, epoch, steps, seconds of the processor, seconds passed; of validation: "
          "total, surface, root, negative, smoothness")  # fmt: skip
    for epoch in range(1, epochs + 1):
        for run in runs:
            run.epoch(steps)
            if epoch % LAST == 0:
                terms = " ".join(f"{value:.6f}" for value in run.validate(chosen))
                print(f"{run.shape!s:8s} {run.seed} {epoch:3d} {epoch * steps:6d} "
                      f"{run.worked:7.1f} {run.passed:7.1f}  {terms}", flush=True)  # fmt: skip


def main() -> None:
    """Check, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", default="demo/cubes/samples", help="a cube of samples")
    parser.add_argument("--shapes", nargs="+", help="of batches, beside the printed one")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--steps", type=int, default=125, help="steps of an epoch")
    parser.add_argument("--costs", action="store_true", help="only time the steps")
    parser.add_argument("--turns", type=int, default=7, help="with --costs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = options.shapes or (COSTS if options.costs else SHAPES)
    shapes = [Shape.of(text) for text in (PRINTED, *chosen)]
    case = read_case(options.samples)
    print(f"one thread, load {os.getloadavg()[0]:.1f}")
    for shape in shapes[1:]:
        check_equal(case, shape)
    runs = [Run(case, shape, seed) for seed in options.seeds for shape in shapes]
    if options.costs:
        print_costs(runs, options.turns)
    else:
        order = torch.randperm(len(case.validation), generator=torch.Generator().manual_seed(99))
        validation = case.validation[order[: VALIDATION * BATCH]]
        compare(runs, validation, options.epochs, options.steps)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
