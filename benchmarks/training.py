"""Training: windows cut from resident series against a Dataset of stored windows.

    make demo
    python benchmarks/training.py --threads 2

The windows of some samples of the demo are written to files, as one does for a PyTorch `Dataset`;
a `DataLoader` shuffles them into batches. The other side keeps the series of all cells in memory
and cuts each batch out of them, as `deepprofile run` does. Network, loss and optimiser are the
same. Sides take turns; the ratio is the median of those of the turns. A third side is the network
as one writes it down (Conv1d, BatchNorm1d, a list of heads), on windows in the order of Conv1d.
Beside the time that passes, the processor's time of a step is compared (without workers), which
other work on the machine changes less. Then: what a step is made of, and the bytes on disk.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deepprofile.cluster import ENVIRONMENT

if __name__ == "__main__" and not ENVIRONMENT.keys() <= os.environ.keys():  # as workers have it
    settings = {name: str(value) for name, value in ENVIRONMENT.items()}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})

import numpy as np
import torch
from inference import Textbook
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deepprofile.model.configuration import NetworkConfig, TrainingConfig
from deepprofile.model.loss import DeepProfileLoss
from deepprofile.model.network import DeepProfile
from deepprofile.model.samples import Batch, Samples
from deepprofile.model.training import Trainer
from deepprofile.profile import Layer
from deepprofile.store import layers_of, open_cube

BATCH, WINDOW = 128, 360
WARM_UP = 5
"""Batches that are not timed: those that a loader's processes have ready at the start."""
PAPER_SAMPLES, PAPER_CELLS, PAPER_DAYS = 11_500_000, 3_538, 3_623
FIELDS = ("series", "auxiliary", "target", "weight")


class Turn(NamedTuple):
    """Speed of some steps: steps a second, and milliseconds of this process's processor time."""

    speed: float
    work: float


class Clock(NamedTuple):
    """Time that passed, and that this process computed, in seconds."""

    passed: float
    worked: float

    @classmethod
    def now(cls) -> "Clock":
        """The present."""
        return cls(time.perf_counter(), time.process_time())

    def turn(self, start: "Clock", steps: int) -> Turn:
        """Speed of the steps since ``start``."""
        work = (self.worked - start.worked) / steps * 1e3
        return Turn(steps / (self.passed - start.passed), work)


@dataclass(frozen=True)
class Case:
    """Samples of the demo: whole series, and windows of some of them on disk.

    Attributes:
        samples: all series.
        index: cell and last day of the samples.
        layers: of the targets.
        folder: where the files of windows lie.
        cell_day: bytes of a cell and day in the cube of samples, on disk.
        stored: bytes of a sample in the files of windows.
    """

    samples: Samples
    index: Tensor
    layers: Sequence[Layer]
    folder: Path
    cell_day: float
    stored: float


class Windows(Dataset[tuple[Tensor, ...]]):
    """Windows in files, one row a sample."""

    def __init__(self, folder: Path, series: str) -> None:
        """Map the files into memory."""
        names = (series, *FIELDS[1:])
        self.arrays = [np.load(folder / f"{name}.npy", mmap_mode="c") for name in names]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.arrays[0])

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """One sample."""
        return tuple(torch.from_numpy(array[number]) for array in self.arrays)


class PlainLoop:
    """The textbook way: network, loader, loop."""

    def __init__(self, case: Case, network: nn.Module, series: str, workers: int) -> None:
        """Make the loader and the optimiser."""
        data = Windows(case.folder, series)
        self.loader = DataLoader(
            data, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=False
        )
        self.turned = series == "days_first"
        self.network = network.train()
        self.loss = DeepProfileLoss(case.layers)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def __call__(self, steps: int) -> Turn:
        """Speed of some steps."""
        start, batches = Clock.now(), iter(self.loader)
        for number in range(WARM_UP + steps):
            if number == WARM_UP:
                start = Clock.now()
            series, *rest = next(batches)
            self._step(Batch(series.transpose(1, 2) if self.turned else series, *rest))
        return Clock.now().turn(start, steps)

    def _step(self, batch: Batch) -> None:
        terms = self.loss(self.network(batch.series, batch.auxiliary), batch.target, batch.weight)
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 0.1)
        torch.stack(terms).detach().cpu()
        self.optimiser.step()


class Resident:
    """This package's way: the stage's own trainer."""

    def __init__(self, case: Case, steps: int, threads: int) -> None:
        """Take the network's start."""
        config = TrainingConfig(samples_per_epoch=BATCH * (WARM_UP + steps), threads=threads)
        self.trainer = Trainer(
            case.samples, case.index, case.index[:0], case.layers, config, network_of(case)
        )

    def __call__(self, steps: int) -> Turn:
        """Speed of the last steps of an epoch."""
        ends: list[Clock] = []
        self.trainer.run_epoch(1, lambda *place: ends.append(Clock.now()))
        return ends[-1].turn(ends[-1 - steps], steps)

    def shares(self, steps: int) -> dict[str, float]:
        """Share of a step's time by part."""
        trainer, spent = self.trainer, dict.fromkeys(("cut", "forward", "backward", "update"), 0.0)
        for part in trainer._batches(trainer._draw(BATCH * steps)):
            times = [time.perf_counter()]
            times.extend(time.perf_counter() for _ in self._parts(part))
            for name, seconds in zip(spent, np.diff(times), strict=True):
                spent[name] += seconds
        return {name: seconds / sum(spent.values()) for name, seconds in spent.items()}

    def _parts(self, part: Tensor) -> Iterator[None]:
        trainer = self.trainer
        batch = trainer.samples.gather(part, WINDOW)
        yield
        coefficients = trainer.model(batch.series, batch.auxiliary)
        terms = trainer.loss(coefficients, batch.target, batch.weight)
        yield
        trainer.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        yield
        nn.utils.clip_grad_norm_(trainer.model.parameters(), 0.1)
        trainer.optimiser.step()
        yield


def read_case(url: str, folder: Path, n_windows: int) -> Case:
    """The cube of samples, and files of the windows of some of its training samples."""
    cube = open_cube(url, chunks=None)
    samples = Samples.from_arrays(*(cube[name].values for name in FIELDS))
    index = samples.sample_index(WINDOW, cube["split"].values == "train")
    some = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:n_windows]]
    shape = n_windows, cube.sizes["variable"], WINDOW
    plain = np.lib.format.open_memmap(folder / "series.npy", "w+", np.float32, shape)
    turned_shape = shape[0], shape[2], shape[1]
    turned = np.lib.format.open_memmap(folder / "days_first.npy", "w+", np.float32, turned_shape)
    rest: list[list[Tensor]] = [[], [], []]
    for start in range(0, n_windows, BATCH):
        batch = samples.gather(some[start : start + BATCH], WINDOW)
        plain[start : start + BATCH] = batch.series.numpy()
        turned[start : start + BATCH] = batch.series.transpose(1, 2).numpy()
        for parts, values in zip(rest, batch[1:], strict=True):
            parts.append(values)
    for name, parts in zip(FIELDS[1:], rest, strict=True):
        np.save(folder / f"{name}.npy", torch.cat(parts).numpy())
    written = sum((folder / f"{name}.npy").stat().st_size for name in FIELDS)
    on_disk = sum(file.stat().st_size for file in Path(url).rglob("*") if file.is_file())
    cell_days = cube.sizes["cell"] * cube.sizes["time"]
    return Case(samples, index, layers_of(cube), folder, on_disk / cell_days, written / n_windows)


def network_of(case: Case) -> NetworkConfig:
    """The paper's network for these samples."""
    return NetworkConfig(case.samples.series.shape[2], case.samples.auxiliary.shape[1])


def started(case: Case) -> DeepProfile:
    """A network with the limits of the samples, at its start."""
    torch.manual_seed(0)
    model = DeepProfile.from_config(network_of(case))
    limits = case.samples.limits(case.index, WINDOW)
    model.set_limits(limits.series, limits.auxiliary)
    model.initialise_heads(case.samples.mean_target(case.index))
    return model


def sides(case: Case, steps: int, threads: int) -> dict[str, Callable[[int], Turn]]:
    """What is compared, by name."""
    found: dict[str, Callable[[int], Turn]] = {"resident": Resident(case, steps, threads)}
    for workers in (0, 2):
        found[f"loader, {workers} workers"] = PlainLoop(case, started(case), "days_first", workers)
    for workers in (0, 2):
        network = Textbook(started(case))
        found[f"textbook network, {workers} workers"] = PlainLoop(case, network, "series", workers)
    return found


def print_speeds(turns: dict[str, list[Turn]]) -> None:
    """Speeds, and the ratios to the loaders turn by turn."""
    for name, values in turns.items():
        speeds, work = zip(*values, strict=True)
        print(f"{name:28s} {np.median(speeds):6.1f} steps/s (turns: "
              f"{', '.join(f'{speed:.1f}' for speed in speeds)}), "
              f"{np.median(work):.0f} ms of this process a step")  # fmt: skip
    ours = np.array(turns["resident"])
    for kind in ("loader", "textbook network"):
        alone, helped = (np.array(turns[f"{kind}, {workers} workers"]) for workers in (0, 2))
        for what, ratios in (
            ("steps/s, resident / {} with the better number of workers",
             ours[:, 0] / np.maximum(alone, helped)[:, 0]),
            ("processor time, {} without workers / resident", alone[:, 1] / ours[:, 1]),
        ):  # fmt: skip
            print(f"{what.format(kind)}: {np.median(ratios):.2f} "
                  f"({ratios.min():.2f}-{ratios.max():.2f})")  # fmt: skip


def print_bytes(case: Case) -> None:
    """Bytes on disk of both ways, measured, and by arithmetic for the paper's numbers."""
    windows, series = PAPER_SAMPLES * case.stored, PAPER_CELLS * PAPER_DAYS * case.cell_day
    print(f"on disk: {case.stored:,.0f} bytes a sample as a window, {case.cell_day:.1f} bytes a "
          "cell and day in the cube of samples (forcing, targets, weights; packed)")  # fmt: skip
    print(f"the paper's {PAPER_SAMPLES:,} samples: {windows / 1e9:.0f} GB of windows; "
          f"{PAPER_CELLS:,} cells x {PAPER_DAYS:,} days: {series / 1e9:.2f} GB of series; "
          f"ratio {windows / series:.0f}")  # fmt: skip
    values = case.samples.series.shape[2] + case.samples.target.shape[2]
    raw = PAPER_CELLS * PAPER_DAYS * values * 4
    print(f"without packing the series take {raw / 1e9:.2f} GB: ratio {windows / raw:.0f}")


def main() -> None:
    """Take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", default="demo/cubes/samples", help="a local cube of samples")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--windows", type=int, default=6400, help="samples in files of windows")
    parser.add_argument("--folder", help="where the files of windows are written for a while")
    options = parser.parse_args()
    if not Path(options.samples).is_dir():
        parser.error(f"{options.samples} is not there; `make demo` makes one")
    torch.set_num_threads(options.threads)
    print(f"batch {BATCH}, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="deepprofile-", dir=options.folder) as folder:
        case = read_case(options.samples, Path(folder), options.windows)
        compared = sides(case, options.steps, options.threads)
        turns: dict[str, list[Turn]] = {name: [] for name in compared}
        for _ in range(options.turns):
            for name, side in compared.items():
                turns[name].append(side(options.steps))
        print_speeds(turns)
        resident = compared["resident"]
        assert isinstance(resident, Resident)
        shares = resident.shares(options.steps)
        print("a step: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
        print_bytes(case)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
