"""What a network is made of, the names of what it reads, and how it is trained."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from deepprofile.profile import N_COEFFICIENTS, Layer

DESCRIPTION = "model.json"
"""File of a model's folder that describes it, and that no cube has."""
SMOOTHNESS = 2e-4
"""Weight λ of the smoothness term that the paper selects."""


class ModelError(ValueError):
    """A model that can't be read; the message says what was found and what to do."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a :class:`~deepprofile.model.network.DeepProfile` network.

    Attributes:
        n_variables: variables of the input series.
        n_auxiliary: static features of a cell.
        window: days of input, the last of which is the target day.
        filters: output channels of each convolution.
        kernel_size: days that a convolution sees; odd, so that the padding is symmetric.
        pooling: days (of the stage's input) averaged after each convolution.
        n_coefficients: coefficients of the profile.
        width: width of the dense block and of the heads' second layer.
        head_width: width of the heads' first layer.
        variables: names of the input variables in their order; empty where unknown.
        features: names of the auxiliary features in their order; empty where unknown.
        variable_units: units of the input variables in their order; empty where unknown.
        feature_units: units of the auxiliary features in their order; empty where unknown.
        layers: layers that the network was trained on; empty where unknown.

    Raises:
        ValueError: if a size is not positive, the kernel is even, ``filters`` and ``pooling``
            differ in length, the window is not a multiple of the product of ``pooling``, or
            names or units don't match the sizes.
    """

    n_variables: int = 39
    n_auxiliary: int = 6
    window: int = 360
    filters: tuple[int, ...] = (32, 32, 16, 8)
    kernel_size: int = 5
    pooling: tuple[int, ...] = (2, 2, 2, 5)
    n_coefficients: int = N_COEFFICIENTS
    width: int = 128
    head_width: int = 32
    variables: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    variable_units: tuple[str, ...] = ()
    feature_units: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        self._check_sizes()
        self._check_stages()
        for name in ("variables", "variable_units"):
            _check_count(name, getattr(self, name), "n_variables", self.n_variables)
        for name in ("features", "feature_units"):
            _check_count(name, getattr(self, name), "n_auxiliary", self.n_auxiliary)

    @property
    def n_features(self) -> int:
        """Features that the temporal extractor makes of one window."""
        return self.filters[-1] * self.window // math.prod(self.pooling)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as they stand in JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "NetworkConfig":
        """The inverse of :meth:`to_dict`, also after a round trip through JSON."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        values["layers"] = tuple(Layer(**layer) for layer in content.get("layers", ()))
        return cls(**values)

    def _check_sizes(self) -> None:
        for name in ("n_variables", "window", "n_coefficients", "width", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.n_auxiliary < 0:
            raise ValueError(f"n_auxiliary is {self.n_auxiliary}: expected 0 or more")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size is {self.kernel_size}: expected an odd number, so that a "
                "convolution pads both ends of the window alike"
            )

    def _check_stages(self) -> None:
        if not self.filters or len(self.filters) != len(self.pooling):
            raise ValueError(
                f"filters {self.filters} and pooling {self.pooling} have {len(self.filters)} and "
                f"{len(self.pooling)} stages: expected one pooling for each of at least one stage"
            )
        if min(*self.filters, *self.pooling) < 1:
            raise ValueError(
                f"filters {self.filters} and pooling {self.pooling} must all be at least 1"
            )
        total = math.prod(self.pooling)
        if self.window % total:
            raise ValueError(
                f"window is {self.window} days: expected a multiple of {total}, the product of "
                f"pooling {self.pooling}, so that no day is dropped"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        epochs: passes over the samples.
        batch_size: samples of a step; the last partial batch of an epoch is dropped.
        learning_rate: of Adam.
        samples_per_epoch: samples drawn without replacement in each epoch; None for all.
        validation_samples: size of the random subset, the same for every seed, on which validation
            runs after each epoch, cut to whole batches.
        average_last: how many last epochs' parameters are averaged.
        statistics_batches: training batches on which batch-norm statistics of the averaged
            parameters are computed anew.
        gradient_norm: the gradient is clipped to this norm.
        smoothness: λ of the loss.
        small_heads: whether training starts from small heads, see
            :meth:`~deepprofile.model.network.DeepProfile.initialise_heads`; False: from PyTorch's
            own.
        surface_layer: index of the layer of the surface term.
        seed: of the start and of every draw.
        threads: threads of torch while training; None leaves its setting.
        device: torch device on which the series lie and the network trains, such as ``"cpu"`` or
            ``"cuda"``.

    Raises:
        ValueError: if a number is out of its range.
    """

    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-3
    samples_per_epoch: int | None = None
    validation_samples: int = 4096
    average_last: int = 5
    statistics_batches: int = 200
    gradient_norm: float = 0.1
    smoothness: float = SMOOTHNESS
    small_heads: bool = True
    surface_layer: int = 0
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the ranges."""
        counts = ("epochs", "average_last", "statistics_batches")
        optional = tuple(
            n for n in ("samples_per_epoch", "threads") if getattr(self, n) is not None
        )
        for name in (*counts, *optional):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: batch norm needs at least 2")
        for name in ("learning_rate", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected more than 0")


def _check_count(what: str, texts: tuple[str, ...], size_name: str, size: int) -> None:
    if texts and len(texts) != size:
        raise ValueError(f"{len(texts)} {what} but {size_name} is {size}: expected one each")
