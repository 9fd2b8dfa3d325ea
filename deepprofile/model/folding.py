"""The network's weights as the sliding engine wants them: nothing left but products and ramps.

Batch norms, the scale of the series and the division of the average pooling go into the weights.
The biases of the dense layers are never added: ``relu(y + b) = max(y, -b) + b``, so a layer
stores ``max(y, -b)``, and the next one takes the missing ``b`` into its own bias.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from deepprofile.model.network import DeepProfile, Heads


class Convolution(NamedTuple):
    """A convolution whose values, after the ReLU, the pooling need only sum.

    Attributes:
        kernel: (taps, out, in).
        bias: (out, 1, 1).
        pool: positions that are summed afterwards.
    """

    kernel: Tensor
    bias: Tensor
    pool: int


class Ramp(NamedTuple):
    """A dense layer, ``max(weight @ x, lower)``.

    Attributes:
        weight: (…, out, in).
        lower: (…, out, 1).
    """

    weight: Tensor
    lower: Tensor


class FoldedNetwork(NamedTuple):
    """All weights of a network in evaluation mode.

    Attributes:
        offset: (variables, 1, 1), subtracted from the series.
        convolutions: one for each stage.
        first: dense layers from the features to h3.
        second: dense layers from (features, h3) to h6.
        entry: first layers of all heads, from (features, h3, h6).
        middle: second layers of the heads, a batch.
        last: (heads, 1, second), weighted sums.
        constant: (heads, 1), added to them.
    """

    offset: Tensor
    convolutions: list[Convolution]
    first: list[Ramp]
    second: list[Ramp]
    entry: Ramp
    middle: Ramp
    last: Tensor
    constant: Tensor


@torch.no_grad()
def fold(model: DeepProfile) -> FoldedNetwork:
    """Fold a model as it is now, whatever its mode, in double precision.

    Takes about a millisecond: done at every call, so that it is never out of date.
    """
    width = model.config.width
    n_features = model.config.n_features + model.config.n_auxiliary
    shift = model.series_minimum.new_zeros(n_features, dtype=torch.float64)
    first, shift_h3 = _fold_chain(_dense_layers(model.dense.first.children()), shift)
    shift = torch.cat([shift, shift_h3])
    (weight, bias), *others = _dense_layers(model.dense.second.children())
    weight = weight.roll(-width, dims=1)  # from (h3, features) to (features, h3)
    second, shift_h6 = _fold_chain([(weight, bias), *others], shift)
    entry, middle, constant = _fold_heads(model.heads, torch.cat([shift, shift_h6]))
    last = model.heads.weight_out.detach()[:, None]
    offset = model.series_minimum[:, None, None]
    return FoldedNetwork(
        offset, _fold_extractor(model), first, second, entry, middle, last, constant
    )


def _fold_extractor(model: DeepProfile) -> list[Convolution]:
    span = (model.series_maximum - model.series_minimum).double()
    scale = torch.where(span > 0, 1 / span, 0)
    convolutions = []
    for stage, pool in zip(model.extractor.children(), model.config.pooling, strict=True):
        convolution, norm, *_ = stage.children()
        weight, bias = _fold_norm(*_parameters(convolution), norm)
        kernel = weight[:, :, 0].permute(2, 0, 1) * scale / pool
        convolutions.append(
            Convolution(kernel.float().contiguous(), (bias / pool).float()[:, None, None], pool)
        )
        scale = torch.ones_like(bias)
    return convolutions


def _fold_heads(heads: Heads, shift: Tensor) -> tuple[Ramp, Ramp, Tensor]:
    n_heads, n_first, n_second = heads.weight.shape
    [entry], shift = _fold_chain(_dense_layers([heads.entry]), shift)
    weight = heads.weight.transpose(1, 2).reshape(-1, n_first)
    weight, bias = _fold_norm(weight, heads.bias.flatten(), heads.norm)
    weight = weight.view(n_heads, n_second, n_first)
    bias = bias.view(n_heads, n_second, 1) + weight @ shift.view(n_heads, n_first, 1)
    last = heads.weight_out.double()[:, None]
    constant = heads.bias_out[:, None] + (last @ bias)[:, 0]
    return entry, Ramp(weight.float(), -bias.float()), constant.float()


def _dense_layers(modules: Iterable[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of linear layers with their batch norms."""
    layers = []
    for module in modules:
        linear, norm, _ = module.children()
        layers.append(_fold_norm(*_parameters(linear), norm))
    return layers


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return cast(Tensor, layer.weight), cast(Tensor, layer.bias)


def _fold_chain(
    layers: Iterable[tuple[Tensor, Tensor]], shift: Tensor
) -> tuple[list[Ramp], Tensor]:
    """Layers in a row, and what must be added to their result, ``shift`` to their input."""
    ramps = []
    for weight, bias in layers:
        shift = bias + weight @ shift
        ramps.append(Ramp(weight.float(), -shift[:, None].float()))
    return ramps, shift


def _fold_norm(weight: Tensor, bias: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, …) and bias (out,) of a linear layer together with its batch norm."""
    norm = cast(nn.BatchNorm1d, norm)
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    scaled = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    return scaled, (bias.double() - mean) * scale + norm.bias
