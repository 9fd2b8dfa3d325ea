"""What every stage is given, and where each stage's output lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from distributed import Client
from rich.console import Console

from deepprofile.recipe import Recipe
from deepprofile.store.memory import Need


@dataclass(frozen=True)
class Paths:
    """Places under the root of a recipe; each is a URL or a local path."""

    root: str

    def _join(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    @property
    def earth(self) -> str:
        """Product files, stations and truth of the demo Earth."""
        return self._join("earth")

    @property
    def truth(self) -> str:
        """The demo Earth's truth, against which every claim can be checked."""
        return self._join("earth/truth.nc")

    def product(self, name: str) -> str:
        """Cube of a product's daily fields."""
        return self._join(f"cubes/{name}")

    @property
    def static(self) -> str:
        """Cube of the land mask and the auxiliary features."""
        return self._join("cubes/static")

    @property
    def collocation(self) -> str:
        """Cube of error variances and weights."""
        return self._join("cubes/collocation")

    @property
    def collocation_parts(self) -> str:
        """Folder of the statistics from which the next collocation goes on, and of its maps."""
        return self._join("collocation")

    @property
    def samples(self) -> str:
        """Cube of the training series, cell by cell."""
        return self._join("cubes/samples")

    @property
    def coefficients(self) -> str:
        """Cube of the profile's coefficients, the product of the whole."""
        return self._join("cubes/coefficients")

    @property
    def ground_truth(self) -> str:
        """Daily station readings per cell and depth group."""
        return self._join("ground_truth.zarr")

    @property
    def cells(self) -> str:
        """Table of the chosen cells, a Parquet file."""
        return self._join("cells.parquet")

    @property
    def model(self) -> str:
        """Folder of the trained model and its loss history."""
        return self._join("model")

    @property
    def report(self) -> str:
        """Folder of the report, its figures and tables."""
        return self._join("report")


@dataclass(frozen=True)
class Context:
    """A running recipe.

    Attributes:
        recipe: the recipe.
        client: client of the cluster.
        console: where stages say what they do.
        retry_failed: whether stages run only jobs that failed before and are not done since.
    """

    recipe: Recipe
    client: Client
    console: Console
    retry_failed: bool = False

    @property
    def paths(self) -> Paths:
        """Where things lie."""
        return Paths(self.recipe.root)


WORKER_MEMORY = 540_000_000
"""Memory of a worker that has done nothing yet: the resident memory (540 MB) of a fresh process of
`deepprofile.connect("local")` once ``import deepprofile.stages`` has run on it."""


@dataclass(frozen=True)
class Plan:
    """What a stage would do, known without touching data.

    Attributes:
        jobs: number of jobs on Dask.
        bytes_read: uncompressed bytes that all jobs read.
        bytes_written: uncompressed bytes that all jobs write.
        job_memory: predicted peak memory of one job in bytes, beside that of its worker.
        note: what the numbers rest on.
        work: units of work by kind: those of `deepprofile.rates.UNITS` (``engine``,
            ``series``, ``read``, ``write``, ``collocate``, ``bootstrap``, ``train``), whose rates
            can be measured, and ``decode`` (raw bytes to write from granules), for which there is
            no rate.
        worker_memory: memory of a worker in bytes before its jobs.
        append_read: uncompressed bytes that a day's append reads; 0 where there is no such thing.
        append_written: most bytes that a day's append writes, whatever the values.
        most_memory: the same as ``job_memory`` for a job that takes all memory of use to it; the
            work is that of such a job. 0: jobs take what they take.
        at_once: jobs that a worker has at once at most; 0: as many as it has threads.
    """

    jobs: int
    bytes_read: int
    bytes_written: int
    job_memory: int
    note: str = ""
    work: Mapping[str, float] = field(default_factory=dict)
    worker_memory: int = WORKER_MEMORY
    most_memory: int = 0
    append_read: int = 0
    append_written: int = 0
    at_once: int = 0

    def need(self, stage: str) -> Need:
        """Memory that a worker needs for the jobs of a stage, of which this is the plan."""
        n_jobs = self.at_once or self.jobs or None
        return Need(stage, self.job_memory, self.worker_memory, n_jobs)


class StageError(Exception):
    """A stage that can't go on; the message says what was found and what to do."""


class FailedJobsError(StageError):
    """Jobs of a stage failed; what the others made is published."""
