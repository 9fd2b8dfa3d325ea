"""The network run along whole series instead of window by window; exact, and much quicker.

Cells are taken in small parts (:mod:`deepprofile.model.engine`). On CPUs each thread takes parts
by itself: one that is held up by other work delays no other.
"""

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deepprofile.model.arguments import check_limits, check_types
from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.engine import Engine, cells_at_once, parts
from deepprofile.model.folding import FoldedNetwork, fold
from deepprofile.model.network import DeepProfile
from deepprofile.model.precision import fixed
from deepprofile.model.staging import Staging


def sliding_coefficients(
    model: DeepProfile, series: ArrayLike, auxiliary: ArrayLike, *, precision: str = "float32"
) -> NDArray[np.float32]:
    """Coefficients of every window of the series, equal to the network's window by window.

    Runs on the model's device; on CPUs with as many threads as ``torch.get_num_threads()``. Plain
    arrays say nothing of their units, and none are checked here: they must be those of
    ``model.config.variable_units`` and ``feature_units``, in the order of ``variables`` and
    ``features``.

    Args:
        model: the network; evaluated in evaluation mode whatever its own mode is.
        series: (cells, variables, T) in raw units.
        auxiliary: (cells, features) in raw units.
        precision: of matrix products, one of ``deepprofile.model.precision.PRECISIONS``.

    Returns:
        (cells, T - window + 1, n) in m³ m⁻³ m⁻ⁱ, NaN where a value of the window or a feature
        is missing (NaN or masked) or infinite.

    Raises:
        ValueError: if the shapes don't fit the model, T is shorter than a window, the model's
            limits are not finite, or the device has no such precision.
        TypeError: if the model is none, an array is complex, or it has labels: their order is
            not looked at here.
    """
    check_types(model)
    check_limits(model)
    series, auxiliary = _plain(series, "series"), _plain(auxiliary, "auxiliary")
    check_shapes(model, series, auxiliary)
    series, auxiliary = _without_infinity(series), _without_infinity(auxiliary)
    n_windows = series.shape[2] - model.config.window + 1
    result = np.empty((len(series), n_windows, model.config.n_coefficients), np.float32)
    device = model.series_minimum.device
    if not len(series):
        return result
    with fixed(precision, device), torch.inference_mode():
        network = fold(model)
        features = model.normalise_auxiliary(torch.as_tensor(auxiliary, device=device))
        run = _run_on_cpu if device.type == "cpu" else _run_on_device
        run(model.config, network, series, features, result)
    return result


def _plain(values: ArrayLike, name: str) -> NDArray[np.float32]:
    if isinstance(values, xr.DataArray | xr.Dataset):
        raise TypeError(
            f"{name} is an xarray {type(values).__name__}: expected a plain array, "
            f"{name}.to_numpy() in the order (cells, variables or features, days). dp.predict "
            "takes labelled arrays and sees to their order."
        )
    if np.iscomplexobj(values):
        raise TypeError(f"{name} is complex: expected real numbers, such as {name}.real")
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float32), np.nan)
    # A slice stays a slice; torch does not share memory that is read-only or runs backwards.
    plain = np.require(values, np.float32, "W")
    return plain.copy() if min(plain.strides, default=0) < 0 else plain


def _without_infinity(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values in which infinite ones are missing: a ReLU would take them for finite."""
    if any(np.isinf(cell).any() for cell in values):
        return np.where(np.isinf(values), np.float32(np.nan), values)
    return values


def evaluation_model(model: DeepProfile) -> DeepProfile:
    """The model itself in evaluation mode, or such a copy of a model in training mode."""
    return copy.deepcopy(model).eval() if model.training else model


def check_shapes(
    model: DeepProfile, series: NDArray[np.float32], auxiliary: NDArray[np.float32]
) -> None:
    """Raise ValueError unless series (cells, variables, T) and features fit the model."""
    config = model.config
    if series.ndim != 3 or series.shape[1] != config.n_variables:
        raise ValueError(
            f"series has shape {series.shape}: expected (cells, {config.n_variables} variables, "
            "days)"
        )
    if series.shape[2] < config.window:
        raise ValueError(
            f"series has {series.shape[2]} days: expected at least the {config.window} of one "
            "window"
        )
    if auxiliary.shape != (len(series), config.n_auxiliary):
        raise ValueError(
            f"auxiliary has shape {auxiliary.shape}: expected (cells, features) = "
            f"({len(series)}, {config.n_auxiliary})"
        )


def _run_on_cpu(
    config: NetworkConfig,
    network: FoldedNetwork,
    series: NDArray[np.float32],
    features: Tensor,
    result: NDArray[np.float32],
) -> None:
    """Fill the result; a thread that has done its part takes the next one."""
    inputs, outputs = torch.from_numpy(series), torch.from_numpy(result)
    n_threads, (n_cells, _, days) = torch.get_num_threads(), series.shape
    step = min(cells_at_once(config, days, features.device), -(-n_cells // n_threads))
    shares = iter(list(parts(n_cells, step)))  # of a list: threads may ask for the next at once

    def work() -> None:
        engine = Engine(network, config, step, days)
        with torch.inference_mode():
            for part in shares:
                engine.run(inputs[part], features[part], outputs[part])

    if n_threads == 1:
        work()
        return
    with _single_threads(n_threads) as pool:
        for done in [pool.submit(work) for _ in range(n_threads)]:
            done.result()


@contextmanager
def _single_threads(n: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in each of which torch uses one thread; others are left as they are."""
    started = threading.Barrier(n + 1)

    def start() -> None:
        torch.get_num_threads()  # torch gives a thread the default number when it is first asked
        torch.set_num_threads(1)  # of this thread, and the default of those that come after
        started.wait()

    with ThreadPoolExecutor(n) as pool:
        for _ in range(n):
            pool.submit(start)
        started.wait()
        torch.set_num_threads(n)
        yield pool


def _run_on_device(
    config: NetworkConfig,
    network: FoldedNetwork,
    series: NDArray[np.float32],
    features: Tensor,
    result: NDArray[np.float32],
) -> None:
    """Fill the result; while the device computes one part, the next is laid ready in pinned memory.

    Two stagings take turns; the copy from one must have ended before it is filled again.
    """
    n_cells, _, days = series.shape
    step = min(cells_at_once(config, days, features.device), n_cells)
    engine = Engine(network, config, step, days)
    stagings = [
        Staging(step, series.shape[1:], result.shape[1:], features.device) for _ in range(2)
    ]
    inputs, outputs = torch.from_numpy(series), torch.from_numpy(result)
    for staging, part in zip(cycle(stagings), parts(n_cells, step), strict=False):
        staging.finish()
        staging.start(engine, inputs[part], features[part], outputs[part])
    for staging in stagings:
        staging.finish()
