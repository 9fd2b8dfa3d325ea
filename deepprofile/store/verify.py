"""Whether a cube is whole: every shard that it should have is there and can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import icechunk
import zarr
from dask.utils import format_bytes
from distributed import Client
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepprofile.store.cube import session_at
from deepprofile.store.faults import explained
from deepprofile.store.jobs import Progress, run_jobs
from deepprofile.store.ledger import commits_in
from deepprofile.store.messages import cause
from deepprofile.store.pieces import Piece, Pieces
from deepprofile.store.repository import MAIN, ConflictError, exclusive, open_group, open_repository
from deepprofile.store.shard_check import Checked, CheckJob, check_shards
from deepprofile.store.shard_grid import (
    data_arrays,
    expected_shards,
    newest_with,
    place_of,
    places_with_land,
    present_shards,
)
from deepprofile.store.template import array_of, dimension_names
from deepprofile.store.writer import Shard

_SHOWN = 50
_GROUPS, _QUICK_GROUPS = 16, 256  # places and stretches of time that one job checks
REPAIR = "run `deepprofile verify --repair` on the cube, then the stage {stage} again"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a cube.

    Attributes:
        shard: array and position; None for what is no shard of data.
        where: the same for people, with tile and block.
        what: what is wrong.
        piece: the piece of the ledger that holds it; None if the ledger knows none.
        advice: what to do.
    """

    shard: Shard | None
    where: str
    what: str
    piece: Piece | None
    advice: str


@dataclass(frozen=True)
class ArrayCheck:
    """What was checked of one array.

    Attributes:
        name: of the array.
        expected: shards that it should have.
        present: shards that it lists.
        stored_bytes: their stored size.
        values: values that are there (not NaN), and all that were read; None in a quick check.
    """

    name: str
    expected: int
    present: int
    stored_bytes: int
    values: tuple[int, int] | None


@dataclass(frozen=True)
class Verification:
    """What was found; a sound cube has no problems."""

    url: str
    snapshot_id: str
    quick: bool
    arrays: list[ArrayCheck]
    problems: list[Problem]


def verify(
    url: str | Path, *, client: Client, quick: bool = False, on_progress: Progress | None = None
) -> Verification:
    """Check the newest snapshot of a cube against its ledger, and every shard of it.

    Each shard is to be there, as long as it was written, with an index that fits; in full each
    chunk is decoded and its checksum compared, and values are checked beside the flags and numbers
    of steps. Inside the extent no shard may be missing where the ledger or other shards say that
    there is land.

    Args:
        url: local path or ``s3://bucket/prefix``.
        client: client of the cluster; a worker holds the shards of one tile and block.
        quick: read no data: 16 bytes for each chunk.
        on_progress: called with the numbers of ended and of all jobs.

    Raises:
        NotACubeError: if there is no cube.
        StoreError: if its metadata are damaged or the store fails, so that nothing can be checked.
    """
    with explained(url):
        return _verify(url, client, quick, on_progress)


def _verify(
    url: str | Path, client: Client, quick: bool, on_progress: Progress | None
) -> Verification:
    commits = commits_in(open_repository(url))
    session = session_at(url)
    group = open_group(session.store, url)
    problems = _coordinates(session, group)
    if problems:
        return Verification(str(url), session.snapshot_id, quick, [], problems)
    pieces = Pieces(group, commits)
    arrays = data_arrays(group)
    present = {name: present_shards(session, name) for name in arrays}
    places = places_with_land(group, commits) | pieces.places()
    expected = expected_shards(arrays, present, places, pieces.since)
    problems += [_hole(pieces, shard) for shard in expected if shard[1] not in present[shard[0]]]
    shards = [(name, position) for name in arrays for position in sorted(present[name])]
    found = _run(
        str(url), session.snapshot_id, _jobs(arrays, shards, quick), client, quick, on_progress
    )
    problems += [_damage(pieces, shard, what) for part in found for shard, what in part.problems]
    checks = [
        ArrayCheck(
            name,
            sum(shard[0] == name for shard in expected),
            len(present[name]),
            sum(part.bytes.get(name, 0) for part in found),
            None if quick else _values(found, name),
        )
        for name in arrays
    ]
    return Verification(str(url), session.snapshot_id, quick, checks, problems)


def repair(found: Verification) -> list[Piece]:
    """Note in the ledger that the pieces with problems are to be written again.

    The data stay as they are until the stages run again.

    Returns:
        The pieces; problems without one are left.

    Raises:
        ConflictError: if somebody is publishing, or has published since the cube was verified.
    """
    wrong: dict[Piece, list[str]] = {}
    for problem in found.problems:
        if problem.piece is not None:
            wrong.setdefault(problem.piece, []).append(f"{problem.where}: {problem.what}")
    with explained(found.url), exclusive(found.url):
        repository = open_repository(found.url)
        head = repository.lookup_branch(MAIN)
        if head != found.snapshot_id:
            raise ConflictError(
                f"{found.url}: somebody has published since the cube was verified ({MAIN} was at "
                f"{found.snapshot_id}, now it is at {head}). Verify it again."
            )
        kept = newest_with("without_land", commits_in(repository)).get("without_land")
        for stage in sorted({piece.stage for piece in wrong}):
            names = {piece.name: lines[0] for piece, lines in wrong.items() if piece.stage == stage}
            _withdraw(repository, found.url, stage, names, kept)
    return list(wrong)


def render_verification(found: Verification) -> RenderableType:
    """The result for a terminal (``rich.print``)."""
    how = "quick check, data not read" if found.quick else "every chunk read"
    table = Table("array", box=None, header_style="bold")
    for name in ("expected", "listed", "stored", "values there"):
        table.add_column(name, justify="right")
    for array in found.arrays:
        there, every = array.values or (0, 0)
        share = f"{100 * there / every:.1f} %" if every else "-"
        size = format_bytes(array.stored_bytes)
        table.add_row(array.name, str(array.expected), str(array.present), size, share)
    lines = [f"  {p.where}: {p.what}. To do: {p.advice}" for p in found.problems[:_SHOWN]]
    if len(found.problems) > _SHOWN:
        lines.append(f"  and {len(found.problems) - _SHOWN} more")
    title = f"Problems: {len(found.problems) or 'none'}"
    head = Text(f"{found.url}, snapshot {found.snapshot_id}: {how}")
    return Group(head, table, Text(title, style="bold"), *map(Text, lines))


def _coordinates(session: icechunk.Session, group: zarr.Group) -> list[Problem]:
    """Problems with coordinates, which are small and read here."""
    problems = []
    for name in sorted(set(group.array_keys()) - set(data_arrays(group))):
        try:
            _ = array_of(group, name)[...]
        except (icechunk.IcechunkError, ValueError, RuntimeError) as error:
            advice = "open an older snapshot, or write the cube anew in another place"
            problems.append(
                Problem(
                    None, f"coordinate {name}", f"can't be read: {cause(str(error))}", None, advice
                )
            )
    return problems


def _jobs(
    arrays: Mapping[str, zarr.Array[Any]], shards: Sequence[Shard], quick: bool
) -> list[CheckJob]:
    """Jobs of some groups each; a group holds the shards of one place and stretch of time."""
    groups: dict[tuple[object, ...], list[Shard]] = {}
    for name, position in shards:
        array = arrays[name]
        at = dict(zip(dimension_names(array), position, strict=True))
        groups.setdefault((place_of(array, position), at.get("time")), []).append((name, position))
    every, size = [tuple(part) for part in groups.values()], _QUICK_GROUPS if quick else _GROUPS
    return [CheckJob(f"shards {i}", tuple(every[i : i + size])) for i in range(0, len(every), size)]


def _run(
    url: str,
    snapshot: str,
    jobs: list[CheckJob],
    client: Client,
    quick: bool,
    on_progress: Progress | None,
) -> list[Checked]:
    done, failed = run_jobs(
        client, check_shards, jobs, args=(url, snapshot, quick), on_done=on_progress
    )
    lost = [
        Checked([(shard, f"could not be checked: {failure.error}") for shard in shards], {}, {})
        for failure in failed
        for shards in failure.job.groups
    ]
    return [result for _, result in done] + lost


def _values(found: list[Checked], name: str) -> tuple[int, int]:
    counts = [part.counts.get(name, (0, 0)) for part in found]
    return sum(there for there, _ in counts), sum(every for _, every in counts)


def _hole(pieces: Pieces, shard: Shard) -> Problem:
    piece = pieces.of(shard)
    if pieces.is_done(piece) and piece is not None:
        what = f"missing, although the ledger says that {piece.name!r} of {piece.stage} is done"
        return Problem(shard, pieces.where(shard), what, piece, REPAIR.format(stage=piece.stage))
    stage = f"the stage {piece.stage}" if piece else "the stage that writes this cube"
    what = "a hole: inside the extent, and never written"
    return Problem(shard, pieces.where(shard), what, None, f"run {stage} again")


def _damage(pieces: Pieces, shard: Shard, what: str) -> Problem:
    piece = pieces.of(shard)
    if piece is None:
        advice = "the ledger does not know who wrote it: run the stage that writes this cube again"
    elif pieces.is_done(piece):
        advice = REPAIR.format(stage=piece.stage)
    else:
        advice = f"run the stage {piece.stage} again: the piece {piece.name!r} is not done"
    return Problem(shard, pieces.where(shard), what, piece, advice)


def _withdraw(
    repository: icechunk.Repository,
    url: str,
    stage: str,
    names: dict[str, str],
    without_land: object,
) -> None:
    """Commit that some pieces of a stage are to be written again."""
    session = repository.writable_session(MAIN)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    open_group(session.store, url).update_attributes({"date_modified": now})
    noted = {} if without_land is None else {"without_land": without_land}
    failed = [{"job": n, "error": f"verify: {why}", "entries": [n]} for n, why in names.items()]
    metadata = {"stage": stage, "withdrawn": list(names), "failed": failed, **noted}
    try:
        session.commit(f"verify: {len(names)} pieces to be written again", metadata)
    except icechunk.ConflictError as error:
        raise ConflictError(
            f"{url}: somebody else has published meanwhile. Verify the cube again."
        ) from error
