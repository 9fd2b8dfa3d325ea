"""What the stage train tells: cells and days by name, and what became of every cell-day."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from deepprofile.model.coverage import FATES, Coverage
from deepprofile.model.network import DeepProfile
from deepprofile.stages.cell_days import WORDS, skipped

MAX_NAMED = 10
"""Cells that a line names; all are in the model's metadata."""
USED = ("train", "validation")
"""Splits whose samples are used."""
NO_TARGET_AT_ALL = "no target on any day"


class Names:
    """Names of the cells and days of a cube of samples."""

    def __init__(self, cube: xr.Dataset, training: NDArray[np.bool_]) -> None:
        """Keep the places of the cells and the days; candidates that train count as "train"."""
        places = ("row", "column", "latitude", "longitude", "split")
        self.cells = pd.DataFrame({name: cube[name].values for name in places})
        self.cells.loc[training, "split"] = "train"
        self.days = pd.DatetimeIndex(cube["time"].values)

    def cell(self, cell: int) -> str:
        """Row and column of the global grid, latitude and longitude of a cell."""
        place = self.cells.iloc[cell]
        return (
            f"row {place['row']} column {place['column']} "
            f"({place['latitude']:.2f}, {place['longitude']:.2f})"
        )

    def sample(self, cell: int, day: int) -> str:
        """A cell and a day as a date."""
        return f"{self.cell(cell)} on {self.days[day]:%Y-%m-%d}"

    def table(self, samples: list[tuple[int, int]]) -> pd.DataFrame:
        """Samples as a table: place of the cell and last day of the window."""
        cells, days = (list(part) for part in zip(*samples, strict=True))
        table = self.cells.iloc[cells].reset_index(names="cell")
        return table.assign(last_day=self.days[days].strftime("%Y-%m-%d"))


def coverage_lines(found: Coverage, names: Names) -> list[str]:
    """Samples and skipped cell-days of each split by reason, and the cells that give no sample."""
    split = names.cells["split"].to_numpy()
    return [line for part in USED for line in _split_lines(found, names, part, split == part)]


def cells_without_samples(found: Coverage, names: Names) -> list[dict[str, object]]:
    """Cells of the splits in use that give no sample: place, split and the main reason."""
    return [
        {
            "row": int(names.cells["row"][cell]),
            "column": int(names.cells["column"][cell]),
            "split": str(names.cells["split"][cell]),
            "reason": reason,
        }
        for cell, reason in _without_samples(found, names.cells["split"].isin(USED).to_numpy())
    ]


def coverage_counts(found: Coverage, names: Names) -> dict[str, dict[str, int]]:
    """Cell-days of each split in use by what became of them."""
    split = names.cells["split"].to_numpy()
    return {part: found.counts(split == part) for part in USED}


def constant_inputs(model: DeepProfile) -> list[str]:
    """Names, or else numbers, of variables and features that were constant in training."""
    config = model.config
    pairs = (
        (config.variables, model.series_minimum, model.series_maximum),
        (config.features, model.auxiliary_minimum, model.auxiliary_maximum),
    )
    return [name for pair in pairs for name in _constant(*pair)]


def _constant(names: tuple[str, ...], minimum: Tensor, maximum: Tensor) -> Iterator[str]:
    for number in (minimum == maximum).nonzero().flatten().tolist():
        yield names[number] if names else str(number)


def _split_lines(
    found: Coverage, names: Names, part: str, cells: NDArray[np.bool_]
) -> Iterator[str]:
    counts = found.counts(cells)
    total = sum(counts.values())
    yield (
        f"{part}: {counts['sample']:,} samples of {total:,} cell-days in "
        f"{np.count_nonzero(cells):,} cells; skipped: {skipped(counts)}"
    )
    without = _without_samples(found, cells)
    for reason in dict.fromkeys(reason for _, reason in without):
        its_own = [names.cell(cell) for cell, why in without if why == reason]
        more = f" and {len(its_own) - MAX_NAMED} more" if len(its_own) > MAX_NAMED else ""
        yield (
            f"{part}: {len(its_own)} of {np.count_nonzero(cells)} cells give no sample, {reason}: "
            f"{'; '.join(its_own[:MAX_NAMED])}{more}"
        )


def _without_samples(found: Coverage, cells: NDArray[np.bool_]) -> list[tuple[int, str]]:
    """Cells without a sample and the main reason, which is that of most of their days."""
    chosen = np.flatnonzero(cells & (found.days[:, 0] == 0)).tolist()
    return [(cell, _reason(found, cell)) for cell in chosen]


def _reason(found: Coverage, cell: int) -> str:
    if found.without_target[cell]:
        return NO_TARGET_AT_ALL
    # Every cell has days before the first window: they are the reason only if there are no others.
    later = found.days[cell, 2:]
    return f"days {WORDS[FATES[2 + int(later.argmax())] if later.any() else FATES[1]]}"
