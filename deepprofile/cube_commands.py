"""Commands that look after single cubes: inspect, verify, publish, gc."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from dask.utils import format_bytes
from rich.console import Console

from deepprofile import places
from deepprofile.cluster import LOCAL, connected
from deepprofile.events import RecordConsole
from deepprofile.exit_codes import COMMAND_CODES, VERIFY_CODES
from deepprofile.model.configuration import DESCRIPTION
from deepprofile.operators.logs import LogFormat
from deepprofile.progress import meter
from deepprofile.store import (
    SAFETY,
    NotACubeError,
    copy_plain,
    describe,
    expire,
    render,
    render_verification,
    repair,
)
from deepprofile.store import verify as verify_cube
from deepprofile.store.pieces import Piece
from deepprofile.store.repository import open_repository

commands = typer.Typer()
FILE_WIDTH = 140
"""Columns of a table where the output is no terminal."""
PROBLEMS = 1
"""Exit code of `verify` for a cube that is not sound; 2 means that it could not be checked."""
COPY_LEFT = (
    "there is no whole copy. The same command begins anew; in an object store a part of the copy "
    "is left, which --overwrite replaces"
)
"""What an interrupted `publish` leaves."""
KEEP_DAYS = 30
CubeUrl = Annotated[str, typer.Argument(help="A cube: a local path or a URL such as s3://…")]
ClusterOption = Annotated[
    str, typer.Option(help="A file of cluster/, a scheduler's address, or 'local'.")
]


def terminal(log_format: LogFormat = LogFormat.TEXT) -> Console:
    """The terminal as it is; elsewhere lines wide enough for tables, and none of them broken.

    Where records take the place of lines, tables alone are printed.
    """
    if log_format == LogFormat.JSON:
        return RecordConsole(width=FILE_WIDTH, soft_wrap=True, force_terminal=False)
    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH, soft_wrap=True)


def details(log_format: LogFormat, verbose: bool) -> Console:
    """Where a daily run says what its stages do: nothing of it goes to standard output."""
    if log_format == LogFormat.JSON:
        return terminal(log_format)
    return Console(stderr=True, soft_wrap=True, quiet=not (verbose or sys.stderr.isatty()))


@commands.command(epilog=COMMAND_CODES)
def inspect(
    url: Annotated[str, typer.Argument(help="A cube or a model: a local path or s3://…")],
) -> None:
    """Show what is in a cube (extent, sizes, holes, failures, history) or a model's folder."""
    try:
        shown = render(describe(url))
    except NotACubeError:
        if not places.exists(f"{url}/{DESCRIPTION}"):
            raise
        # It imports torch, which takes seconds.
        from deepprofile.model.describe import render_model

        shown = render_model(url)
    terminal().print(shown)


@commands.command(epilog=VERIFY_CODES)
def verify(
    url: CubeUrl,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only presence and sizes; no data are read.")
    ] = False,
    mark: Annotated[
        bool,
        typer.Option("--repair", help="Note damaged pieces; the next run writes them again."),
    ] = False,
    cluster: ClusterOption = LOCAL,
) -> None:
    """Check that every shard of a cube is there and whole; exit code 1 if not."""
    console = terminal()
    open_repository(url)  # a wrong place is told before workers start
    with connected(cluster) as client, meter(console, "shards", 1) as progress:
        found = verify_cube(
            url,
            client=client,
            quick=quick,
            on_progress=lambda done, total: progress.update(done / total),
        )
    console.print(render_verification(found))
    if mark and found.problems:
        console.print(_noted(repair(found)), highlight=False, markup=False)
    if found.problems:
        raise typer.Exit(PROBLEMS)


def _noted(pieces: Sequence[Piece]) -> str:
    if not pieces:
        return "nothing was noted: no piece of the ledger holds what is wrong"
    names = ", ".join(f"{piece.stage}: {piece.name}" for piece in pieces)
    stages = " and ".join(dict.fromkeys(piece.stage for piece in pieces))
    return f"noted, to be written again by the stage {stages}: {names}"


@commands.command(epilog=COMMAND_CODES)
def publish(
    url: CubeUrl,
    output: Annotated[str, typer.Argument(help="Where the copy goes: a local path or s3://…")],
    snapshot: Annotated[
        str | None, typer.Option(help="A snapshot's identity, 2016-08-15 or 2016-08-15T12:00.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier copy.")
    ] = False,
    cluster: ClusterOption = LOCAL,
) -> None:
    """Copy a cube to plain Zarr, for readers that have xarray alone."""
    console = terminal()
    open_repository(url)  # a wrong place is told before workers start
    with connected(cluster, COPY_LEFT) as client, meter(console, "copying", 1) as progress:
        copied = copy_plain(
            url,
            output,
            client=client,
            snapshot=snapshot,
            overwrite=overwrite,
            on_progress=lambda done, total: progress.update(done / total),
        )
    text = f"snapshot {copied.snapshot_id}: {copied.shards} shards, {format_bytes(copied.bytes)}"
    console.print(f"{text}, in {output}", highlight=False, markup=False)


@commands.command(epilog=COMMAND_CODES)
def gc(
    url: CubeUrl,
    keep_days: Annotated[
        int, typer.Option(min=0, help="What readers saw in the last days stays.")
    ] = KEEP_DAYS,
    before: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Instead of days: this UTC day, from its start."),
    ] = None,
    safety_hours: Annotated[
        float,
        typer.Option(min=1, help="In object stores younger objects stay; longer than any run."),
    ] = SAFETY / timedelta(hours=1),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Expire old snapshots of a cube and free their space; ledger and newest data stay."""
    moment = datetime.now(UTC) - timedelta(days=keep_days)
    if before is not None:
        moment = before.replace(tzinfo=UTC)
    done = expire(url, moment, dry_run=dry_run, safety=timedelta(hours=safety_hours))
    verb = "would be " if done.dry_run else ""
    text = (
        f"{_count(len(done.snapshots), 'snapshot')} {verb}expired, "
        f"{_count(done.objects, 'object')} {verb}deleted, {format_bytes(done.bytes)} {verb}freed"
    )
    if done.kept_hours:
        text += f"; whatever is younger than {done.kept_hours:g} hours stays (--safety-hours)"
    if done.oldest is not None:
        text += f"; the oldest that opens is {done.oldest.snapshot_id}"
        text += f" of {done.oldest.time:%Y-%m-%d %H:%M} UTC"
    terminal().print(text, highlight=False, markup=False)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
