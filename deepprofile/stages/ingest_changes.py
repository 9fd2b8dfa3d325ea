"""What an ingest changed in the cube of a product, as numbers and as one line."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise

from deepprofile.stages.ingest_days import Arrival
from deepprofile.store import JobFailure

_SHOWN = 4  # ranges of days that a line writes out


@dataclass(frozen=True)
class News:
    """What the jobs of a block bring, known before they run.

    Attributes:
        granules: how each granule changes the cube, by its hash.
        added: days that get their first values.
        remade: days with values that are made anew.
    """

    granules: Mapping[str, Arrival] = field(default_factory=dict)
    added: frozenset[date] = frozenset()
    remade: frozenset[date] = frozenset()


@dataclass(frozen=True)
class Changes:
    """What an ingest changed in the cube of a product.

    Attributes:
        product: name of the product.
        jobs: number of jobs that were run; 0 where everything was there already.
        new: granules of days after all that the cube held.
        late: granules that fill hours of earlier days.
        replaced: granules that took the place of others of the same hours.
        set_aside: files that were not used and had not been set aside before.
        added: days that got their first values.
        remade: days that were made anew.
        lost: days that stay as published although granules they were made of are gone.
        kept: days that stay as published although others of their granules have come, as one of
            these can't be read.
        failed: the jobs that failed; what they would have changed is counted nowhere here.
        snapshot_id: the snapshot that readers see now.
    """

    product: str
    jobs: int = 0
    new: int = 0
    late: int = 0
    replaced: int = 0
    set_aside: int = 0
    added: tuple[date, ...] = ()
    remade: tuple[date, ...] = ()
    lost: tuple[date, ...] = ()
    kept: tuple[date, ...] = ()
    failed: tuple[JobFailure, ...] = ()
    snapshot_id: str = ""

    @property
    def line(self) -> str:
        """The changes in one line."""
        counts = {
            "new": self.new,
            "late": self.late,
            "replaced": self.replaced,
            "set aside": self.set_aside,
        }
        granules = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        parts = [
            f"granules {granules}" if granules else "",
            f"days added {spans(self.added)}" if self.added else "",
            f"days made anew {spans(self.remade)}" if self.remade else "",
            f"days without their granules kept {spans(self.lost)}" if self.lost else "",
            f"days with unreadable granules kept {spans(self.kept)}" if self.kept else "",
            f"{len(self.failed)} of {self.jobs} jobs failed" if self.failed else "",
        ]
        said = "; ".join(part for part in parts if part)
        if not self.jobs:
            return f"{self.product}: all there already{f'; {said}' if said else ''}"
        return f"{self.product}: {said or 'nothing new'} ({self.jobs} jobs)"


def summarise_news(
    news: Iterable[News],
) -> tuple[dict[Arrival, int], tuple[list[date], list[date]]]:
    """Numbers of granules by what they do, and the days that were added and made anew."""
    granules: dict[str, Arrival] = {}
    added: set[date] = set()
    remade: set[date] = set()
    for item in news:
        for name, arrival in item.granules.items():
            granules[name] = max(arrival, granules.get(name, arrival))
        added |= item.added
        remade |= item.remade
    counts = {kind: list(granules.values()).count(kind) for kind in Arrival}
    return counts, (sorted(added), sorted(remade - added))


def spans(days: Sequence[date]) -> str:
    """Days as ranges: ``2015-03-31 to 2015-04-02, 2015-04-07 (4 days)``."""
    ordered = sorted(days)
    if not ordered:
        return "none"
    one = timedelta(days=1)
    starts = [ordered[0], *(b for a, b in pairwise(ordered) if b - a != one)]
    ends = [*(a for a, b in pairwise(ordered) if b - a != one), ordered[-1]]
    named = [
        f"{first}" if first == last else f"{first} to {last}"
        for first, last in zip(starts, ends, strict=True)
    ]
    more = [f"and {len(named) - _SHOWN} more ranges"] if len(named) > _SHOWN else []
    number = f" ({len(ordered)} days)" if len(ordered) > 1 else ""
    return ", ".join(named[:_SHOWN] + more) + number
