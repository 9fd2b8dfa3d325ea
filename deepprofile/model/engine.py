"""One part of the cells through the folded network, along their whole series.

The convolutions are one product a stage with a feature map of all days
(:mod:`deepprofile.model.feature_map`); the features of each window are then picked from the last
map and pass the dense layers and the heads. All memory is set aside once, and little enough is
taken at a time that what is live stays in the cache of a core.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from deepprofile.model import kernels_cpu, kernels_device
from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.feature_map import MapLayout, Stages, stages
from deepprofile.model.folding import Dense, FoldedNetwork


@dataclass(frozen=True)
class Portions:
    """How much is taken at a time.

    Attributes:
        product_bytes: products of all taps in the stage that has most, of a part of the cells.
        rows: windows that pass the dense layers together.
    """

    product_bytes: int
    rows: int


CPU = Portions(product_bytes=8_000_000, rows=960)
"""Of a thread (measured; rows are best a multiple of 48, as MKL takes so many at a time)."""
GPU = Portions(product_bytes=2**29, rows=2**17)


class Engine:
    """A folded network and the memory for a part of the cells."""

    def __init__(
        self, network: FoldedNetwork, config: NetworkConfig, cells: int, days: int
    ) -> None:
        """Set memory aside for at most ``cells`` cells with series of ``days`` days."""
        self._network, self._config, self._days = network, config, days
        self._device = network.offset.device
        self._kernels: ModuleType = kernels_cpu if self._device.type == "cpu" else kernels_device
        self._portions = portions(self._device)
        plan = stages(config, cells, days)
        self._products = self._empty(_most_products(config, plan))
        channels = [config.n_variables, *config.filters]
        self._maps = [
            self._empty(size * layout.columns)
            for size, layout in zip(channels, plan.layouts, strict=True)
        ]
        self._set_rows_aside(plan.layouts[0])

    def run(self, series: Tensor, auxiliary: Tensor, out: Tensor) -> None:
        """Coefficients of all windows of some cells.

        Args:
            series: (cells, variables, days) in raw units.
            auxiliary: (cells, features), normalised.
            out: (cells, windows, n), written.
        """
        plan = stages(self._config, len(series), self._days)
        values = _shaped(self._maps[0], series.shape[1], len(series), self._days)
        torch.sub(series.transpose(0, 1), self._network.offset, out=values)
        last = self._convolve(values.flatten(1), plan)
        result = out.flatten(0, 1)
        for rows in parts(len(result), self._portions.rows):
            values = self._features(last, plan, rows, auxiliary)
            self._regress(values, result[rows])

    def _set_rows_aside(self, layout: MapLayout) -> None:
        width, heads = self._config.width, self._config.n_coefficients
        rows = min(self._portions.rows, layout.cells * layout.windows)
        self._n_features = self._config.n_features + self._config.n_auxiliary
        self._values = self._empty((self._n_features + 2 * width) * rows)
        self._between = [self._empty(width * rows) for _ in range(2)]
        self._entry = self._empty(heads * self._config.head_width * rows)
        self._hidden = self._empty(heads * width * rows)

    def _empty(self, size: int) -> Tensor:
        return torch.empty(size, device=self._device)

    def _convolve(self, values: Tensor, plan: Stages) -> Tensor:
        """The map after the last stage, of that before the first."""
        steps = zip(
            self._network.convolutions, plan.layouts[1:], plan.sums, self._maps[1:], strict=True
        )
        for (kernel, bias), layout, sums, memory in steps:
            out = _shaped(memory, len(bias), layout.columns)
            products = _shaped(self._products, *kernel.shape[:2], values.shape[1])
            torch.mm(kernel.flatten(0, 1), values, out=products.flatten(0, 1))
            self._kernels.combine(products, bias, sums, out, layout.cells)
            values = out
        return values

    def _features(self, last: Tensor, plan: Stages, rows: slice, auxiliary: Tensor) -> Tensor:
        """Memory (features and hidden, rows) in which the features of some windows are set."""
        n_values = self._n_features + 2 * self._config.width
        values = _shaped(self._values, n_values, rows.stop - rows.start)
        features, windows = values[: self._n_features], plan.layouts[0].windows
        self._kernels.gather(last, plan.runs, windows, rows, auxiliary, features)
        return values

    def _regress(self, values: Tensor, out: Tensor) -> None:
        """Coefficients (rows, heads) of features; see :meth:`_features`."""
        network, rows = self._network, values.shape[1]
        heads, width, first = network.middle.weight.shape
        h3 = self._n_features + width
        self._dense(network.first, values[: self._n_features], values[self._n_features : h3])
        self._dense(network.second, values[:h3], values[h3:])
        entry = _shaped(self._entry, heads * first, rows)
        self._layer(network.entry, values, entry)
        hidden = _shaped(self._hidden, heads, width, rows)
        torch.bmm(network.middle.weight, entry.view(heads, first, rows), out=hidden)
        self._kernels.weigh(hidden, network.middle.bias, network.last, network.constant, out)

    def _dense(self, layers: list[Dense], values: Tensor, out: Tensor) -> None:
        for layer, memory in zip(layers[:-1], self._between, strict=True):
            target = _shaped(memory, len(layer.weight), values.shape[1])
            self._layer(layer, values, target)
            values = target
        self._layer(layers[-1], values, out)

    def _layer(self, layer: Dense, values: Tensor, out: Tensor) -> None:
        torch.mm(layer.weight, values, out=out)
        self._kernels.ramp(out, layer.bias)


def portions(device: torch.device) -> Portions:
    """What suits a device."""
    return CPU if device.type == "cpu" else GPU


def cells_at_once(config: NetworkConfig, days: int, device: torch.device) -> int:
    """Cells with series of so many days that are best taken together on a device."""
    products = _most_products(config, stages(config, 1, days))
    return max(1, portions(device).product_bytes // (4 * products))


def _most_products(config: NetworkConfig, plan: Stages) -> int:
    """Number of products of the stage that has most."""
    return max(
        config.kernel_size * channels * layout.columns
        for channels, layout in zip(config.filters, plan.layouts[:-1], strict=True)
    )


def parts(n: int, step: int) -> Iterator[slice]:
    """Cut n into even slices of at most ``step``.

    A rest of a few columns would get other bits: MKL sums such narrow products in another order.
    """
    count = -(-n // step)
    for part in range(count):
        yield slice(part * n // count, (part + 1) * n // count)


def _shaped(memory: Tensor, *shape: int) -> Tensor:
    """The beginning of some memory in a shape."""
    return memory[: math.prod(shape)].view(shape)
