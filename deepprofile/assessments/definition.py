"""What an assessment is: station data, estimates, and what is compared with what."""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deepprofile.evaluation.estimates.climatology import CLIMATOLOGY
from deepprofile.evaluation.estimates.sensor import DEPTH
from deepprofile.evaluation.reference.depths import DEPTH_GROUPS, depth_group
from deepprofile.evaluation.skill.summaries import CLASS_CELLS
from deepprofile.evaluation.skill.tables import MIN_DAYS
from deepprofile.evaluation.skill.uncertainty import LEVEL
from deepprofile.recipe import (
    DATE,
    Count,
    GroundTruth,
    Positive,
    Seed,
    Stations,
    load_rooted,
)
from deepprofile.stages.compare import MEAN, TC_MEAN

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Days(_Section):
    """First and last day of the station data, both included; without one all that there is."""

    start: date | None = None
    end: date | None = None

    @field_validator("start", "end", mode="before")
    @classmethod
    def _written_as_a_date(cls, value: object) -> object:
        if value is not None and not DATE.fullmatch(str(value)):
            raise ValueError(f"found {value!r}; expected a day as YYYY-MM-DD, such as 2016-02-29")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start and self.end and self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")
        return self


class Sensor(_Section):
    """The stations' own reading at one depth as the estimate of all other depths."""

    name: Name
    kind: Literal["sensor"]
    depth: float = DEPTH

    @field_validator("depth")
    @classmethod
    def _grouped(cls, depth: float) -> float:
        if depth_group(depth, depth) is None:
            known = ", ".join(group.name for group in DEPTH_GROUPS)
            raise ValueError(f"found {depth:g} m; expected metres within one of {known}")
        return depth


class Neighbour(_Section):
    """The nearest other station cell as the estimate of a cell."""

    name: Name
    kind: Literal["neighbour"]
    max_distance_km: Positive | None = None


class Cube(_Section):
    """A cube of this project: layers of a product, or coefficients of profiles."""

    name: Name
    kind: Literal["cube"]
    url: str


class Table(_Section):
    """A CSV or Parquet file of daily values."""

    name: Name
    kind: Literal["table"]
    url: str


Estimated = Annotated[Sensor | Neighbour | Cube | Table, Field(discriminator="kind")]


class Weighted(_Section):
    """A mean with the weights of triple collocation, by product the estimate that stands for it."""

    url: str
    members: Annotated[dict[str, str], Field(min_length=1)]


class Baselines(_Section):
    """Estimates that are made of others, or of the stations' own past."""

    mean: list[str] = []
    tc_mean: Weighted | None = None
    climatology: Annotated[bool, Field(strict=True)] = True

    @property
    def means(self) -> dict[str, list[str]]:
        """Names of the means in the order of tables, with those of their members."""
        weighted = list(self.tc_mean.members.values()) if self.tc_mean else []
        found = {MEAN: self.mean, TC_MEAN: weighted}
        return {name: members for name, members in found.items() if members}


class Evaluate(_Section):
    """How series are compared; see docs/evaluation.md."""

    min_days: Count = MIN_DAYS
    min_cells: Count = CLASS_CELLS
    replicates: Annotated[int, Field(ge=0, strict=True)] = 0
    level: Annotated[float, Field(gt=0.0, lt=1.0)] = LEVEL
    seed: Seed = 0


class Definition(_Section):
    """Everything that one assessment needs; see docs/assessments.md."""

    name: Annotated[str, Field(min_length=1)]
    root: str
    period: Days = Days()
    stations: Stations
    ground_truth: GroundTruth = GroundTruth()
    estimates: Annotated[list[Estimated], Field(min_length=1)]
    baselines: Baselines = Baselines()
    subject: str
    products: list[str] = []
    samples: str | None = None
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [estimate.name for estimate in self.estimates]
        means = self.baselines.means
        taken = [*means, *([CLIMATOLOGY] if self.baselines.climatology else [])]
        twice = sorted(name for name, count in Counter(given).items() if count > 1)
        if twice:
            raise ValueError(f"estimates: {', '.join(twice)}: the name stands twice; rename one")
        reserved = sorted(set(given) & set(taken))
        if reserved:
            raise ValueError(
                f"estimates: {', '.join(reserved)}: the name of a baseline; rename the estimate"
            )
        for name, members in means.items():
            _among(f"baselines.{name}", members, given)
        _among("subject", [self.subject], [*given, *means])
        layered = [one.name for one in self.estimates if isinstance(one, Cube | Table)]
        _among("products", self.products, [name for name in layered if name != self.subject])
        return self

    @property
    def names(self) -> list[str]:
        """Names of all estimates in the order of tables."""
        return [*(estimate.name for estimate in self.estimates), *self.baselines.means]


def load_definition(path: str | Path, root: str | None = None) -> Definition:
    """Read and validate an assessment.

    ``{root}`` in a path stands for the root. Relative paths are taken from the folder in which the
    command is started, as in recipes.

    Args:
        path: a YAML file; see ``pipelines/assessments`` and docs/assessments.md.
        root: instead of the root that the file names.

    Raises:
        RecipeError: if the file can't be read or a key or value is not allowed. The message
            names file and key, what was found and what is allowed.
    """
    keys = "name, root, stations, estimates, subject"
    return load_rooted(Path(path), root, Definition, keys)


def _among(key: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    stray = sorted(set(names) - set(allowed))
    if stray:
        some = f"one of {', '.join(allowed)}" if allowed else "nothing: no estimate here can be it"
        raise ValueError(f"{key}: found {', '.join(stray)}; expected {some}")
