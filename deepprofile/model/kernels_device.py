"""The sums and ramps of the sliding engine as torch operations, for GPUs.

They do the same as :mod:`deepprofile.model.kernels_cpu` and run on any device.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepprofile.model.feature_map import NO_TAP, StageSums


def combine(products: Tensor, bias: Tensor, sums: StageSums, out: Tensor, cells: int) -> None:
    """Convolution, ReLU and pooling from the products of a map with all taps.

    Args:
        products: (taps, channels, columns of the map).
        bias: (channels,).
        sums: what is to be summed.
        out: (channels, columns of the new map), written.
        cells: cells in the map.
    """
    tracks = []
    for terms, size in zip(sums.terms.tolist(), sums.sizes.tolist(), strict=True):
        track = bias[:, None, None].expand(-1, cells, size)
        for tap, start, step in terms:
            if tap != NO_TAP:
                track = track + _run(products[tap], start, step, cells, size)
        tracks.append(track.relu())
    for pieces, (start, step, size) in zip(
        sums.pieces.tolist(), sums.outputs.tolist(), strict=True
    ):
        (track, first), *others = pieces
        target = _run(out, start, step, cells, size)
        target.copy_(tracks[track][:, :, first : first + size])
        for track, first in others:
            target += tracks[track][:, :, first : first + size]


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
    row = torch.arange(rows.start, rows.stop, device=last.device)
    cell, window = row // windows, row % windows
    n_temporal = len(last) * len(runs)
    temporal = out[:n_temporal].view(len(last), len(runs), len(row))
    for position, (start, step) in enumerate(runs.tolist()):
        temporal[:, position] = last[:, start + cell * step + window]
    out[n_temporal:] = auxiliary[cell].t()


def ramp(values: Tensor, bias: Tensor) -> None:
    """Bias and ReLU, in place.

    Args:
        values: (units, rows), changed.
        bias: (units,).
    """
    values.add_(bias[:, None]).relu_()


def weigh(hidden: Tensor, bias: Tensor, weight: Tensor, constant: Tensor, out: Tensor) -> None:
    """Weighted sums of the units of each head, after bias and ReLU.

    Args:
        hidden: (heads, width, rows), changed.
        bias: (heads, width).
        weight: (heads, width).
        constant: (heads,), added.
        out: (rows, heads), written.
    """
    hidden.add_(bias[:, :, None]).relu_()
    torch.add((weight[:, None] @ hidden)[:, 0].t(), constant, out=out)


def _run(values: Tensor, start: int, step: int, cells: int, size: int) -> Tensor:
    """View (rows, cells, size) of the runs that begin at a column, one for each cell."""
    strides = (values.stride(0), step, 1)
    return values.as_strided((len(values), cells, size), strides, values.storage_offset() + start)
