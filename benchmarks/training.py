"""Speed of training and of prediction on random data.

    OMP_NUM_THREADS=2 python benchmarks/training.py --threads 2

Prints training steps per second at the paper's batch of 128 and microseconds of prediction per
cell and day, with the number of threads.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from deepprofile.model.configuration import TrainingConfig
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import predict_windows
from deepprofile.model.samples import Samples
from deepprofile.model.sliding import sliding_coefficients
from deepprofile.model.training import train
from deepprofile.profile import Layer

LAYERS = (
    Layer("smap_l4", 0.0, 0.05),
    Layer("smap_l4", 0.0, 1.0),
    Layer("era5_land", 0.0, 0.07),
    Layer("era5_land", 0.07, 0.28),
    Layer("era5_land", 0.28, 1.0),
    Layer("gldas", 0.0, 0.1),
    Layer("gldas", 0.1, 0.4),
    Layer("gldas", 0.4, 1.0),
)
N_CELLS, N_DAYS = 200, 731
Engine = Callable[[DeepProfile, NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def random_samples() -> Samples:
    """Two years of 200 cells."""
    rng = np.random.default_rng(0)
    return Samples.from_arrays(
        rng.random((N_CELLS, 39, N_DAYS), np.float32),
        rng.random((N_CELLS, 6), np.float32),
        rng.random((N_CELLS, len(LAYERS), N_DAYS), np.float32),
        rng.random((N_CELLS, len(LAYERS)), np.float32),
    )


def training_speed(threads: int, steps: int, epochs: int) -> list[float]:
    """Steps per second of each epoch."""
    samples = random_samples()
    config = TrainingConfig(epochs=epochs, samples_per_epoch=128 * steps, threads=threads)
    index = samples.sample_index(360)
    _, history = train(samples, index, index[:0], LAYERS, config)
    return list(history["steps_per_second"])


def prediction_speed(engine: Engine, threads: int, n_cells: int, n_windows: int) -> float:
    """Microseconds a cell-day."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    series = rng.random((n_cells, 39, 359 + n_windows), np.float32)
    auxiliary = rng.random((n_cells, 6), np.float32)
    model = DeepProfile().eval()
    engine(model, series[:1], auxiliary[:1])
    start = time.perf_counter()
    engine(model, series, auxiliary)
    return (time.perf_counter() - start) / (n_cells * n_windows) * 1e6


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=100, help="training steps of an epoch")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    speeds = training_speed(options.threads, options.steps, options.epochs)
    print(
        f"training, batch 128, {options.threads} threads: median {np.median(speeds):.1f} steps/s "
        f"(epochs: {', '.join(f'{speed:.1f}' for speed in speeds)})"
    )
    for engine in (predict_windows, sliding_coefficients):
        cost = prediction_speed(engine, options.threads, n_cells=64, n_windows=372)
        print(f"{engine.__name__}, {options.threads} threads: {cost:.1f} µs a cell-day")


if __name__ == "__main__":
    main()
