"""Speed of prediction: the sliding-window engine against the direct network, in one run.

    python benchmarks/inference.py --threads 2

One year of daily output of 2,000 cells by the engine; the direct network, window by window, on as
many of these cells as it does in a second or two, at its best batch size:

* *direct*: this package's network, with its layout in memory tuned for CPUs;
* *textbook*: the same weights as the layers in which one writes the network down (Conv1d,
  BatchNorm1d, AvgPool1d, a list of heads), on windows cut by ``unfold``.

Prints microseconds a cell-day, ratios, the convolutional part alone, where the engine's time goes,
operations, and the share of the machine's rate of matrix products. All times are minima over
repeats that take turns, so that a busy moment of the machine strikes all alike. With ``--save``
the table is kept under benchmarks/results/.
"""

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepprofile.cluster import ENVIRONMENT

if __name__ == "__main__" and not ENVIRONMENT.keys() <= os.environ.keys():  # as workers have it
    settings = {name: str(value) for name, value in ENVIRONMENT.items()}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepprofile.model.engine import Engine
from deepprofile.model.io import load_model
from deepprofile.model.network import DeepProfile
from deepprofile.model.precision import PRECISIONS, check_precision
from deepprofile.model.prediction import predict_windows
from deepprofile.model.sliding import sliding_coefficients
from deepprofile.profile import depth_matrix

FloatArray = NDArray[np.float32]
BATCH_SIZES = (32, 64, 128, 256, 512)
DIRECT_CELLS = 8
PRODUCT_SIZE = 2048
PARTS = {
    "_convolve": "convolutions",
    "_features": "features picked",
    "_regress": "dense layers and heads",
    "run": "all",
}
RESULTS = Path(__file__).parent / "results"


class Textbook(nn.Module):
    """The network of a trained model, written down layer by layer."""

    def __init__(self, model: DeepProfile) -> None:
        """Take over the weights."""
        super().__init__()
        self.model = model
        stages = []
        for stage, pool in zip(model.extractor.children(), model.config.pooling, strict=True):
            wide, norm, *_ = stage.children()
            convolution = nn.Conv1d(wide.in_channels, wide.out_channels, wide.kernel_size[1],
                                    padding="same")  # fmt: skip
            convolution.weight.data.copy_(wide.weight.data[:, :, 0])
            convolution.bias.data.copy_(wide.bias.data)
            stages += [convolution, _norm(norm), nn.ReLU(), nn.AvgPool1d(pool)]
        self.extractor = nn.Sequential(*stages)
        self.heads = nn.ModuleList(_head(model, i) for i in range(model.config.n_coefficients))
        self.eval()

    def forward(self, series: Tensor, auxiliary: Tensor) -> Tensor:
        """Coefficients of windows (B, variables, days)."""
        temporal = self.extractor(self.model.normalise_series(series)).flatten(1)
        features = torch.cat([temporal, self.model.normalise_auxiliary(auxiliary)], 1)
        inputs = torch.cat([features, *self.model.dense(features)], 1)
        return torch.cat([head(inputs) for head in self.heads], 1)


def _norm(norm: nn.BatchNorm2d, part: slice = slice(None)) -> nn.BatchNorm1d:
    result = nn.BatchNorm1d(len(norm.weight[part]))
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(result, name).data.copy_(getattr(norm, name).data[part])
    return result


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    result = nn.Linear(weight.shape[1], weight.shape[0])
    result.weight.data.copy_(weight)
    result.bias.data.copy_(bias)
    return result


def _head(model: DeepProfile, i: int) -> nn.Sequential:
    heads = model.heads
    _, first, second = heads.weight.shape
    linear, norm, _ = heads.entry.children()
    rows, units = slice(i * first, (i + 1) * first), slice(i * second, (i + 1) * second)
    return nn.Sequential(
        _linear(linear.weight.data[rows], linear.bias.data[rows]),
        _norm(norm, rows),
        nn.ReLU(),
        _linear(heads.weight.data[i].t(), heads.bias.data[i, 0]),
        _norm(heads.norm, units),
        nn.ReLU(),
        _linear(heads.weight_out.data[i][None], heads.bias_out.data[i][None]),
    )


class Machine:
    """The device, and what is measured on it."""

    def __init__(self, model: DeepProfile, cells: int, days: int, repeats: int) -> None:
        """Draw the inputs."""
        self.model, self.repeats = model, repeats
        self.device = model.series_minimum.device
        config = model.config
        rng = np.random.default_rng(0)
        low, high = (x.cpu().numpy() for x in (model.series_minimum, model.series_maximum))
        shape = cells, config.n_variables, days + config.window - 1
        self.series = rng.random(shape, np.float32) * (high - low)[:, None] + low[:, None]
        low, high = (x.cpu().numpy() for x in (model.auxiliary_minimum, model.auxiliary_maximum))
        self.auxiliary = rng.random((cells, config.n_auxiliary), np.float32) * (high - low) + low
        self.cell_days, self.few_cell_days = cells * days, min(cells, DIRECT_CELLS) * days
        self.few = self.series[:DIRECT_CELLS], self.auxiliary[:DIRECT_CELLS]

    def minima(self, functions: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Shortest time of each function; the functions take turns."""
        times = [
            {name: self.seconds(function) for name, function in functions.items()}
            for _ in range(self.repeats + 1)
        ]
        return {name: min(turn[name] for turn in times[1:]) for name in functions}

    def seconds(self, function: Callable[[], object]) -> float:
        """Time of one call, with a GPU's work done."""
        start = time.perf_counter()
        function()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def engine(self, precision: str = "float32") -> FloatArray:
        """The engine on all cells."""
        return sliding_coefficients(self.model, self.series, self.auxiliary, precision=precision)

    def unfolded(self, network: Callable[..., Tensor], batch: int) -> list[Tensor]:
        """A network on the windows of the few cells."""
        window = self.model.config.window
        series = torch.as_tensor(self.few[0], device=self.device).unfold(2, window, 1)
        auxiliary = torch.as_tensor(self.few[1], device=self.device)
        with torch.inference_mode():
            return [
                network(windows.transpose(0, 1), constant.expand(windows.shape[1], -1))
                for cell, constant in zip(series, auxiliary, strict=True)
                for windows in torch.split(cell, batch, dim=1)
            ]

    def product(self) -> Callable[[], object]:
        """A product of two square matrices."""
        a, b = torch.rand(2, PRODUCT_SIZE, PRODUCT_SIZE, device=self.device)
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)


def best_batch(machine: Machine, run: Callable[[int], object]) -> int:
    """The batch size at which a direct network is quickest."""
    times = machine.minima({str(n): lambda n=n: run(n) for n in BATCH_SIZES})  # type: ignore[misc]
    return int(min(times, key=lambda name: times[name]))


def timed_parts(machine: Machine) -> dict[str, float]:
    """Seconds a cell-day of the engine's parts in a real run, summed over its threads."""
    spent: Counter[str] = Counter()
    original = {name: getattr(Engine, name) for name in PARTS}

    def timed(name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.perf_counter()
            result = original[name](*args)
            if machine.device.type == "cuda":
                torch.cuda.synchronize()
            spent[name] += time.perf_counter() - start  # type: ignore[assignment]
            return result

        return call

    for name in PARTS:
        setattr(Engine, name, timed(name))
    machine.engine()
    for name, function in original.items():
        setattr(Engine, name, function)
    return {PARTS[name]: seconds / machine.cell_days for name, seconds in spent.items()}


def operations(machine: Machine, function: Callable[[], object]) -> float:
    """Operations of all matrix products and convolutions a cell-day of the few cells."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the counter sees its own thread only
    with FlopCounterMode(display=False) as counter:
        function()
    torch.set_num_threads(threads)
    return counter.get_total_flops() / machine.few_cell_days


def report(machine: Machine) -> list[tuple[str, str]]:
    """Measure everything; rows of the table."""
    model = machine.model
    textbook = Textbook(model).to(machine.device)
    paths: dict[str, Callable[[int], object]] = {
        "direct": lambda n: predict_windows(model, *machine.few, n),
        "textbook": lambda n: machine.unfolded(textbook, n),
        "direct convolutions": lambda n: machine.unfolded(
            lambda series, _: model.extractor(model.normalise_series(series)), n
        ),
    }
    found = torch.cat(machine.unfolded(textbook, 64)).cpu().numpy().reshape(-1, 10)
    np.testing.assert_allclose(
        found, predict_windows(model, *machine.few).reshape(-1, 10), rtol=1e-3, atol=1e-5
    )
    batches = {name: best_batch(machine, run) for name, run in paths.items()}
    functions: dict[str, Callable[[], object]] = {
        name: lambda name=name: paths[name](batches[name])  # type: ignore[misc]
        for name in paths
    }
    others = other_precisions(machine.device)
    functions |= {
        "engine": machine.engine,
        **{f"engine, {name}": lambda name=name: machine.engine(name) for name in others},  # type: ignore[misc]
        "product": machine.product(),
    }
    times = machine.minima(functions)
    rate = 2 * PRODUCT_SIZE**3 / times.pop("product")
    cost = {
        name: seconds / (machine.cell_days if "engine" in name else machine.few_cell_days)
        for name, seconds in times.items()
    }
    parts = timed_parts(machine)
    shares = {name: value / parts["all"] for name, value in parts.items()}
    convolutions = shares["convolutions"] * cost["engine"]
    work = {
        "direct": operations(machine, lambda: predict_windows(model, *machine.few)),
        "engine": operations(machine, lambda: sliding_coefficients(model, *machine.few)),
    }
    rows = [("matrix products 2048 x 2048, GFLOP/s", f"{rate / 1e9:.0f}")]
    rows += [
        (f"{name}, batches of {batches[name]}, µs a cell-day", f"{cost[name] * 1e6:.2f}")
        for name in paths
    ]
    rows += [
        ("engine, µs a cell-day", f"{cost['engine'] * 1e6:.2f}"),
        ("engine, cell-days a second", f"{1 / cost['engine']:,.0f}"),
        *((f"- {name}", f"{shares[name]:.0%}") for name in list(PARTS.values())[:-1]),
        ("direct / engine", f"{cost['direct'] / cost['engine']:.1f}"),
        ("textbook / engine", f"{cost['textbook'] / cost['engine']:.1f}"),
        ("convolutions, direct / engine", f"{cost['direct convolutions'] / convolutions:.0f}"),
        *(
            (f"{name}, MFLOP a cell-day and share of the rate of products",
             f"{work[name] / 1e6:.3f}, {work[name] / cost[name] / rate:.0%}")
            for name in work
        ),
    ]  # fmt: skip
    for name in others:
        rows += [
            (f"engine, {name}, µs a cell-day", f"{cost[f'engine, {name}'] * 1e6:.2f}"),
            (f"- largest and root mean square error of soil moisture, {name}",
             error_of(machine, name)),
        ]  # fmt: skip
    return rows


def other_precisions(device: torch.device) -> list[str]:
    """Precisions besides float32 that the device has."""
    found = []
    for name in PRECISIONS:
        try:
            check_precision(name, device)
        except ValueError as reason:
            print(f"without {name}: {reason}")
        else:
            found.append(name)
    return [name for name in found if name != "float32"]


def error_of(machine: Machine, precision: str) -> str:
    """Largest and root mean square difference from float32 of the profiles of 100 cells."""
    depths = depth_matrix(np.linspace(0, 1, 21), machine.model.config.n_coefficients)
    some = machine.series[:100], machine.auxiliary[:100]
    rough, exact = (
        sliding_coefficients(machine.model, *some, precision=name) @ depths
        for name in (precision, "float32")
    )
    error = np.abs(rough - exact)
    return f"{error.max():.1e}, {np.sqrt(np.mean(error**2)):.1e} m³ m⁻³"


def describe(device: torch.device) -> str:
    """Processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cells", type=int, default=2000, help="cells that the engine predicts")
    parser.add_argument("--days", type=int, default=365, help="days of output of each cell")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="folder of a trained model; by default random weights")
    parser.add_argument("--save", metavar="NAME", help="keep the table as results/NAME.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = load_model(options.model) if options.model else DeepProfile().eval()
    machine = Machine(model.to(options.device), options.cells, options.days, options.repeats)
    title = (
        f"{describe(machine.device)}, {options.threads} threads, torch {torch.__version__}, "
        f"{options.cells} cells x {options.days} days, "
        f"{'trained model' if options.model else 'random weights'}, minima of {options.repeats}"
    )
    print(title)
    rows = report(machine)
    for name, value in rows:
        print(f"{name:64} {value:>14}")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        table = "\n".join(f"| {name} | {value} |" for name, value in rows)
        (RESULTS / f"{options.save}.md").write_text(f"{title}\n\n| | |\n|---|---|\n{table}\n")


if __name__ == "__main__":
    main()
