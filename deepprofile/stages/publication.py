"""How stages publish: what is outstanding, progress, provenance, and what failed."""

import platform
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any, TypeVar

from deepprofile import __version__
from deepprofile.progress import meter
from deepprofile.stages.context import Context, FailedJobsError
from deepprofile.store import JobFailure, Outcome, Template, WritingJob, head, publish
from deepprofile.store.failed_runs import dismiss
from deepprofile.store.ledger import commits_of, failed_pieces
from deepprofile.store.transaction import Audit

MAX_NAMED = 10
"""Failed jobs that an error names."""
AnyJob = TypeVar("AnyJob", bound=WritingJob)
_LIBRARIES = ("dask", "icechunk", "numpy", "torch", "xarray", "zarr")


def versions() -> dict[str, str]:
    """Versions of the package, of Python and of the libraries that shape the results."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"deepprofile": __version__, "python": platform.python_version(), **libraries}


def inputs_of(cubes: Iterable[str], *settings: str) -> str:
    """Fingerprint of what a stage's result depends on: cubes as published now, and settings."""
    return fingerprint_of([*(f"{url} {head(url)}" for url in cubes), *settings])


def fingerprint_of(parts: Iterable[str]) -> str:
    """Short hash of some texts in their order."""
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def outstanding(
    jobs: Iterable[AnyJob], done: Mapping[str, str], only: Container[str] | None = None
) -> list[AnyJob]:
    """Jobs with a piece that a cube does not hold with its fingerprint yet.

    Args:
        jobs: the jobs of a stage.
        done: what the cube holds, see `done_jobs`.
        only: names of the pieces that count, see `to_retry`; None: all.
    """
    return [
        job
        for job in jobs
        if any(
            done.get(name) != own and (only is None or name in only)
            for name, own in job.entries.items()
        )
    ]


def to_retry(context: Context, url: str, stage: str) -> set[str] | None:
    """Pieces to which a run that only repeats failed jobs is limited; None for any other run."""
    if not context.retry_failed:
        return None
    return failed_pieces(commits_of(url, stage)[::-1])


def stages_with_failures(context: Context, chosen: Iterable[str]) -> list[str]:
    """Those of some stages of which the ledgers of the cubes name jobs to repeat."""
    paths = context.paths
    cubes = {
        "ingest": [
            (paths.static, "static"),
            *((paths.product(name), "ingest") for name in context.recipe.products),
        ],
        "collocate": [(paths.collocation, "collocate")],
        "sample": [(paths.samples, "sample")],
        "predict": [(paths.coefficients, "predict")],
    }
    return [
        name
        for name in chosen
        if any(failed_pieces(commits_of(*cube)[::-1]) for cube in cubes.get(name, ()))
    ]


def forget_unplanned(url: str, stage: str, jobs: Iterable[WritingJob]) -> None:
    """Let the ledger forget failures that no run can repair, as nothing plans them any more.

    Args:
        url: the cube.
        stage: the stage that is about to run.
        jobs: all that it has to do, of which a failed piece that is still wanted is a part.
    """
    dismiss(url, stage, (name for job in jobs for name in job.entries))


def require_all(stage: str, failed: Sequence[JobFailure]) -> None:
    """Stop after a stage with failed jobs: what follows would be built on holes.

    Raises:
        FailedJobsError: if any job failed; what succeeded is published.
    """
    if failed:
        named = "\n".join(f"  {failure.job.key}: {failure.error}" for failure in failed[:MAX_NAMED])
        more = f"\n  and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
        raise FailedJobsError(
            f"{stage}: {len(failed)} jobs failed; the others are published.\n{named}{more}\n"
            "Run the stage again to repeat these, with --retry-failed these alone; "
            "`deepprofile inspect` lists them."
        )


def publish_stage(
    context: Context,
    url: str,
    template: Template,
    function: Callable[..., Any],
    jobs: Sequence[WritingJob],
    *,
    stage: str,
    what: str,
    planned_at: str,
    n_days: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    summarise: Callable[[list[tuple[Any, Any]]], Mapping[str, Any]] | None = None,
    audit: Audit | None = None,
) -> Outcome:
    """Publish the jobs of a stage with progress and provenance.

    Args:
        context: the running recipe.
        url: the cube.
        template: its structure.
        function: ``function(writer, job)``.
        jobs: what to run.
        stage: name of the stage, for the ledger.
        what: what the jobs make, for progress and the commit message.
        planned_at: the state of the cube for which the jobs were made, see `planned_head`; it is
            looked up before the ledger is read.
        n_days: length of the time axis, see `deepprofile.store.publish`.
        metadata: more for the ledger.
        summarise: see `deepprofile.store.publish`.
        audit: see `deepprofile.store.publish`.

    Raises:
        AllFailedError: if every job failed; another group of the stage may still succeed.
        CubeError: if the cube can't be published for another reason.
    """
    recipe = context.recipe
    with meter(context.console, what, len(jobs)) as progress:
        return publish(
            url,
            template,
            n_days,
            function,
            jobs,
            client=context.client,
            message=f"{stage}: {what}",
            metadata={
                "stage": stage,
                "recipe": recipe.name,
                "versions": versions(),
                **(metadata or {}),
            },
            summarise=summarise,
            audit=audit,
            planned_at=planned_at,
            on_progress=lambda done, _: progress.update(done),
        )
