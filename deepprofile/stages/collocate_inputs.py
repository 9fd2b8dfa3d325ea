"""What the collocation of a tile is made from: blocks of three products, each as it is now."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepprofile.collocation import MARGIN_DAYS
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context, StageError
from deepprofile.stages.ingest import STAGE as INGEST
from deepprofile.stages.ingest import place_of
from deepprofile.stages.publication import fingerprint_of
from deepprofile.store import NotACubeError, head, open_cube, region_of
from deepprofile.store.layout import Region, Tile, blocks, day_at
from deepprofile.store.ledger import commits_of, done_in, noted


@dataclass(frozen=True)
class BlockInput:
    """The days of a block that are collocated.

    Attributes:
        index: the block.
        days: first day index and the one after the last.
        fingerprint: of what the three products hold of these days, and of the days around them
            that anomalies need.
        closed: whether no later day can join the block: its statistics are worth storing.
    """

    index: int
    days: tuple[int, int]
    fingerprint: str
    closed: bool


class Inputs:
    """The days that all three products have, and fingerprints of what they are made from."""

    def __init__(self, context: Context) -> None:
        """Look into the cubes' ledgers.

        Raises:
            StageError: if a product has no cube, another region or no day of the period.
        """
        recipe = context.recipe
        self._margin = MARGIN_DAYS if recipe.collocation.anomalies else 0
        self._products = [
            _Product(name, context.paths.product(name), recipe.tiles)
            for name in recipe.collocation.products
        ]
        self._band = {tile: band for band in bands(recipe.tiles) for tile in band.tiles()}
        self._of_band: dict[Region, tuple[BlockInput, ...]] = {}
        self.period = recipe.period.days.start, recipe.period.days.stop
        self.days = self.period[0], min(self.period[1], *(p.n_days for p in self._products))
        if self.days[0] >= self.days[1]:
            raise StageError(
                f"collocate: the products have no day of the period from {day_at(self.period[0])} "
                f"to {day_at(self.period[1] - 1)} in common ({self._ends()}). Run the stage ingest "
                "over the period."
            )

    def of(self, tile: Tile) -> tuple[BlockInput, ...]:
        """The blocks of a tile in the order of time."""
        band = self._band[tile]
        if band not in self._of_band:
            self._of_band[band] = tuple(self._inputs(band))
        return self._of_band[band]

    def gaps(self, tiles: Iterable[Tile]) -> list[str]:
        """What the cubes lack: days of the period after their ends, blocks that were not ingested.

        Args:
            tiles: the tiles that are looked at.
        """
        looked_at = list(dict.fromkeys(self._band[tile] for tile in tiles))
        start, stop = self.period
        found = [
            f"{product.name} ends on {day_at(product.n_days - 1)}: {stop - product.n_days} of "
            f"{stop - start} days of the period can't be collocated"
            for product in self._products
            if product.n_days < stop
        ]
        for product in self._products:
            missing = product.not_ingested(self.days, looked_at)
            if missing:
                more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
                found.append(
                    f"{product.name} was not ingested in {', '.join(missing[:4])}{more}: run the "
                    "stage ingest"
                )
        return found

    def _ends(self) -> str:
        return ", ".join(
            f"{p.name} ends on {day_at(p.n_days - 1)}" if p.n_days else f"{p.name} has no day"
            for p in self._products
        )

    def _inputs(self, band: Region) -> list[BlockInput]:
        start, stop = self.days
        found = []
        for block in blocks(start, stop):
            days = max(block.days.start, start), min(block.days.stop, stop)
            around = max(days[0] - self._margin, start), min(days[1] + self._margin, stop)
            parts = [text for p in self._products for text in p.made_from(band, around)]
            closed = block.days.stop + self._margin <= stop
            text = fingerprint_of([f"days {around[0]} to {around[1]} for {days}", *parts])
            found.append(BlockInput(block.index, days, text, closed))
        return found


class _Product:
    """Ledger and extent of a product's cube."""

    def __init__(self, name: str, url: str, region: Region) -> None:
        try:
            cube = open_cube(url, chunks=None)
        except NotACubeError as error:
            raise StageError(
                f"collocate: {name} has no cube ({error}). Add it to products and run the stage "
                "ingest, or name three other products in collocation.products."
            ) from error
        found = region_of(cube.attrs)
        if found != region:
            raise StageError(
                f"{url} covers tile rows {found.tile_rows} and columns {found.tile_columns}: the "
                f"recipe's region has {region.tile_rows} and {region.tile_columns}. Give the "
                "recipe the region of its cubes, or another root."
            )
        commits = commits_of(url, INGEST)
        self.name = name
        self.n_days = int(cube.sizes["time"])
        self._head = head(url)
        self._done, self._made_of = done_in(commits), noted(commits, "made_of")

    def made_from(self, band: Region, days: tuple[int, int]) -> list[str]:
        """What some days of a band are made from, day by day where the ledger says so.

        A block that the ledger does not know may be anything: the state of the whole cube counts.
        """
        found: list[str] = []
        for block in blocks(*days):
            whole = self._done.get(place_of(block, band), self._head)
            each: Sequence[str] | None = self._made_of.get(whole)
            first = block.days.start
            part = slice(max(days[0] - first, 0), days[1] - first)
            found += [whole] if each is None else each[part]
        return found

    def not_ingested(self, days: tuple[int, int], among: Sequence[Region]) -> list[str]:
        """Names of the blocks that the ledger lacks; none where it knows of no ingest at all."""
        if not self._done:
            return []
        return [
            name
            for block in blocks(*days)
            for name in (place_of(block, band) for band in among)
            if name not in self._done
        ]


def drawn_cells(land: NDArray[np.bool_], n: int, seed: int) -> NDArray[np.bool_]:
    """Mask of ``n`` land cells (or all, if there are not as many), drawn without replacement.

    Args:
        land: (y, x), true on land.
        n: number of cells.
        seed: of the draw.
    """
    cells = np.flatnonzero(land)
    chosen = np.random.default_rng(seed).choice(cells, min(n, cells.size), replace=False)
    mask = np.zeros(land.shape, np.bool_)
    mask.flat[chosen] = True
    return mask
