"""Columns of three products over a tile, block by block, read and used in threads.

A thread reads the shards of a block and makes its statistics; only adding these up, in the order
of time, is left to the job itself.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation import MARGIN_DAYS, anomalies, column_mean
from deepprofile.stages.collocate_inputs import BlockInput
from deepprofile.store import layers_of, open_cube, read_tile
from deepprofile.store.layout import Tile
from deepprofile.store.writer import IN_FLIGHT

AHEAD = IN_FLIGHT + 1
"""Blocks that are read, or wait to be added up, at a time."""

Columns = list[NDArray[np.float32]]
"""0-100 cm means of each product in m³ m⁻³, (days, rows, columns of a tile)."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def each_block(
    urls: Sequence[str],
    tile: Tile,
    every: Sequence[BlockInput],
    wanted: Sequence[BlockInput],
    use: Callable[[BlockInput, Columns], Result],
    *,
    as_anomalies: bool = False,
) -> Iterator[Result]:
    """What ``use`` makes of the series of each block, in the order of the blocks.

    Few blocks are in memory at a time.

    Args:
        urls: the cubes of the products.
        tile: the tile.
        every: all blocks of the period; days around those wanted are taken from these.
        wanted: some of them, in order.
        use: called in threads.
        as_anomalies: whether it gets each product's anomalies instead of its columns.
    """
    cubes = [open_cube(url, chunks=None) for url in urls]
    sources = [(cube, layers_of(cube)) for cube in cubes]

    def read(block: BlockInput) -> Columns:
        return [
            column_mean(read_tile(cube, "soil_moisture", tile, block.days), layers, axis=1)
            for cube, layers in sources
        ]

    if as_anomalies:
        for block, columns in _departures(every, wanted, read):
            yield use(block, columns)
    else:
        yield from _in_order(lambda block: use(block, read(block)), wanted)


def _in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results of a function that runs in threads, a few items ahead."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _departures(
    every: Sequence[BlockInput],
    wanted: Sequence[BlockInput],
    read: Callable[[BlockInput], Columns],
) -> Iterator[tuple[BlockInput, Columns]]:
    """Anomalies of the blocks, from their days and those around them."""
    known = {block.index: block for block in every}
    near = {b.index: [i for i in range(b.index - 1, b.index + 2) if i in known] for b in wanted}
    order = sorted({index for indices in near.values() for index in indices})
    stream = zip(order, _in_order(read, [known[index] for index in order]), strict=True)
    held: dict[int, Columns] = {}
    for block in wanted:
        while any(index not in held for index in near[block.index]):
            index, columns = next(stream)
            held[index] = columns
        held = {index: columns for index, columns in held.items() if index >= block.index - 1}
        first = known[near[block.index][0]].days[0]
        start, stop = block.days[0] - first, block.days[1] - first
        before = max(start - MARGIN_DAYS, 0)
        parts = zip(*(held[index] for index in near[block.index]), strict=True)
        yield (
            block,
            [
                anomalies(np.concatenate(part)[before : stop + MARGIN_DAYS])[
                    start - before : stop - before
                ]
                for part in parts
            ],
        )
