"""Feature maps of a network that runs along whole series instead of window by window.

Windows of consecutive days share all but one day. Position i of a stage's feature map, in the
window that starts on day d, lies on day d + s·i, where s is the product of the pooling before the
stage. Far from the ends of the window its value depends on that day alone, so one *dense* map of
all days serves all windows: a convolution of stage stride s becomes one dilated by s. Near the
ends the zero padding reaches in; these few positions are *edges*, of which each window has its
own. Every map is multiplied once with all taps of the kernel; dense values and edges are sums of
these products on different days. No window is ever materialised.

Arrays have the channels first and the days last: a product is weight @ values, a sum runs along
contiguous days.
"""

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class FeatureMap:
    """Feature map of one stage in all windows of some cells.

    Attributes:
        dense: (channels, cells, days), value on each day away from the ends of a window.
        first_day: day of the series on which ``dense`` begins.
        stride: days between two positions.
        length: positions in a window.
        n_windows: windows of a cell; one starts on each of the first days.
        left: values at the first positions, each (channels, cells, n_windows).
        right: values at the last positions, the last position first.
    """

    dense: Tensor
    first_day: int
    stride: int
    length: int
    n_windows: int
    left: tuple[Tensor, ...] = ()
    right: tuple[Tensor, ...] = ()

    def at(self, position: int) -> Tensor:
        """Values of all windows at one position, (channels, cells, n_windows)."""
        from_right = self.length - 1 - position
        if position < len(self.left):
            return self.left[position]
        if from_right < len(self.right):
            return self.right[from_right]
        return self.on_days_of(position, self.dense)

    def on_days_of(self, position: int, values: Tensor) -> Tensor:
        """Of values that lie as ``dense`` those of one position in all windows."""
        return values.narrow(2, position * self.stride - self.first_day, self.n_windows)

    def convolve(self, kernel: Tensor, bias: Tensor) -> "FeatureMap":
        """Convolution with zero padding at the ends of each window, then ReLU.

        Args:
            kernel: (taps, out, in).
            bias: (out, 1, 1).
        """
        products = TapProducts(self, kernel)
        half = len(kernel) // 2
        n_left = min(len(self.left) + half, self.length)
        n_right = min(len(self.right) + half, self.length - n_left)
        last = self.length - 1
        dense = products.dense[0]
        if n_left + n_right < self.length:  # otherwise the dense map is not looked at again
            dense = _total([bias, *products.inside()]).relu_()
        return replace(
            self,
            dense=dense,
            first_day=self.first_day + half * self.stride,
            left=tuple(_total([bias, *products.at(i)]).relu_() for i in range(n_left)),
            right=tuple(_total([bias, *products.at(last - i)]).relu_() for i in range(n_right)),
        )

    def pool(self, size: int) -> "FeatureMap":
        """Sum of ``size`` positions at a time."""

        def total(position: int) -> Tensor:
            return _total([self.at(position * size + k) for k in range(size)])

        length = self.length // size
        n_left = -(-len(self.left) // size)
        n_right = min(-(-len(self.right) // size), length - n_left)
        dense = self.dense
        if n_left + n_right < length:  # otherwise the dense map is not looked at again
            n_days = dense.shape[2] - (size - 1) * self.stride
            dense = _total([dense.narrow(2, k * self.stride, n_days) for k in range(size)])
        return replace(
            self,
            dense=dense,
            stride=self.stride * size,
            length=length,
            left=tuple(total(i) for i in range(n_left)),
            right=tuple(total(length - 1 - i) for i in range(n_right)),
        )


class TapProducts:
    """Products of a feature map with each tap of a kernel (taps, out, in), and their sums."""

    def __init__(self, stage: FeatureMap, kernel: Tensor) -> None:
        """Multiply the edges with the taps that reach them, and the dense map with all."""
        self.stage, self.n_taps, self.half = stage, len(kernel), len(kernel) // 2
        self.left = [_multiply(kernel[: self.half + 1 + i], x) for i, x in enumerate(stage.left)]
        self.right = [
            _multiply(kernel[max(0, self.half - i) :], x) for i, x in enumerate(stage.right)
        ]
        self.dense = _multiply(kernel, stage.dense)
        self._runs: dict[tuple[int, int], Tensor] = {}

    def at(self, position: int) -> list[Tensor]:
        """Terms of the convolution at one position, of the taps that lie inside the window."""
        stage, terms, dense = self.stage, [], []
        first = position - self.half
        for tap in range(max(0, -first), min(self.n_taps, stage.length - first)):
            from_right = stage.length - 1 - (first + tap)
            if first + tap < len(stage.left):
                terms.append(self.left[first + tap][tap])
            elif from_right < len(stage.right):
                terms.append(self.right[from_right][tap - self.n_taps])
            else:
                dense.append(tap)
        if dense:
            run = self._run(dense[0], dense[-1])
            terms.append(stage.on_days_of(first + dense[0], run))
        return terms

    def inside(self) -> list[Tensor]:
        """Terms of the convolution away from the edges, on the day of the first tap."""
        return self._parts(0, self.n_taps - 1)

    def _run(self, first: int, last: int) -> Tensor:
        """Sum over some taps along the dense map, on the day of the first of these taps."""
        if (first, last) not in self._runs:
            self._runs[first, last] = _total(self._parts(first, last))
        return self._runs[first, last]

    def _parts(self, first: int, last: int) -> list[Tensor]:
        """Terms of a run: a tap and the run without it.

        Taken off the beginning of runs to the kernel's end, off the end of others: the shorter
        runs are then those that edges need too.
        """
        stride = self.stage.stride
        n_days = self.dense.shape[-1] - (last - first) * stride
        if first == last:
            return [self.dense[first]]
        if last == self.n_taps - 1:
            tap, rest = self.dense[first], self._run(first + 1, last)
            return [tap.narrow(2, 0, n_days), rest.narrow(2, stride, n_days)]
        tap, rest = self.dense[last], self._run(first, last - 1)
        return [tap.narrow(2, (last - first) * stride, n_days), rest.narrow(2, 0, n_days)]


def _multiply(kernel: Tensor, values: Tensor) -> Tensor:
    """Products (taps, out, cells, days) of taps (taps, out, in) and values (in, cells, days)."""
    product = kernel.flatten(0, 1) @ values.flatten(1)
    return product.view(*kernel.shape[:2], *values.shape[1:])


def _total(terms: list[Tensor]) -> Tensor:
    """Sum of the terms: a new array unless there is one term only."""
    if len(terms) == 1:
        return terms[0]
    total = terms[0] + terms[1]
    for term in terms[2:]:
        total += term
    return total
