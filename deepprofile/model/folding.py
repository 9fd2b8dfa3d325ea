"""The network's weights as the sliding engine wants them: products, biases and ramps only.

Batch norms, the scale of the series and the division of the average pooling go into the weights,
in double precision.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from deepprofile.model.network import DeepProfile, Heads


class Convolution(NamedTuple):
    """A convolution whose values, after the ReLU, the pooling need only sum.

    Attributes:
        kernel: (taps, out, in).
        bias: (out,).
    """

    kernel: Tensor
    bias: Tensor


class Dense(NamedTuple):
    """A dense layer, ``relu(weight @ x + bias)``.

    Attributes:
        weight: (…, out, in).
        bias: (…, out).
    """

    weight: Tensor
    bias: Tensor


class FoldedNetwork(NamedTuple):
    """All weights of a network in evaluation mode.

    Attributes:
        offset: (variables, 1, 1), subtracted from the series.
        convolutions: one for each stage.
        first: dense layers from the features to h3.
        second: dense layers from (features, h3) to h6.
        entry: first layers of all heads, from (features, h3, h6).
        middle: second layers of the heads, a batch.
        last: (heads, second), weighted sums.
        constant: (heads,), added to them.
    """

    offset: Tensor
    convolutions: list[Convolution]
    first: list[Dense]
    second: list[Dense]
    entry: Dense
    middle: Dense
    last: Tensor
    constant: Tensor


@torch.no_grad()
def fold(model: DeepProfile) -> FoldedNetwork:
    """Fold a model as it is now, whatever its mode, in double precision.

    Takes about a millisecond: done at every call, so that it is never out of date.
    """
    width, heads = model.config.width, model.heads
    first = [_fold_dense(layer) for layer in model.dense.first.children()]
    second = [_fold_dense(layer) for layer in model.dense.second.children()]
    weight, bias = second[0]
    second[0] = Dense(weight.roll(-width, dims=1).contiguous(), bias)  # from (features, h3)
    return FoldedNetwork(
        model.series_minimum[:, None, None],
        _fold_extractor(model),
        first,
        second,
        _fold_dense(heads.entry),
        _fold_middle(heads),
        heads.weight_out.detach().float(),
        heads.bias_out.detach().float(),
    )


def _fold_extractor(model: DeepProfile) -> list[Convolution]:
    span = (model.series_maximum - model.series_minimum).double()
    scale = torch.where(span > 0, 1 / span, 0)
    convolutions = []
    for stage, pool in zip(model.extractor.children(), model.config.pooling, strict=True):
        convolution, norm, *_ = stage.children()
        weight, bias = _fold_norm(*_parameters(convolution), norm)
        kernel = weight[:, :, 0].permute(2, 0, 1) * scale / pool
        convolutions.append(Convolution(kernel.float().contiguous(), (bias / pool).float()))
        scale = torch.ones_like(bias)
    return convolutions


def _fold_middle(heads: Heads) -> Dense:
    n_heads, n_first, n_second = heads.weight.shape
    weight = heads.weight.transpose(1, 2).reshape(-1, n_first)
    weight, bias = _fold_norm(weight, heads.bias.flatten(), heads.norm)
    return Dense(weight.view(n_heads, n_second, n_first).float(), bias.view(n_heads, -1).float())


def _fold_dense(layer: nn.Module) -> Dense:
    """A linear layer with its batch norm."""
    linear, norm, _ = layer.children()
    weight, bias = _fold_norm(*_parameters(linear), norm)
    return Dense(weight.float(), bias.float())


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return cast(Tensor, layer.weight), cast(Tensor, layer.bias)


def _fold_norm(weight: Tensor, bias: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, …) and bias (out,) of a linear layer together with its batch norm."""
    norm = cast(nn.BatchNorm1d, norm)
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    scaled = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    return scaled, (bias.double() - mean) * scale + norm.bias
