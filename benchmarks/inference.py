"""Speed of prediction: the sliding-window engine against the direct network, in one run.

    OMP_NUM_THREADS=2 python benchmarks/inference.py --threads 2

Prints microseconds per cell and day of output of both, their ratio, where the engine's time goes,
operations and bytes, and the share of the machine's rate of matrix products. All times are minima
over repeats that take turns, so that a busy moment of the machine strikes all alike.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from deepprofile.model import sliding
from deepprofile.model.folding import fold
from deepprofile.model.network import DeepProfile
from deepprofile.model.prediction import predict_windows
from deepprofile.model.sliding import sliding_coefficients

FloatArray = NDArray[np.float32]
BATCH_SIZES = (64, 128, 256, 512)
DIRECT_CELLS = 8
PRODUCT_SIZE = 2048
PARTS = ("normalisation and copies", "convolutions", "dense layers and heads")


class ByteCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that all operations read and write, views left out."""

    def __init__(self) -> None:
        """Start from zero."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count."""
        result = function(*args, **(kwargs or {}))
        is_view = any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns)
        if not is_view and "empty" not in str(function):
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.total += sum(x.numel() * x.element_size() for x in tensors)
        return result


def seconds(function: Callable[[], object]) -> float:
    """Time of one call, with a GPU's work done."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def minima(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Shortest time of each function; the functions take turns."""
    times = [{name: seconds(f) for name, f in functions.items()} for _ in range(repeats + 1)]
    return {name: min(turn[name] for turn in times[1:]) for name in functions}


def parts_of_engine(
    model: DeepProfile, series: FloatArray, auxiliary: FloatArray, repeats: int
) -> list[float]:
    """Seconds a cell-day of each of PARTS, measured on one block of cells."""
    device = model.series_minimum.device
    n_days = series.shape[2]
    n_cells = max(1, sliding.VALUES_AT_ONCE * sliding.workers(device) // n_days)
    series, constant = series[:n_cells], torch.as_tensor(auxiliary[:n_cells], device=device)
    window = model.config.window
    with torch.inference_mode():
        network = fold(model)
        first = sliding.first_map(network, series, window)
        last = sliding.convolve(network, first)
        features = sliding.gather(last, constant)
        rows = features.flatten(1)
        found = minima(
            {
                "first": lambda: sliding.first_map(network, series, window),
                "convolve": lambda: sliding.convolve(network, first),
                "gather": lambda: sliding.gather(last, constant),
                "regress": lambda: sliding.regress(network, rows),
            },
            20 * repeats,
        )
    size = rows.shape[1]
    copies = found["first"] + found["gather"]
    return [copies / size, found["convolve"] / size, found["regress"] / size]


def count(function: Callable[[], object]) -> tuple[float, float]:
    """Operations of all matrix products and convolutions, and bytes read and written."""
    with FlopCounterMode(display=False) as operations:
        function()
    with ByteCounter() as moved:
        function()
    return operations.get_total_flops(), moved.total


def matrix_product(device: torch.device) -> Callable[[], object]:
    """A product of two square matrices."""
    a, b = torch.rand(2, PRODUCT_SIZE, PRODUCT_SIZE, device=device)
    return lambda: a @ b


def direct_path(
    model: DeepProfile, series: FloatArray, auxiliary: FloatArray, size: int
) -> Callable[[], object]:
    """The direct network with batches of one size."""
    return lambda: predict_windows(model, series, auxiliary, size)


def print_counts(
    model: DeepProfile, few: tuple[FloatArray, FloatArray], costs: dict[str, float], rate: float
) -> None:
    """Operations, bytes and share of the matrix rate; costs are seconds a cell-day."""
    cell_days = len(few[0]) * (few[0].shape[2] - model.config.window + 1)
    for name, path in (("direct", predict_windows), ("engine", sliding_coefficients)):
        operations, moved = count(lambda path=path: path(model, *few))  # type: ignore[misc]
        operations, moved = operations / cell_days, moved / cell_days
        print(
            f"{name}: {operations / 1e6:.3f} MFLOP and {moved / 1e3:.1f} kB read and written by "
            f"all operations a cell-day, {operations / costs[name] / rate:.0%} of the rate of "
            "matrix products"
        )


def random_inputs(model: DeepProfile, cells: int, days: int) -> tuple[FloatArray, FloatArray]:
    """Series and auxiliary features for so many days of output."""
    rng = np.random.default_rng(0)
    shape = cells, model.config.n_variables, days + model.config.window - 1
    return rng.random(shape, np.float32), rng.random((cells, model.config.n_auxiliary), np.float32)


def report(model: DeepProfile, inputs: tuple[FloatArray, FloatArray], repeats: int) -> None:
    """Measure and print."""
    few = inputs[0][:DIRECT_CELLS], inputs[1][:DIRECT_CELLS]
    days = inputs[0].shape[2] - model.config.window + 1
    functions = {f"direct, batches of {n}": direct_path(model, *few, n) for n in BATCH_SIZES}
    functions["engine"] = lambda: sliding_coefficients(model, *inputs)
    functions["product"] = matrix_product(model.series_minimum.device)
    times = minima(functions, repeats)
    rate = 2 * PRODUCT_SIZE**3 / times.pop("product")
    engine = times.pop("engine") / (len(inputs[0]) * days)
    direct = {name: t / (len(few[0]) * days) for name, t in times.items()}
    best = min(direct.values())
    print(f"{'matrix products':26} {rate / 1e9:8.0f} GFLOP/s")
    for name, value in direct.items():
        print(f"{name:26} {value * 1e6:8.2f} µs a cell-day")
    print(f"{'engine':26} {engine * 1e6:8.2f} µs a cell-day, {1 / engine:,.0f} cell-days/s")
    for name, value in zip(PARTS, parts_of_engine(model, *inputs, repeats), strict=True):
        print(f"  {name:24} {value * 1e6:8.2f} µs a cell-day")
    print(f"{'direct / engine':26} {best / engine:8.1f}")
    print_counts(model, few, {"direct": best, "engine": engine}, rate)
    size = inputs[0][0].nbytes / days
    print(f"input {size:.0f}, output {4 * model.config.n_coefficients} bytes a cell-day")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cells", type=int, default=200, help="cells that the engine predicts")
    parser.add_argument("--days", type=int, default=365, help="days of output of each cell")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = DeepProfile().eval().to(options.device)
    print(f"{options.threads} threads, {options.device}, {options.cells} cells, minima")
    report(model, random_inputs(model, options.cells, options.days), options.repeats)


if __name__ == "__main__":
    main()
