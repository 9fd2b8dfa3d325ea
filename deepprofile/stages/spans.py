"""The jobs of the predict stage: which blocks of which tiles, made from which inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile

import numpy as np
from numpy.typing import NDArray

from deepprofile.model.prediction import margins
from deepprofile.model.streaming import Stretch
from deepprofile.products import PRODUCTS
from deepprofile.recipe import Recipe
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, StageError
from deepprofile.stages.ingest import STAGE as INGEST
from deepprofile.stages.ingest import place_of
from deepprofile.stages.publication import fingerprint_of, to_retry
from deepprofile.stages.segments import LONGEST, JobSize, smallest_share
from deepprofile.store import head, history, open_pinned
from deepprofile.store.layout import BLOCK_DAYS, Block, Region, Tile, blocks
from deepprofile.store.ledger import done_in, noted


@dataclass(frozen=True)
class PredictJob:
    """A tile and consecutive blocks of a span.

    Attributes:
        tile: the tile.
        blocks: indices of the blocks, consecutive.
        period: first day index of the forcing that is used and the one after the last.
        model: URL of the model.
        model_fingerprint: of the model; a job refuses another one.
        smap_l4: URL of the cube with the forcing.
        static: URL of the cube with land mask and auxiliary features.
        max_gap: gaps of at most so many days are filled.
        device: where the network runs, one of ``deepprofile.model.device.DEVICES``.
        precision: of the network's products.
        segment: blocks that are computed together; the result doesn't depend on it but, on some
            processors, in last bits.
        fingerprints: of each block: the model, the precision and the forcing that it needs.
        snapshot: of the cube with the forcing: that of the fingerprints, whatever is published
            meanwhile; empty for the newest.
    """

    tile: Tile
    blocks: range
    period: tuple[int, int]
    model: str
    model_fingerprint: str
    smap_l4: str
    static: str
    max_gap: int
    device: str
    precision: str
    segment: int
    fingerprints: tuple[str, ...]
    snapshot: str = ""

    @property
    def key(self) -> str:
        """Name of the job."""
        first, last = self.blocks[0], self.blocks[-1]
        return f"tile {self.tile.row} {self.tile.column} blocks {first} to {last}"

    @property
    def entries(self) -> Mapping[str, str]:
        """One entry in the ledger for each block."""
        names = [entry_of(self.tile, block) for block in self.blocks]
        return dict(zip(names, self.fingerprints, strict=True))


def entry_of(tile: Tile, block: int) -> str:
    """Name of a block of a tile in the ledger."""
    return f"tile {tile.row} {tile.column} block {block}"


def make_jobs(
    context: Context,
    fingerprint: str,
    land: NDArray[np.bool_],
    devices: Sequence[str],
    done: Mapping[str, str],
    longest: int = LONGEST,
) -> list[list[PredictJob]]:
    """Jobs of the blocks that are not there yet: one for consecutive ones of a tile and span.

    Args:
        context: the running recipe.
        fingerprint: of the model.
        land: the land mask of the region.
        devices: kinds of devices that the workers have.
        done: what the cube holds, see `done_jobs`.
        longest: blocks that are computed together at most.

    Returns:
        The jobs of each span that has any, the spans in order.
    """
    paths, recipe = context.paths, context.recipe
    forcing = paths.product("smap_l4")
    snapshot = head(forcing)
    held = int(open_pinned(forcing, snapshot).sizes["time"])
    period = recipe.period.days.start, min(recipe.period.days.stop, held)
    inputs = _Inputs(context, fingerprint, period, snapshot)
    only = to_retry(context, paths.coefficients, "predict")

    def is_due(tile: Tile, block: int) -> bool:
        name = entry_of(tile, block)
        return done.get(name) != inputs.of(tile, block) and (only is None or name in only)

    make = partial(
        PredictJob,
        period=period,
        model=paths.model,
        model_fingerprint=fingerprint,
        smap_l4=forcing,
        snapshot=snapshot,
        static=paths.static,
        max_gap=recipe.sample.max_gap_days,
        device=recipe.predict.device,
        precision=recipe.predict.precision,
    )
    sizes = {
        tile: job_size(recipe, int(land[recipe.tiles.local(tile)].sum()), devices)
        for tile in recipe.tiles.land_tiles(land)
    }
    limit = smallest_share(context.client, job_size(recipe, 0, devices).worker_memory)
    groups = [
        [
            make(
                tile=tile,
                blocks=part,
                segment=size.segment(stretch_of(recipe, part, period), limit, longest),
                fingerprints=tuple(inputs.of(tile, block) for block in part),
            )
            for tile, size in sizes.items()
            for part in _runs(block for block in span if is_due(tile, block))
        ]
        for span in spans_of(recipe, period[1])
    ]
    return [group for group in groups if group]


def _runs(blocks: Iterable[int]) -> list[range]:
    """Ascending indices as ranges without holes."""
    found: list[range] = []
    for block in blocks:
        start = found.pop().start if found and found[-1].stop == block else block
        found.append(range(start, block + 1))
    return found


def first_block(recipe: Recipe) -> Block:
    """Block with the first day that has a full window.

    Raises:
        StageError: if the period has no such day.
    """
    first = recipe.period.days.start + recipe.training.window - 1
    if first >= recipe.period.days.stop:
        raise StageError(
            f"the period has {recipe.period.days.stop - recipe.period.days.start} days, but a "
            f"profile needs {recipe.training.window} days of forcing. Extend period."
        )
    return Block(first // BLOCK_DAYS)


def spans_of(recipe: Recipe, stop: int) -> list[range]:
    """Blocks up to the day ``stop``, cut into what one job predicts."""
    indices = range(first_block(recipe).index, -(-stop // BLOCK_DAYS))
    step = recipe.predict.blocks_per_job
    return [indices[i : i + step] for i in range(0, len(indices), step)]


def stretch_of(recipe: Recipe, span: range, period: tuple[int, int]) -> Stretch:
    """The blocks of a span and the forcing that they need, of the days of ``period``."""
    around = margins(recipe.training.window, recipe.sample.max_gap_days)
    return Stretch(span, period, around, BLOCK_DAYS)


def job_size(recipe: Recipe, cells: int, devices: Sequence[str] = ()) -> JobSize:
    """What the memory of a job depends on.

    Args:
        recipe: the recipe.
        cells: land cells of the job's tile.
        devices: kinds of devices that the workers have; as long as they are not known, the
            recipe's ``auto`` counts as the processor.
    """
    device = "cuda" if "cuda" in (recipe.predict.device, *devices) else "cpu"
    return JobSize(cells, n_variables(), recipe.training.n_coefficients, device=device)


def n_variables() -> int:
    """Variables of the forcing."""
    return sum(field.layer is None for field in PRODUCTS["smap_l4"].fields)


class _Inputs:
    """Fingerprints of what a block is made from: its own inputs, whichever job makes it."""

    def __init__(
        self, context: Context, model: str, period: tuple[int, int], snapshot: str
    ) -> None:
        recipe, paths = context.recipe, context.paths
        self._recipe, self._period = recipe, period
        ledger = history(paths.product("smap_l4"))
        shown = list(dropwhile(lambda commit: commit.snapshot_id != snapshot, ledger))
        commits = [c for c in reversed(shown) if c.metadata.get("stage") == INGEST]
        self._forcing, self._made_of = done_in(commits), noted(commits, "made_of")
        self._band = {tile: band for band in bands(recipe.tiles) for tile in band.tiles()}
        self._of_band: dict[tuple[Region, int], str] = {}
        gap, precision = str(recipe.sample.max_gap_days), recipe.predict.precision
        self._settings = [model, head(paths.static), gap, precision]

    def of(self, tile: Tile, block: int) -> str:
        """Fingerprint of a block of a tile: a new or replaced day changes it if it needs that."""
        key = self._band[tile], block
        if key not in self._of_band:
            self._of_band[key] = self._fingerprint(*key)
        return self._of_band[key]

    def _fingerprint(self, band: Region, block: int) -> str:
        alone = range(block, block + 1)
        days = stretch_of(self._recipe, alone, self._period).needed(alone)
        read = [
            text
            for part in blocks(days.start, days.stop)
            for text in self._made_from(part, band, days)
        ]
        return fingerprint_of([*self._settings, f"days {days.start} to {days.stop}", *read])

    def _made_from(self, block: Block, band: Region, days: slice) -> Sequence[str]:
        """What those of some days that lie in a block of forcing are made from, day by day where
        the ledger says so.
        """
        whole = self._forcing.get(place_of(block, band), "")
        first = block.days.start
        each = self._made_of.get(whole)
        return [whole] if each is None else each[max(days.start - first, 0) : days.stop - first]
