"""Training: two processes that share each batch against one process with all their threads.

    python benchmarks/training_processes.py --processes 2 --turns 7 --steps 20

The paper's network and batch of 128, on series of random numbers in memory. Sides take turns; the
ratio is the median of those of the turns. *apart* is a side whose processes have a batch norm each,
which is another (worse) training: its speed says what the exchange of statistics costs.
"""

import argparse
import multiprocessing
import os
import socket
import statistics
import sys
from dataclasses import dataclass
from datetime import timedelta

from deepprofile.cluster import ENVIRONMENT, cores

if __name__ == "__main__" and not ENVIRONMENT.keys() <= os.environ.keys():  # as workers have it
    settings = {name: str(value) for name, value in ENVIRONMENT.items()}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from deepprofile.model.configuration import TrainingConfig
from deepprofile.model.parallel import _OWN_BUFFERS, ALONE, Processes, joined
from deepprofile.model.samples import Samples
from deepprofile.model.training import Trainer
from deepprofile.profile import Layer

BATCH, N_CELLS, N_DAYS = 128, 64, 1100
LAYERS = tuple(Layer("smap_l4", 0.0, bottom) for bottom in (0.05, 1.0))
HOST = "127.0.0.1"
SIDES = ("one", "together", "apart")


@dataclass(frozen=True)
class Options:
    """What is measured: processes, threads of all of them, turns and steps of each."""

    processes: int
    threads: int
    turns: int
    steps: int


class Apart(Processes):
    """Processes that exchange gradients only."""

    def spread(self, model: nn.Module, device: str) -> nn.Module:
        """The model with batch norms of this process's share."""
        return DistributedDataParallel(model, gradient_as_bucket_view=True, **_OWN_BUFFERS)


def random_samples() -> Samples:
    """Series as long as three years, of all 39 variables."""
    draw = np.random.default_rng(0).random
    shapes = (N_CELLS, 39, N_DAYS), (N_CELLS, 6), (N_CELLS, len(LAYERS), N_DAYS)
    arrays = [draw(shape, np.float32) for shape in (*shapes, (N_CELLS, len(LAYERS)))]
    return Samples.from_arrays(*arrays)


def trainer(steps: int, processes: Processes) -> Trainer:
    """A training whose epoch has so many steps."""
    torch.manual_seed(0)
    samples = random_samples()
    index = samples.sample_index(360)
    config = TrainingConfig(epochs=1, batch_size=BATCH, samples_per_epoch=steps * BATCH)
    return Trainer(samples, index, index[:0], LAYERS, config, None, processes=processes)


def process(rank: int, port: int, options: Options) -> None:
    """One process; the first alone has a turn of all threads, the others wait meanwhile."""
    store = dist.TCPStore(HOST, port, options.processes, rank == 0, timedelta(minutes=1))
    ours = Processes(rank, options.processes, options.processes)
    share = max(1, options.threads // options.processes)
    with joined(ours, store, "cpu", HOST):
        sides = {"one": trainer(options.steps, ALONE), "together": trainer(options.steps, ours)}
        sides["apart"] = trainer(options.steps, Apart(rank, options.processes))
        speeds: dict[str, list[float]] = {side: [] for side in SIDES}
        for turn in range(options.turns + 1):
            for side in SIDES:
                torch.set_num_threads(options.threads if side == "one" else share)
                dist.barrier()
                if rank == 0 or side != "one":
                    (record,) = sides[side].run_epoch(1)
                    speeds[side] += [record.steps_per_second] if turn else []
        if rank == 0:
            tell(speeds)


def tell(speeds: dict[str, list[float]]) -> None:
    """Print the medians."""
    for side, values in speeds.items():
        pairs = zip(values, speeds["one"], strict=True)
        ratios = sorted(value / one for value, one in pairs)
        middle = statistics.median(ratios)
        print(
            f"{side:>9}: {statistics.median(values):6.1f} steps a second, "
            f"{middle:.2f} of one process ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


def main() -> None:
    """Start the processes and wait for them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, default in (("processes", 2), ("threads", cores()), ("turns", 7), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = Options(**vars(parser.parse_args()))
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    started = [
        multiprocessing.get_context("spawn").Process(target=process, args=(rank, port, options))
        for rank in range(options.processes)
    ]
    for one in started:
        one.start()
    for one in started:
        one.join()
    if any(one.exitcode for one in started):
        raise SystemExit("a process failed: its error stands above")


if __name__ == "__main__":
    main()
