"""How stages publish: what is outstanding, progress, provenance, and what failed."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any, TypeVar

from deepprofile import __version__
from deepprofile.progress import meter
from deepprofile.stages.context import Context, StageError
from deepprofile.store import JobFailure, Outcome, Template, WritingJob, head, publish
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


def outstanding(jobs: Iterable[AnyJob], done: Mapping[str, str]) -> list[AnyJob]:
    """Jobs with a piece that a cube does not hold with its fingerprint yet; see `done_jobs`."""
    return [job for job in jobs if any(done.get(name) != own for name, own in job.entries.items())]


def require_all(stage: str, failed: Sequence[JobFailure]) -> None:
    """Stop after a stage with failed jobs: what follows would be built on holes.

    Raises:
        StageError: if any job failed; what succeeded is published.
    """
    if failed:
        named = "\n".join(f"  {failure.job.key}: {failure.error}" for failure in failed[:MAX_NAMED])
        more = f"\n  and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
        raise StageError(
            f"{stage}: {len(failed)} jobs failed; the others are published.\n{named}{more}\n"
            "Run the stage again to repeat these; `deepprofile inspect` lists them."
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
        n_days: length of the time axis, see `deepprofile.store.publish`.
        metadata: more for the ledger.
        summarise: see `deepprofile.store.publish`.
        audit: see `deepprofile.store.publish`.
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
            on_progress=lambda done, _: progress.update(done),
        )
