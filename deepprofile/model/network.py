"""The DeepProfile network: a year of daily forcing and the terrain of a cell to a profile.

Zhu et al. (2026, doi:10.1016/j.rse.2026.115408), with two readings where the paper is silent or
slips: convolutions see five days, and the last layer of every head is linear (with a ReLU there
no coefficient could be negative, so no profile could fall with depth).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepprofile.model.configuration import NetworkConfig
from deepprofile.profile import N_COEFFICIENTS, Layer

HEAD_SCALE = 0.05
"""Factor on the heads' last layer at the start of training."""


class DeepProfile(nn.Module):
    """Coefficients of the soil-moisture profile from a window of forcing.

    Inputs are in raw units. The model holds their limits (buffers ``series_minimum``,
    ``series_maximum``, ``auxiliary_minimum``, ``auxiliary_maximum``) and scales them to 0-1.
    Values beyond the limits are *not* clipped: they go on linearly. A variable whose limits are
    equal was constant in training and is ignored (scaled to 0).

    Arguments are those of :class:`~deepprofile.model.configuration.NetworkConfig`, kept as
    ``model.config``.

    Raises:
        ValueError: if the arguments don't fit together.
    """

    series_minimum: Tensor
    series_maximum: Tensor
    auxiliary_minimum: Tensor
    auxiliary_maximum: Tensor

    def __init__(
        self,
        n_variables: int = 39,
        n_auxiliary: int = 6,
        window: int = 360,
        filters: Sequence[int] = (32, 32, 16, 8),
        kernel_size: int = 5,
        pooling: Sequence[int] = (2, 2, 2, 5),
        n_coefficients: int = N_COEFFICIENTS,
        width: int = 128,
        head_width: int = 32,
        variables: Sequence[str] = (),
        features: Sequence[str] = (),
        variable_units: Sequence[str] = (),
        feature_units: Sequence[str] = (),
        layers: Sequence[Layer] = (),
    ) -> None:
        """Build the layers with PyTorch's own start."""
        super().__init__()
        self.config = config = NetworkConfig(
            n_variables,
            n_auxiliary,
            window,
            tuple(filters),
            kernel_size,
            tuple(pooling),
            n_coefficients,
            width,
            head_width,
            tuple(variables),
            tuple(features),
            tuple(variable_units),
            tuple(feature_units),
            tuple(layers),
        )
        self.register_buffer("series_minimum", torch.zeros(n_variables))
        self.register_buffer("series_maximum", torch.ones(n_variables))
        self.register_buffer("auxiliary_minimum", torch.zeros(n_auxiliary))
        self.register_buffer("auxiliary_maximum", torch.ones(n_auxiliary))
        n_features = config.n_features + n_auxiliary
        self.extractor = TemporalExtractor(config)
        self.dense = DenseBlock(n_features, width)
        self.heads = Heads(n_features + 2 * width, head_width, width, n_coefficients)

    @classmethod
    def from_config(cls, config: NetworkConfig) -> "DeepProfile":
        """A new network of the given shape."""
        return cls(**{name: getattr(config, name) for name in config.__dataclass_fields__})

    def forward(self, series: Tensor, auxiliary: Tensor) -> Tensor:
        """Coefficients of the profile on the last day of each window.

        Args:
            series: (B, variables, window) in raw units. A transposed view of
                (B, window, variables) is the layout that needs no copy.
            auxiliary: (B, features) in raw units.

        Returns:
            (B, n): coefficients β_i in m³ m⁻³ m⁻ⁱ.

        Raises:
            ValueError: if a shape is not as stated.
        """
        self._check_shapes(series, auxiliary)
        temporal = self.extractor(self.normalise_series(series))
        return self.coefficients(temporal, self.normalise_auxiliary(auxiliary))

    def coefficients(self, temporal: Tensor, auxiliary: Tensor) -> Tensor:
        """Coefficients (B, n) from temporal features and normalised auxiliary features."""
        features = torch.cat([temporal, auxiliary], dim=1)
        return self.heads(torch.cat([features, *self.dense(features)], dim=1))  # type: ignore[no-any-return]

    def normalise_series(self, series: Tensor) -> Tensor:
        """Series (…, variables, days) scaled to 0-1 by the limits."""
        limits = self.series_minimum[:, None], self.series_maximum[:, None]
        return _normalise(series, *limits)

    def normalise_auxiliary(self, auxiliary: Tensor) -> Tensor:
        """Auxiliary features (…, features) scaled to 0-1 by the limits."""
        return _normalise(auxiliary, self.auxiliary_minimum, self.auxiliary_maximum)

    def set_limits(self, series: tuple[Tensor, Tensor], auxiliary: tuple[Tensor, Tensor]) -> None:
        """Set minimum and maximum of the variables and of the auxiliary features.

        Raises:
            ValueError: if a limit has another shape, is not finite, or minimum > maximum.
        """
        for name, (minimum, maximum) in (("series", series), ("auxiliary", auxiliary)):
            old = getattr(self, f"{name}_minimum")
            if minimum.shape != old.shape or maximum.shape != old.shape:
                raise ValueError(
                    f"limits of {name} have shapes {tuple(minimum.shape)} and "
                    f"{tuple(maximum.shape)}: expected {tuple(old.shape)}"
                )
            wrong = ~(torch.isfinite(minimum) & torch.isfinite(maximum) & (minimum <= maximum))
            if wrong.any():
                raise ValueError(
                    f"limits of {name} number {wrong.nonzero().flatten().tolist()} are not finite "
                    "or the minimum is above the maximum"
                )
            old.copy_(minimum)
            getattr(self, f"{name}_maximum").copy_(maximum)

    def initialise_heads(self, mean_target: float) -> None:
        """Start training from a nearly uniform profile of ``mean_target`` (m³ m⁻³).

        The last layer of every head is scaled by 0.05 and its bias set to 0, that of β_0 to
        ``mean_target``. With PyTorch's own start the first steps have penalties three orders
        above the other terms, and Adam's memory of them spoils a short training.
        """
        with torch.no_grad():
            self.heads.weight_out.mul_(HEAD_SCALE)
            self.heads.bias_out.zero_()
            self.heads.bias_out[0] = mean_target

    def _check_shapes(self, series: Tensor, auxiliary: Tensor) -> None:
        expected = (self.config.n_variables, self.config.window)
        if series.ndim != 3 or tuple(series.shape[1:]) != expected:
            raise ValueError(
                f"series has shape {tuple(series.shape)}: expected (batch, variables, days) "
                f"= (B, {expected[0]}, {expected[1]})"
            )
        if tuple(auxiliary.shape) != (len(series), self.config.n_auxiliary):
            raise ValueError(
                f"auxiliary has shape {tuple(auxiliary.shape)}: expected (batch, features) = "
                f"({len(series)}, {self.config.n_auxiliary})"
            )


class TemporalExtractor(nn.Sequential):
    """Convolutions along the days, (B, variables, window) to (B, n_features).

    The convolutions are two-dimensional with one row and run channels-last: twice as quick on
    CPUs as one-dimensional ones, and a window stored as (days, variables) needs no copy.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Build one stage for each entry of ``config.filters``."""
        channels = (config.n_variables, *config.filters)
        stages = [
            nn.Sequential(
                nn.Conv2d(
                    channels[i],
                    channels[i + 1],
                    (1, config.kernel_size),
                    padding=(0, config.kernel_size // 2),
                ),
                nn.BatchNorm2d(channels[i + 1]),
                nn.ReLU(inplace=True),
                nn.AvgPool2d((1, pool)),
            )
            for i, pool in enumerate(config.pooling)
        ]
        super().__init__(*stages)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, series: Tensor) -> Tensor:
        """Features (B, channels x positions) of normalised windows (B, variables, days)."""
        image = series.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        for stage in self:
            image = stage(image)
        return image.flatten(1)


class DenseBlock(nn.Module):
    """Six dense layers; the fourth sees the features again. Returns h3 and h6."""

    def __init__(self, n_features: int, width: int) -> None:
        """Build the layers."""
        super().__init__()
        self.first = nn.Sequential(
            _dense(n_features, width), _dense(width, width), _dense(width, width)
        )
        self.second = nn.Sequential(
            _dense(width + n_features, width), _dense(width, width), _dense(width, width)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """h3 and h6, each (B, width), of features (B, n_features)."""
        h3 = self.first(features)
        return h3, self.second(torch.cat([h3, features], dim=1))


class Heads(nn.Module):
    """One small network for each coefficient, all computed together.

    The first layers see the same input, so they are one dense layer; the second layers are a
    batched product over heads; the last are one weighted sum.
    """

    def __init__(self, n_inputs: int, first: int, second: int, n_heads: int) -> None:
        """Build ``n_heads`` heads of ``n_inputs`` → ``first`` → ``second`` → 1."""
        super().__init__()
        self.entry = _dense(n_inputs, first * n_heads)
        self.weight = nn.Parameter(torch.empty(n_heads, first, second))
        self.bias = nn.Parameter(torch.empty(n_heads, 1, second))
        self.norm = nn.BatchNorm1d(n_heads * second)
        self.weight_out = nn.Parameter(torch.empty(n_heads, second))
        self.bias_out = nn.Parameter(torch.empty(n_heads))
        _initialise(first, self.weight, self.bias)
        _initialise(second, self.weight_out, self.bias_out)

    def forward(self, inputs: Tensor) -> Tensor:
        """One coefficient a head, (B, heads), of the inputs (B, n_inputs)."""
        n_heads, first, second = self.weight.shape
        hidden = self.entry(inputs).view(-1, n_heads, first).transpose(0, 1)
        hidden = torch.baddbmm(self.bias, hidden, self.weight)  # heads, B, second
        hidden = self.norm(hidden.transpose(0, 1).reshape(-1, n_heads * second)).relu_()
        weighted: Tensor = hidden.view(-1, n_heads, second) * self.weight_out
        return weighted.sum(2) + self.bias_out


def _dense(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(inplace=True))


def _initialise(n_in: int, *parameters: Tensor) -> None:
    """Fill as nn.Linear does with ``n_in`` inputs."""
    bound = n_in**-0.5
    for parameter in parameters:
        nn.init.uniform_(parameter, -bound, bound)


def _normalise(values: Tensor, minimum: Tensor, maximum: Tensor) -> Tensor:
    span = maximum - minimum
    scale = torch.where(span > 0, 1 / torch.where(span > 0, span, 1), 0)
    return (values - minimum) * scale
