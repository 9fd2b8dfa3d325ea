"""What there is to ingest: the days that changed, compared with what the ledger notes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepprofile.products import Product, SetAside
from deepprofile.products.files import file_tags
from deepprofile.stages.bands import bands
from deepprofile.stages.context import Context
from deepprofile.stages.ingest_changes import News
from deepprofile.stages.ingest_days import (
    HASH,
    Arrival,
    Listing,
    MadeOf,
    Revision,
    arrivals,
    list_days,
    made_of,
    revise,
)
from deepprofile.stages.ingest_jobs import STAGE, IngestJob, IngestResult, place_of
from deepprofile.stages.publication import fingerprint_of, outstanding, to_retry
from deepprofile.store import NotACubeError, open_cube, planned_head
from deepprofile.store.layout import Block, Region, Tile, blocks, day_at
from deepprofile.store.ledger import Commit, commits_of, done_in, noted


@dataclass(frozen=True)
class Work:
    """What is to be done for the cube of a product.

    Attributes:
        source: URL of the granules.
        snapshot: the snapshot of the cube for which this was found; empty if there is no cube.
        jobs: the jobs, by block.
        news: what each job brings, by its key.
        days: for each job's fingerprint, what the days of its block are made from.
        unread: by name of a job, its hours that could not be read when it was done last.
        set_aside: files of the listing that were not used and had not been set aside before.
        lost: days that stay as published although granules of theirs are gone, as far as
            the ledger does not say so yet.
        without_land: the tiles that get no job, each as row and column; None if the ledger says
            so already.
    """

    source: str
    snapshot: str
    jobs: list[IngestJob]
    news: Mapping[str, News]
    days: Mapping[str, tuple[MadeOf, ...]]
    unread: Mapping[str, Mapping[str, str]]
    set_aside: list[SetAside]
    lost: tuple[date, ...]
    without_land: list[str] | None

    def notes(self, *, first: bool) -> dict[str, Any]:
        """What a commit notes; what holds for the whole run stands in the first one."""
        found: dict[str, Any] = {"source": self.source}
        if first and self.without_land is not None:
            found["without_land"] = self.without_land
        if first and self.lost:
            found["lost_days"] = {str(day): "kept as published" for day in self.lost}
        return found

    def made_of(self, jobs: Iterable[IngestJob]) -> dict[str, list[str]]:
        """What each day of the jobs' blocks is made from, by fingerprint, which bands share."""
        return {
            own: [day.text for day in self.days[own]] for own in {job.fingerprint for job in jobs}
        }

    def unread_in(
        self, results: Iterable[tuple[IngestJob, IngestResult]]
    ) -> dict[str, dict[str, str]]:
        """What could not be read, by name of the job; none again where it can be read now."""
        return {
            job.key: {str(day): f"{hours:x}" for day, hours in result.unread.items()}
            for job, result in results
            if result.unread or self.unread.get(job.key)
        }

    def ends(self, jobs: Sequence[IngestJob]) -> tuple[date, date]:
        """First and last day of some jobs."""
        return day_at(jobs[0].days[0]), day_at(jobs[-1].days[1] - 1)


def find_work(context: Context, product: Product, land: NDArray[np.bool_]) -> Work:
    """Compare the granules of a product with what its cube was made from.

    Args:
        context: the running recipe.
        product: the product.
        land: the land mask of the recipe's region.

    Raises:
        FileNotFoundError: if there are no granules of the product.
    """
    url, source = context.paths.product(product.name), context.recipe.products[product.name].url
    # The head is read before the ledger: who publishes in between is noticed, see `publish`.
    snapshot = planned_head(url)
    commits = commits_of(url, STAGE)
    start, stop = _whole_blocks(context, url)
    granules, aside = product.granules(source, day_at(start), day_at(stop))
    listing = list_days(granules, file_tags(source))
    finder = _Finder(context, product, land, snapshot, commits, listing)
    candidates = finder.jobs(start, stop)
    done, only = done_in(commits), to_retry(context, url, STAGE)
    jobs = outstanding(candidates, done, only)
    known = noted(commits, "lost_days")
    reported = {item["url"] for commit in commits for item in commit.metadata.get("set_aside", ())}
    return Work(
        source,
        snapshot,
        jobs,
        {job.key: finder.news[job.key] for job in jobs},
        finder.days,
        finder.unread,
        [item for item in aside if item.url not in reported],
        tuple(sorted(day for day in finder.lost if str(day) not in known)),
        _without_land(context.recipe.tiles, land, commits),
    )


class _Finder:
    """Makes the job of each block and band."""

    def __init__(
        self,
        context: Context,
        product: Product,
        land: NDArray[np.bool_],
        snapshot: str,
        commits: Sequence[Commit],
        listing: Listing,
    ) -> None:
        recipe, tiles = context.recipe, context.recipe.tiles.land_tiles(land)
        self._context, self._product = context, product
        self._snapshot, self._listing = snapshot, listing
        self._settings = _settings_of(recipe.ingest.min_fraction, product, land)
        self._done, self._noted = done_in(commits), noted(commits, "made_of")
        # Also of pieces that were withdrawn since: their granules may be gone.
        self._written: dict[str, str] = noted(commits, "done") if snapshot else {}
        self.unread: dict[str, dict[str, str]] = noted(commits, "unread")
        self._read: dict[tuple[str, str], tuple[MadeOf, ...]] = {}
        self._latest = -1
        self._revisions: dict[tuple[int, tuple[str, str], bool], Revision] = {}
        in_bands = ((b, tuple(t for t in tiles if t in b)) for b in bands(recipe.tiles))
        self.bands = [(band, held) for band, held in in_bands if held]
        self.news: dict[str, News] = {}
        self.days: dict[str, tuple[MadeOf, ...]] = {}
        self.lost: set[date] = set()

    def jobs(self, start: int, stop: int) -> list[IngestJob]:
        """Jobs of all blocks and bands up to the day ``stop``; they may be done already."""
        places = [(block, *held) for block in blocks(start, stop) for held in self.bands]
        self._latest = max(
            (
                block.days.start + i
                for block, band, _ in places
                for i, day in enumerate(self._published(place_of(block, band)))
                if day.hours
            ),
            default=-1,
        )
        return [self._job(block, band, tiles, stop) for block, band, tiles in places]

    def _job(self, block: Block, band: Region, tiles: tuple[Tile, ...], stop: int) -> IngestJob:
        place = place_of(block, band)
        n_days = min(block.days.stop, stop) - block.days.start
        published = self._published(place)
        revision = self._revision(block, n_days, place)
        first, recipe = block.days.start, self._context.recipe
        own = fingerprint_of([f"block {block.index}", *(day.text for day in revision.days)])
        self.days[own] = revision.days
        self.lost |= {day_at(first + i) for i in revision.lost}
        self.news[place] = self._news(block, revision.fresh, published)
        held = tuple(day.held for day in published)
        held += (0,) * (n_days - len(held))
        return IngestJob(
            self._product.name,
            self._listing.touching(first + i for i in revision.fresh),
            block,
            n_days,
            revision.fresh,
            tuple(day.hours for day in revision.days),
            held,
            (recipe.period.days.start, recipe.period.days.stop),
            band,
            tiles,
            self._context.paths.product(self._product.name),
            self._snapshot if published else "",
            self._context.paths.static,
            recipe.ingest.min_fraction,
            own,
        )

    def _state(self, place: str) -> tuple[str, str]:
        """What decides on a block of a band: bands of which it is the same share the answers."""
        return self._written.get(place, ""), str(self.unread.get(place, ""))

    def _published(self, place: str) -> tuple[MadeOf, ...]:
        """What the days of a block of a band were made from when it was written last."""
        key = self._state(place)
        if key not in self._read:
            unread, texts = self.unread.get(place, {}), self._noted.get(key[0], ())
            days = (made_of(text, unread.get(str(i), "0")) for i, text in enumerate(texts))
            self._read[key] = tuple(days)
        return self._read[key]

    def _revision(self, block: Block, n_days: int, place: str) -> Revision:
        published, withdrawn = self._published(place), place not in self._done
        key = block.index, self._state(place), withdrawn
        if key not in self._revisions:
            days = range(block.days.start, block.days.start + n_days)
            listed = [self._listing.day(day, self._settings) for day in days]
            self._revisions[key] = revise(published, listed, withdrawn=withdrawn)
        return self._revisions[key]

    def _news(self, block: Block, fresh: Iterable[int], published: Sequence[MadeOf]) -> News:
        granules: dict[str, Arrival] = {}
        added, remade = set(), set()
        for i in fresh:
            day = block.days.start + i
            held = published[i] if i < len(published) else None
            now = self._listing.hours.get(day, {})
            for name, arrival in arrivals(held, now, latest=day > self._latest).items():
                granules[name] = max(arrival, granules.get(name, arrival))
            if held is not None and held.hours:
                remade.add(day_at(day))
            elif now:
                added.add(day_at(day))
        return News(granules, frozenset(added), frozenset(remade))


def _settings_of(min_fraction: float, product: Product, land: NDArray[np.bool_]) -> str:
    """Hash of what every day depends on beside its granules."""
    mask = sha256(np.packbits(land).tobytes()).hexdigest()
    names = (field.name for field in product.fields)
    return fingerprint_of([mask, str(min_fraction), *names])[:HASH]


def _without_land(
    region: Region, land: NDArray[np.bool_], commits: Sequence[Commit]
) -> list[str] | None:
    """Tiles without land, unless the ledger's newest word on it is the same."""
    with_land = set(region.land_tiles(land))
    found = [f"{t.row} {t.column}" for t in region.tiles() if t not in with_land]
    said = [c.metadata["without_land"] for c in commits if "without_land" in c.metadata]
    return None if said and list(said[-1]) == found else found


def _whole_blocks(context: Context, url: str) -> tuple[int, int]:
    """First day of the period's first block, and the day after its last or after the cube's last.

    A block is written whole: days that the cube has of it already must not be lost to a shorter
    period.
    """
    days = context.recipe.period.days
    *_, last = blocks(days.start, days.stop)
    try:
        held = int(open_cube(url, chunks=None).sizes["time"])
    except NotACubeError:
        held = 0
    first = next(blocks(days.start, days.stop))
    return first.days.start, min(last.days.stop, max(days.stop, held))
