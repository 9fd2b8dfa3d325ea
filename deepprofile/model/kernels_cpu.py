"""The sums and ramps of the sliding engine on a CPU: one compiled pass each, without the GIL.

:mod:`deepprofile.model.kernels_device` has the same functions for other devices.
"""

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepprofile.model.feature_map import StageSums

FloatArray = NDArray[np.float32]


def combine(products: Tensor, bias: Tensor, sums: StageSums, out: Tensor, cells: int) -> None:
    """Convolution, ReLU and pooling from the products of a map with all taps.

    Args:
        products: (taps, channels, columns of the map).
        bias: (channels,).
        sums: what is to be summed.
        out: (channels, columns of the new map), written.
        cells: cells in the map.
    """
    _combine(products.numpy(), bias.numpy(), *sums, out.numpy(), cells)


def gather(
    last: Tensor, runs: NDArray[np.int64], windows: int, rows: slice, auxiliary: Tensor, out: Tensor
) -> None:
    """Features of some rows, which are the windows of the first cell, then those of the second, …

    Args:
        last: (channels, columns) map after the last stage.
        runs: (length, 2) column and step to the next cell of each position, see ``MapLayout.run``.
        windows: windows of a cell.
        rows: the rows.
        auxiliary: (cells, auxiliary features).
        out: (channels x length + auxiliary features, rows), written.
    """
    _gather(last.numpy(), runs, windows, rows.start, rows.stop, auxiliary.numpy(), out.numpy())


def ramp(values: Tensor, bias: Tensor) -> None:
    """Bias and ReLU, in place.

    Args:
        values: (units, rows), changed.
        bias: (units,).
    """
    _ramp(values.numpy(), bias.numpy())


def weigh(hidden: Tensor, bias: Tensor, weight: Tensor, constant: Tensor, out: Tensor) -> None:
    """Weighted sums of the units of each head, after bias and ReLU.

    Args:
        hidden: (heads, width, rows).
        bias: (heads, width).
        weight: (heads, width).
        constant: (heads,), added.
        out: (rows, heads), written.
    """
    _weigh(hidden.numpy(), bias.numpy(), weight.numpy(), constant.numpy(), out.numpy())


@numba.njit(nogil=True, cache=True)
def _combine(
    products: FloatArray,
    bias: FloatArray,
    terms: NDArray[np.int64],
    sizes: NDArray[np.int64],
    pieces: NDArray[np.int64],
    outputs: NDArray[np.int64],
    out: FloatArray,
    cells: int,
) -> None:
    tracks = np.empty((len(sizes), sizes.max()), np.float32)
    for channel in range(products.shape[1]):
        for cell in range(cells):
            for t in range(len(sizes)):
                n = sizes[t]
                track = tracks[t, :n]
                for k in range(terms.shape[1]):
                    tap, start, step = terms[t, k]
                    if tap < 0:
                        break
                    start += cell * step
                    _add(track, products[tap, channel, start : start + n], bias[channel], k == 0)
                for i in range(n):
                    value = track[i]
                    track[i] = np.float32(0) if value < 0 else value  # NaN stays
            for o in range(len(outputs)):
                start, step, n = outputs[o]
                start += cell * step
                target = out[channel, start : start + n]
                for k in range(pieces.shape[1]):
                    t, first = pieces[o, k]
                    _add(target, tracks[t, first : first + n], np.float32(0), k == 0)


@numba.njit(nogil=True, cache=True, inline="always")
def _add(target: FloatArray, values: FloatArray, start: np.float32, is_first: bool) -> None:
    """Add values to a target, or begin it with them."""
    if is_first:
        for i in range(len(target)):
            target[i] = start + values[i]
    else:
        for i in range(len(target)):
            target[i] += values[i]


@numba.njit(nogil=True, cache=True)
def _gather(
    last: FloatArray,
    runs: NDArray[np.int64],
    windows: int,
    first_row: int,
    last_row: int,
    auxiliary: FloatArray,
    out: FloatArray,
) -> None:
    n_channels, length, row = last.shape[0], len(runs), first_row
    while row < last_row:
        cell, window = row // windows, row % windows
        n, to = min(windows - window, last_row - row), row - first_row
        for position in range(length):
            start = runs[position, 0] + cell * runs[position, 1] + window
            for channel in range(n_channels):
                feature = out[channel * length + position, to : to + n]
                for i in range(n):
                    feature[i] = last[channel, start + i]
        for k in range(auxiliary.shape[1]):
            out[n_channels * length + k, to : to + n] = auxiliary[cell, k]
        row += n


@numba.njit(nogil=True, cache=True)
def _ramp(values: FloatArray, bias: FloatArray) -> None:
    for unit in range(len(values)):
        line = values[unit]
        for row in range(len(line)):
            value = line[row] + bias[unit]
            line[row] = np.float32(0) if value < 0 else value  # NaN stays


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _weigh(
    hidden: FloatArray,
    bias: FloatArray,
    weight: FloatArray,
    constant: FloatArray,
    out: FloatArray,
) -> None:
    heads, width, rows = hidden.shape
    total = np.empty(rows, np.float32)
    for head in range(heads):
        total[:] = constant[head]
        for unit in range(width):
            w, b = weight[head, unit], bias[head, unit]
            values = hidden[head, unit]
            for row in range(rows):
                value = values[row] + b
                value = np.float32(0) if value < 0 else value  # NaN stays
                total[row] += w * value
        for row in range(rows):
            out[row, head] = total[row]
