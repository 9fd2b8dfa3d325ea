"""The jobs of the collocate stage: one tile each."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation import (
    Estimates,
    Flag,
    Statistics,
    accumulate,
    block_bootstrap,
    count_days,
    draw_blocks,
    finish,
)
from deepprofile.collocation.statistics import N_STATISTICS
from deepprofile.stages.collocate_columns import Columns, each_block
from deepprofile.stages.collocate_inputs import BlockInput
from deepprofile.stages.tile_statistics import SPAN_BLOCKS, Span, load_spans, save_spans
from deepprofile.store import SinglePiece, Writer, open_cube, read_tile
from deepprofile.store.kinds import NOT_PROCESSED
from deepprofile.store.layout import Tile

EXTENDED = ("sensitivity", "signal_to_noise", "r_squared")
"""Arrays of the cube that are there on request."""


@dataclass(frozen=True)
class CollocateJob(SinglePiece):
    """One tile.

    Attributes:
        tile: the tile.
        cubes: URL of each of the three products' cubes, by product, in order.
        static: URL of the cube with the land mask.
        blocks: the days, block by block.
        anomalies: whether anomalies are collocated.
        scale: factor s of each product.
        min_samples: fewest common days.
        arrays: names of what the cube holds beside weights and error variances.
        replicates: of the bootstrap, 0 for none.
        block_days: days of a bootstrap block.
        seed: seed of the bootstrap.
        drawn: the cells of the tile (row · columns + column) that are bootstrapped; None: all.
        statistics: URL of the tile's stored statistics.
        fingerprint: of the blocks and the settings.
    """

    tile: Tile
    cubes: Mapping[str, str]
    static: str
    blocks: tuple[BlockInput, ...]
    anomalies: bool
    scale: tuple[float, ...]
    min_samples: int
    arrays: tuple[str, ...]
    replicates: int
    block_days: int
    seed: int
    drawn: tuple[int, ...] | None
    statistics: str
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return f"tile {self.tile.row} {self.tile.column}"

    @property
    def days(self) -> tuple[int, int]:
        """First day index and the one after the last."""
        return self.blocks[0].days[0], self.blocks[-1].days[1]


@dataclass(frozen=True)
class TileReport:
    """What a job says of its tile.

    Attributes:
        cells: number of land cells.
        read: blocks that were read.
        kept: blocks whose stored statistics were taken.
        present: whether each product has a value anywhere on each day, as bits, (products, …).
        cells_without: land cells in which each product has no value at all.
        problem: why stored statistics could not be used; empty where they could, or are not there.
    """

    cells: int
    read: int
    kept: int
    present: NDArray[np.uint8]
    cells_without: tuple[int, ...]
    problem: str


@dataclass(frozen=True)
class FallbackJob(SinglePiece):
    """One tile, and the weights that its invalid cells get."""

    tile: Tile
    cube: str
    weights: tuple[float, ...]
    fingerprint: str

    @property
    def key(self) -> str:
        """Name in the ledger."""
        return f"tile {self.tile.row} {self.tile.column}"


def write_estimates(writer: Writer, job: CollocateJob) -> TileReport:
    """Collocate one tile: add up what is new, finish once."""
    land = read_tile(job.static, "land", job.tile) == 1
    gathered = _Gathered(job, land)
    found = finish(Statistics(gathered.total.sums), job.scale, job.min_samples)
    values = _variables(job, found, gathered)
    place = writer.select(job.tile)
    for name, of_land in values.items():
        full = np.full((*of_land.shape[:-1], *land.shape), _missing(of_land), of_land.dtype)
        full[..., land] = of_land
        writer.write(name, place, full)
    total = gathered.total
    return TileReport(
        int(land.sum()),
        gathered.n_read,
        len(job.blocks) - gathered.n_read,
        np.packbits(total.present, axis=1),
        tuple(int((days == 0).sum()) for days in total.days_with),
        gathered.problem,
    )


def write_fallback(writer: Writer, job: FallbackJob) -> int:
    """Give the invalid cells of a tile the fallback weights; returns their number."""
    cube = open_cube(job.cube, chunks=None)
    weight, flag = read_tile(cube, "weight", job.tile), read_tile(cube, "flag", job.tile)
    invalid = (flag != Flag.VALID) & (flag != NOT_PROCESSED)
    weight[:, invalid] = np.asarray(job.weights, dtype=np.float32)[:, None]
    writer.write("weight", writer.select(job.tile), weight)
    return int(invalid.sum())


class _Gathered:
    """Statistics of a tile over all days: the stored ones, and those of the blocks that are read.

    Attributes:
        total: over all blocks.
        series: of the cells that are bootstrapped, (products, days, cells).
        drawn: their places among the land cells.
        n_read: blocks that were read.
        problem: see `TileReport`.
    """

    def __init__(self, job: CollocateJob, land: NDArray[np.bool_]) -> None:
        self._job, self._land = job, land
        self._cells = cells = np.flatnonzero(land)
        every = job.drawn is None
        self._kept = np.array([] if job.drawn is None else job.drawn, dtype=np.intp)
        self.drawn = np.arange(cells.size) if every else np.searchsorted(cells, self._kept)
        shape = len(job.cubes), cells.size, self._kept.size
        made_for = self._made_for()
        # To bootstrap all cells takes all series, which are too much to store: all is read.
        stored, self.problem = ({}, "") if every else load_spans(job.statistics, made_for, shape)
        spans, wanted = _to_read(job.blocks, stored, Span.empty(*shape))
        self.n_read = len(wanted)
        open_end = Span.empty(*shape)
        n_days = job.days[1] - job.days[0]
        self._whole = np.empty((3, n_days, cells.size if every else 0), np.float32)
        parts = each_block(
            list(job.cubes.values()),
            job.tile,
            job.blocks,
            wanted,
            self._part,
            as_anomalies=job.anomalies,
        )
        for block, part in zip(wanted, parts, strict=True):
            if block.closed:
                spans[block.index // SPAN_BLOCKS] += part
            else:
                open_end += part
        if not every and any(block.closed for block in wanted):
            save_spans(job.statistics, made_for, spans)
        self.total = sum([*spans.values(), open_end], start=Span.empty(*shape))
        self.series = self._whole if every else self.total.series

    def _part(self, block: BlockInput, columns: Columns) -> Span:
        """Statistics of one block."""
        x, y, z = columns
        days_with, present = zip(
            *(count_days(values, self._land) for values in columns), strict=True
        )
        flat = [values.reshape(len(values), -1) for values in columns]
        if self._whole.size:
            first = block.days[0] - self._job.days[0]
            for product, values in enumerate(flat):
                values.take(
                    self._cells, axis=1, out=self._whole[product, first : first + len(values)]
                )
        return Span(
            (block.fingerprint,),
            accumulate(x, y, z).sums.reshape(N_STATISTICS, -1).take(self._cells, axis=1),
            np.stack(days_with),
            np.stack(present),
            np.stack([values.take(self._kept, axis=1) for values in flat]),
        )

    def _made_for(self) -> dict[str, Any]:
        job = self._job
        return {
            "tile": [job.tile.row, job.tile.column],
            "products": list(job.cubes),
            "anomalies": job.anomalies,
            "land": sha256(np.packbits(self._land).tobytes()).hexdigest(),
            "kept": sha256(self._kept.astype("<i4").tobytes()).hexdigest(),
        }


def _to_read(
    blocks: tuple[BlockInput, ...], stored: Mapping[int, Span], empty: Span
) -> tuple[dict[int, Span], list[BlockInput]]:
    """Spans to go on with, in order, and the blocks that they lack."""
    spans: dict[int, Span] = {}
    wanted: list[BlockInput] = []
    numbers = sorted({block.index // SPAN_BLOCKS for block in blocks if block.closed})
    for number in numbers:
        own = [b for b in blocks if b.closed and b.index // SPAN_BLOCKS == number]
        before = stored.get(number, empty)
        spans[number] = before if before.begins([b.fingerprint for b in own]) else empty
        wanted += own[len(spans[number].blocks) :]
    return spans, wanted + [block for block in blocks if not block.closed]


def _variables(job: CollocateJob, found: Estimates, gathered: _Gathered) -> dict[str, NDArray[Any]]:
    variables: dict[str, NDArray[Any]] = {
        name: getattr(found, name).astype(np.float32)
        for name in ("weight", "error_variance", *EXTENDED)
        if name not in EXTENDED or name in job.arrays
    }
    if "weight_std" in job.arrays:
        variables |= _errors(job, found, gathered)
    return variables | {"n_samples": found.n_samples, "flag": found.flag}


def _errors(
    job: CollocateJob, found: Estimates, gathered: _Gathered
) -> dict[str, NDArray[np.float32]]:
    """Sampling errors, NaN in cells that are not bootstrapped or have no such estimate."""
    names = ("error_variance_std", "weight_std")
    errors = {name: np.full(found.weight.shape, np.nan, np.float32) for name in names}
    drawn = gathered.drawn
    if not job.replicates or not drawn.size:
        return errors
    n_days = gathered.series.shape[1]
    blocks = draw_blocks(n_days, job.replicates, job.block_days, job.seed)
    x, y, z = gathered.series
    estimated = block_bootstrap(x, y, z, np.arange(n_days), blocks, job.scale)
    known = found.flag[drawn] != Flag.TOO_FEW_DAYS, found.flag[drawn] == Flag.VALID
    for name, there in zip(names, known, strict=True):
        errors[name][:, drawn] = np.where(there, getattr(estimated, name), np.nan)
    return errors


def _missing(values: NDArray[Any]) -> float:
    if values.dtype.kind == "f":
        return float("nan")
    return NOT_PROCESSED if values.dtype == np.uint8 else 0
