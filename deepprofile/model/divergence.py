"""Losses that are not finite: which samples the batch had, and which of them are to blame."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from deepprofile.model.samples import Batch

MAX_NAMED = 10
"""How many samples an error message names."""

NameSample = Callable[[int, int], str]
"""Words for a sample, given its cell and last day."""


class TrainingDivergedError(RuntimeError):
    """A loss or its gradient is not finite; the message names the samples.

    Attributes:
        samples: (cell, last day) of all samples of the batch, those to blame first.
    """

    def __init__(self, message: str, samples: list[tuple[int, int]]) -> None:
        """Keep the samples beside the message."""
        super().__init__(message, samples)
        self.samples = samples

    def __str__(self) -> str:
        """The message."""
        return str(self.args[0])


def by_position(cell: int, day: int) -> str:
    """A sample by the indices of its cell and of its last day."""
    return f"cell {cell} day {day} (indices)"


def divergence(
    where: str, values: Mapping[str, float], part: Tensor, batch: Batch, name: NameSample
) -> TrainingDivergedError:
    """The error for a batch.

    Args:
        where: epoch and step.
        values: terms of the loss, and the norm of the gradient.
        part: (B, 2) cell and last day of the samples.
        batch: the samples.
        name: words for a sample.
    """
    wrong = {
        "series": ~torch.isfinite(batch.series).all(2).all(1),
        "auxiliary": ~torch.isfinite(batch.auxiliary).all(1),
        "target": torch.isinf(batch.target).any(1),
        "weight": ~torch.isfinite(batch.weight).all(1),
    }
    culprit = torch.stack(list(wrong.values())).any(0).cpu()
    ordered = torch.cat([part[culprit], part[~culprit]]).tolist()
    count = int(culprit.sum())
    if count:
        kinds = ", ".join(kind for kind, rows in wrong.items() if rows.any())
        what = f"{count} samples of the batch have inputs that are not finite ({kinds})"
    else:
        what, count = "all inputs of the batch are finite; its samples", len(ordered)
    named = "; ".join(name(cell, day) for cell, day in ordered[: min(count, MAX_NAMED)])
    more = f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""
    numbers = ", ".join(f"{key} {value:g}" for key, value in values.items())
    return TrainingDivergedError(
        f"the loss is not finite at {where} ({numbers}). {what}: {named}{more}. Look at these "
        "series, or lower learning_rate if they are sound.",
        [(cell, day) for cell, day in ordered],
    )
