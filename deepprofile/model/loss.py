"""The loss: layer means against the products' layers, and two penalties on the profile.

The form is that of ``docs/science.md``, which names where the printed paper differs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepprofile.model.configuration import SMOOTHNESS
from deepprofile.profile import N_COEFFICIENTS, Layer, layer_matrix


class LossTerms(NamedTuple):
    """The loss and its terms: total = surface + root + negative + λ · smoothness."""

    total: Tensor
    surface: Tensor
    root: Tensor
    negative: Tensor
    smoothness: Tensor


class DeepProfileLoss(nn.Module):
    """The four terms of the loss for any set of layers.

    For a batch of B samples with coefficients β, layer targets θ and weights w of the samples'
    own cells:

    * surface: Σ over samples of (θ - θ̂)² of the surface layer, divided by B, without a weight;
    * root: Σ over samples and the other layers of w (θ - θ̂)², divided by B;
    * negative: Σ over samples of max(0, -θ̂(1 m)), *not* divided by B;
    * smoothness: Σ_{i≥2} i² · mean over samples of β_i², given here without its factor λ.

    A missing target (NaN) contributes nothing; B counts every sample all the same, and weights
    are not renormalised. Negative and smoothness need no target, so every sample counts.

    Args:
        layers: layers of the targets, in their order.
        surface_layer: index of the layer of the surface term.
        smoothness: λ.
        n_coefficients: number of coefficients of the profile.

    Raises:
        ValueError: if there is no layer, or ``surface_layer`` is not one of them.
    """

    matrix: Tensor
    is_surface: Tensor
    square: Tensor

    def __init__(
        self,
        layers: Sequence[Layer],
        surface_layer: int = 0,
        smoothness: float = SMOOTHNESS,
        n_coefficients: int = N_COEFFICIENTS,
    ) -> None:
        """Check the layers and keep what the terms need as buffers."""
        super().__init__()
        if not 0 <= surface_layer < len(layers):
            raise ValueError(
                f"surface_layer is {surface_layer}: expected the index of one of the "
                f"{len(layers)} layers"
            )
        bounds = [(layer.top, layer.bottom) for layer in layers]
        matrix = torch.from_numpy(layer_matrix(bounds, n_coefficients)).float()
        degrees = torch.arange(n_coefficients, dtype=torch.float32)
        self.smoothness = smoothness
        self.register_buffer("matrix", matrix)
        self.register_buffer("is_surface", torch.arange(len(layers)) == surface_layer)
        self.register_buffer("square", torch.where(degrees >= 2, degrees**2, 0))

    def forward(self, coefficients: Tensor, target: Tensor, weight: Tensor) -> LossTerms:
        """Terms of the loss.

        Args:
            coefficients: (B, n).
            target: (B, layers) in m³ m⁻³, NaN where missing.
            weight: (B, layers), of each sample's cell; that of the surface layer is not used.
        """
        n_samples = len(coefficients)
        missing = torch.isnan(target)
        residual = (coefficients @ self.matrix - target).masked_fill(missing, 0)
        squared = residual.square().sum(0)
        weighted = (weight * residual.square()).sum(0)
        surface = squared[self.is_surface].sum() / n_samples
        root = weighted[~self.is_surface].sum() / n_samples
        negative = coefficients.sum(1).neg().clamp(min=0).sum()  # the profile at 1 m: z^i = 1
        smoothness = (self.square * coefficients.square().mean(0)).sum()
        total = surface + root + negative + self.smoothness * smoothness
        return LossTerms(total, surface, root, negative, smoothness)
