"""How a stage publishes: progress, provenance, and what failed or was set aside, said aloud."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from deepprofile import __version__
from deepprofile.progress import meter
from deepprofile.stages.context import Context
from deepprofile.store import Outcome, Template, history, publish
from deepprofile.store.jobs import Job

_LIBRARIES = ("dask", "icechunk", "numpy", "torch", "xarray", "zarr")


def versions() -> dict[str, str]:
    """Versions of the package, of Python and of the libraries that shape the results."""
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"deepprofile": __version__, "python": platform.python_version(), **libraries}


def inputs_of(cubes: Iterable[str], *settings: str) -> str:
    """Fingerprint of what a stage's result depends on: cubes as published now, and settings."""
    parts = [f"{url} {history(url)[0].snapshot_id}" for url in cubes]
    return sha256("\n".join([*parts, *settings]).encode()).hexdigest()[:16]


def publish_stage(
    context: Context,
    url: str,
    template: Template,
    function: Callable[..., Any],
    jobs: Sequence[Job],
    *,
    stage: str,
    what: str,
    n_days: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    summarise: Callable[[list[tuple[Any, Any]]], Mapping[str, Any]] | None = None,
) -> Outcome:
    """Publish the jobs of a stage with progress, and print those that failed.

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
    """
    recipe = context.recipe
    with meter(context.console, what, len(jobs)) as progress:
        outcome = publish(
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
            on_progress=lambda done, _: progress.update(done),
        )
    for failure in outcome.failed:
        context.console.print(
            f"  [red]failed[/red] {failure.job.key}: {failure.error}. "
            "The rest is published; run the stage again to repeat this job.",
            highlight=False,
        )
    return outcome
