"""Which granules each day is made from, and which days of a block are to be made anew."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from deepprofile.products import Granule
from deepprofile.products.base import hours_of
from deepprofile.products.files import file_name
from deepprofile.stages.publication import fingerprint_of
from deepprofile.store.layout import EPOCH

HASH = 8
"""Hexadecimal digits of the hash of a granule or of the settings."""
_FIRST_DAY = int(np.datetime64(EPOCH, "D").astype(np.int64))


class Arrival(IntEnum):
    """How a granule changes a cube; of several days that it touches the highest one counts."""

    NEW = 0
    LATE = 1
    REPLACED = 2


@dataclass(frozen=True)
class MadeOf:
    """What a day is made from.

    Attributes:
        settings: hash of the settings and the land mask.
        hours: bit h is set if some granule has a step in hour h of the day.
        granules: hash of name and tag of each granule with steps on the day, in the order of
            reading.
        unread: the hours of those granules that could not be read; bands may differ in them.
    """

    settings: str
    hours: int = 0
    granules: tuple[str, ...] = ()
    unread: int = field(default=0, compare=False)

    @property
    def held(self) -> int:
        """Hours of which the day holds steps."""
        return self.hours & ~self.unread

    @property
    def text(self) -> str:
        """For the ledger, without what was unread; `made_of` reads it."""
        return " ".join((self.settings, f"{self.hours:x}", *self.granules))


def made_of(text: str, unread: str = "0") -> MadeOf:
    """The day that a text of the ledger describes, and hours of it that could not be read."""
    settings, hours, *granules = text.split()
    return MadeOf(settings, int(hours, 16), tuple(granules), int(unread, 16))


@dataclass
class Listing:
    """The granules of each day that has any.

    Attributes:
        hours: for each day index, the hours of each granule's steps on it, by the granule's hash
            and in the order of reading.
        granules: all granules in the order of reading.
        positions: for each day index, the positions of its granules among them.
    """

    hours: dict[int, dict[str, int]] = field(default_factory=dict)
    granules: Sequence[Granule] = ()
    positions: dict[int, list[int]] = field(default_factory=dict)

    def day(self, index: int, settings: str) -> MadeOf:
        """What a day would be made from now."""
        held = self.hours.get(index, {})
        return MadeOf(settings, _any_of(held.values()), tuple(held))

    def touching(self, days: Iterable[int]) -> tuple[Granule, ...]:
        """Granules with steps on some of the days, each once and in the order of reading."""
        found = {position for day in days for position in self.positions.get(day, ())}
        return tuple(self.granules[position] for position in sorted(found))


def list_days(granules: Sequence[Granule], tags: Mapping[str, str]) -> Listing:
    """Granules by the days they touch: a step at 00:00 belongs to the day that it begins.

    Args:
        granules: in the order of reading.
        tags: size and time of change (or entity tag) of each file by its URL: archives have files
            of the same name in several folders.
    """
    listing = Listing(granules=granules)
    for position, granule in enumerate(granules):
        own = fingerprint_of([f"{file_name(granule.url)} {tags.get(granule.url, '')}"])[:HASH]
        for day, hours in _hours_of(granule).items():
            held = listing.hours.setdefault(day, {})
            held[own] = held.get(own, 0) | hours
            listing.positions.setdefault(day, []).append(position)
    return listing


@dataclass(frozen=True)
class Revision:
    """What becomes of the days of a block, given what its shards were made from.

    Attributes:
        days: what each day of the block is made from afterwards.
        fresh: positions of the days that are made from granules now.
        lost: positions of the days that stay as published, although granules of which they
            were made are gone.
    """

    days: tuple[MadeOf, ...]
    fresh: tuple[int, ...]
    lost: tuple[int, ...]


def revise(
    published: Sequence[MadeOf], listed: Sequence[MadeOf], *, withdrawn: bool = False
) -> Revision:
    """Decide day by day: made anew where its granules or settings are others, kept elsewhere.

    A day of which some hours have no granule any more is kept: an archive that deletes what is
    old, or loses it, must not take published days along.

    Args:
        published: what the first days of the block were made from; empty if it is not there.
        listed: what all its days would be made from now.
        withdrawn: whether what is published may be damaged: every day whose granules are all
            there is made anew.
    """
    days, fresh, lost = [], [], []
    for i, now in enumerate(listed):
        before = published[i] if i < len(published) else None
        gone = before is not None and bool(before.held & ~now.hours)
        if before is None or ((withdrawn or before != now) and not gone):
            fresh.append(i)
            days.append(now)
            continue
        if gone:
            lost.append(i)
        days.append(before)
    return Revision(tuple(days), tuple(fresh), tuple(lost))


def arrivals(before: MadeOf | None, now: Mapping[str, int], *, latest: bool) -> dict[str, Arrival]:
    """How each granule of a day that is made anew changes it; those it was made from are left out.

    Args:
        before: what the day was made from, None if it was not there.
        now: hours of each granule of the day, see `Listing.hours`.
        latest: whether the day lies after all days that had granules.
    """
    held = before.granules if before is not None else ()
    hours = before.held if before is not None else 0
    first = Arrival.NEW if latest else Arrival.LATE
    return {
        name: Arrival.REPLACED if own & hours else first
        for name, own in now.items()
        if name not in held
    }


def _hours_of(granule: Granule) -> dict[int, int]:
    """Hours of a granule's steps as bits, by day index."""
    hours = granule.hours or hours_of(np.array([granule.start, granule.last]))
    return {day - _FIRST_DAY: bits for day, bits in hours}


def _any_of(hours: Iterable[int]) -> int:
    found = 0
    for own in hours:
        found |= own
    return found
