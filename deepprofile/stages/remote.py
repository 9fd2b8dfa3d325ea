"""One long task on one worker, with its progress shown where the stage runs."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from distributed import get_worker

from deepprofile.events import JobCount
from deepprofile.progress import meter
from deepprofile.stages.context import Context

Report = Callable[[float, str], None]
"""Called in the worker with the share done (0-1) and a short note."""


def run_on_worker(
    context: Context,
    what: str,
    function: Callable[..., Any],
    *args: Any,
    workers: Sequence[str] | None = None,
    resources: Mapping[str, float] | None = None,
) -> Any:
    """Run ``function(report, *args)`` on a worker and return its result.

    Args:
        context: the running recipe.
        what: what is done, for the progress.
        function: importable on the workers.
        args: small.
        workers: addresses of the workers that may run it; None: all, also those that join later.
        resources: Dask resources that a worker must declare, also one that joins later; with
            these addresses do not count.
    """
    # No `allow_other_workers`: where all that are named are lost at once, Dask gives the task to
    # none that joins later (no-worker tasks are offered to the named ones alone).
    where = {"resources": dict(resources)} if resources else {"workers": workers}
    with shown(context, what) as topic:
        return context.client.submit(_call, topic, function, args, pure=False, **where).result()


@contextmanager
def shown(context: Context, what: str, n_tasks: int = 1) -> Iterator[str]:
    """Show what tasks report under a topic, which is yielded, see `reporter`.

    They count as jobs of the stage: all ended well, or one failed, which ends the others.
    """
    topic = f"deepprofile {what}"
    with closing(JobCount(n_tasks)) as count, meter(context.console, what, 100) as progress:
        context.client.subscribe_topic(
            topic, lambda event: progress.update(round(100 * event[1][0]), event[1][1])
        )
        try:
            yield topic
            for _ in range(n_tasks):
                count.done()
        except Exception as error:
            said = "".join(traceback.format_exception(error))
            count.failed(what, f"{type(error).__name__}: {error}", said)
            raise
        finally:
            context.client.unsubscribe_topic(topic)


def reporter(topic: str) -> Report:
    """In a task: what reports under a topic."""
    worker = get_worker()

    def report(share: float, note: str) -> None:
        worker.log_event(topic, (share, note))

    return report


def _call(topic: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return function(reporter(topic), *args)
