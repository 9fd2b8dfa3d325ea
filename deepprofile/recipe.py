"""Recipes: what to run, as one validated YAML file."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from deepprofile import places
from deepprofile.documents import RecipeError, explained, read_document
from deepprofile.products import PRODUCTS
from deepprofile.profile import N_COEFFICIENTS
from deepprofile.store.layout import EPOCH, Region, day_index

__all__ = ["Recipe", "RecipeError", "load_recipe"]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, strict=True)]
PLACEHOLDER = re.compile(r"\{\w+\}")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
POOLING = 40
"""Days that the network's four stages pool into one: a window is a multiple of it."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bounds(_Section):
    """A box in degrees; the cubes cover all tiles that it touches."""

    west: Annotated[float, Field(ge=-180, le=180)] = -180.0
    south: Annotated[float, Field(ge=-90, le=90)] = -90.0
    east: Annotated[float, Field(ge=-180, le=180)] = 180.0
    north: Annotated[float, Field(ge=-90, le=90)] = 90.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.west >= self.east or self.south >= self.north:
            raise ValueError("expected west < east and south < north")
        return self

    def holds(self, longitude: Any, latitude: Any) -> Any:
        """Whether points (arrays of degrees) lie in the box."""
        return (
            (longitude >= self.west)
            & (longitude <= self.east)
            & (latitude >= self.south)
            & (latitude <= self.north)
        )


def last_full_day() -> date:
    """Yesterday, UTC."""
    return datetime.now(UTC).date() - timedelta(days=1)


class Period(_Section):
    """First and last day, both included; without an end it grows day by day up to yesterday."""

    start: date = EPOCH
    end: date = Field(default_factory=last_full_day)

    @field_validator("start", "end", mode="before")
    @classmethod
    def _written_as_a_date(cls, value: object) -> object:
        if not isinstance(value, str | date) or not DATE.fullmatch(str(value)):
            raise ValueError(f"found {value!r}; expected a day as YYYY-MM-DD, such as 2016-02-29")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.start < EPOCH:
            raise ValueError(f"start {self.start} is before the first day of SMAP L4, {EPOCH}")
        if self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")
        return self

    @property
    def grows(self) -> bool:
        """Whether no end was given: `deepprofile daily` decides."""
        return "end" not in self.model_fields_set

    @property
    def days(self) -> slice:
        """Day indices counted from the epoch of the cubes."""
        return slice(day_index(self.start), day_index(self.end) + 1)


class Synthetic(_Section):
    """The demo Earth: product files are made before they are read."""

    seed: Seed = 1
    hard: bool = False
    size: Annotated[int, Field(ge=8, le=32)] | None = None


class ProductSource(_Section):
    """Where the granules of a product lie."""

    url: str


class Sources(_Section):
    """A file or folder that may be given several times, the preferred first."""

    urls: Annotated[list[str], Field(min_length=1)]


class Stations(_Section):
    """Readings of stations: archives of the ISMN, and tables for other networks."""

    urls: list[str] = []
    tables: list[str] = []

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not self.urls and not self.tables:
            raise ValueError("neither urls nor tables are given; leave the section out")
        return self


class Ingest(_Section):
    """How granules become daily fields."""

    min_fraction: Fraction = 0.75
    blocks_per_commit: Count = 1


class Collocation(_Section):
    """Triple collocation on the 0-100 cm column."""

    products: Annotated[list[str], Field(min_length=3, max_length=3)] = [
        "smap_l4",
        "era5_land",
        "gldas",
    ]
    scale: dict[str, Positive] = {"gldas": 0.4}
    min_samples: Annotated[int, Field(ge=3)] = 100
    bootstrap: Annotated[int, Field(ge=0, strict=True)] = 200
    bootstrap_cells: Count | Literal["all"] = 300
    block_days: Count = 60
    anomalies: Annotated[bool, Field(strict=True)] = False
    extended: Annotated[bool, Field(strict=True)] = False
    seed: Seed = 1

    @model_validator(mode="after")
    def _replicates(self) -> Self:
        if self.bootstrap == 1:
            raise ValueError("bootstrap 1: one replicate has no spread; expected 0 (none) or more")
        return self


class Split(_Section):
    """Shares of the extra and other cells; the rest validates, and so do all core cells."""

    train: Fraction = 0.5
    candidate: Fraction = 0.3

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.train + self.candidate >= 1.0:
            raise ValueError("train + candidate must leave cells for validation (sum below 1)")
        return self


class ClassMap(_Section):
    """A map of static classes of cells."""

    url: str
    legend: Literal["igbp", "koppen_geiger", "hwsd"]
    table: str | None = None

    @model_validator(mode="after")
    def _table(self) -> Self:
        if (self.legend == "hwsd") != (self.table is not None):
            raise ValueError("table: the legend hwsd needs one, HWSD2_LAYERS.csv, and no other has")
        return self


class GroundTruth(_Section):
    """Station readings as daily ground truth."""

    good_flags: list[str] = ["G"]
    min_fraction: Fraction = 0.75
    min_days: Count = 180
    min_depth: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.10
    core_stations: Count = 3
    class_maps: dict[Literal["land_cover", "climate", "texture"], ClassMap] = {}


class Sample(_Section):
    """Which cells and days the network learns from."""

    other_cells: Annotated[int, Field(ge=0)] = 2500
    other_outside: Bounds | None = Bounds(west=-125.0, south=24.5, east=-66.5, north=49.5)
    split: Split = Split()
    allow_core_neighbours: Annotated[bool, Field(strict=True)] = False
    max_gap_days: Annotated[int, Field(ge=0)] = 3
    seed: Seed = 1


class Training(_Section):
    """Network and training; the defaults are the paper's."""

    window: Annotated[int, Field(ge=POOLING, multiple_of=POOLING, strict=True)] = 360
    n_coefficients: Annotated[int, Field(ge=2, le=20)] = N_COEFFICIENTS
    smoothness: Annotated[float, Field(ge=0.0)] = 2e-4
    epochs: Count = 50
    samples_per_epoch: Count | None = None
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Positive = 1e-3
    average_last: Count = 5
    validation_samples: Count = 4096
    candidates: Fraction = 0.0
    small_heads: Annotated[bool, Field(strict=True)] = True
    seed: Seed = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Count = 1

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.batch_size % self.processes:
            raise ValueError(
                f"batch_size {self.batch_size} can't be shared equally by {self.processes} "
                "processes: expected a multiple of their number"
            )
        return self

    @model_validator(mode="after")
    def _average(self) -> Self:
        if self.average_last > self.epochs:
            raise ValueError(f"average_last {self.average_last} exceeds epochs {self.epochs}")
        for name in ("samples_per_epoch", "validation_samples"):
            found = getattr(self, name)
            if found is not None and found < self.batch_size:
                raise ValueError(f"{name} {found} is less than one batch of {self.batch_size}")
        return self


class Predict(_Section):
    """Where and how the network runs over the whole region."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    blocks_per_job: Count = 24
    allow_missing_features: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        only = {"tf32": "cuda", "bfloat16": "cpu"}.get(self.precision, self.device)
        if self.device not in ("auto", only):
            raise ValueError(
                f"precision {self.precision} is there on {only} only, and device is {self.device}"
            )
        return self


class Evaluate(_Section):
    """What the report compares."""

    min_days: Count = 90
    min_cells: Count = 20
    replicates: Annotated[int, Field(ge=0, strict=True)] = 200
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    climatology: bool = True


class Recipe(_Section):
    """Everything that one run needs; see docs/recipe.md."""

    name: Annotated[str, Field(min_length=1)]
    root: str
    period: Period
    region: Bounds | None = None
    synthetic: Synthetic | None = None
    products: dict[str, ProductSource]
    terrain: Sources | None = None
    stations: Stations | None = None
    ingest: Ingest = Ingest()
    collocation: Collocation = Collocation()
    ground_truth: GroundTruth = GroundTruth()
    sample: Sample = Sample()
    training: Training = Training()
    predict: Predict = Predict()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = sorted(set(self.products) - set(PRODUCTS))
        if unknown:
            raise ValueError(f"products: {unknown} have no reader; there are {sorted(PRODUCTS)}")
        if "smap_l4" not in self.products:
            raise ValueError("products: smap_l4 is missing; the network reads its variables")
        if len(set(self.collocation.products)) != 3:
            raise ValueError("collocation.products: expected three different products")
        if self.region is not None:
            _ = self.tiles
        if self.period.grows and self.synthetic is not None:
            raise ValueError("period.end: is missing; a synthetic Earth has a last day")
        if not self.period.grows:
            self._whole_chain()
        return self

    def _whole_chain(self) -> None:
        """Raise ValueError unless all stages can run; a period that grows is ingested and predicted
        alone.
        """
        if self.terrain is None:
            raise ValueError("terrain: is missing and must be given")
        n_days = self.period.days.stop - self.period.days.start
        if n_days < self.collocation.min_samples:
            raise ValueError(
                f"period has {n_days} days, fewer than collocation.min_samples "
                f"{self.collocation.min_samples}: no cell could be valid"
            )
        absent = [p for p in self.collocation.products if p not in self.products]
        if absent:
            raise ValueError(f"collocation.products: {absent} are not among products")
        stray = sorted(set(self.collocation.scale) - set(self.collocation.products))
        if stray:
            raise ValueError(f"collocation.scale: {stray} are not among collocation.products")

    @property
    def tiles(self) -> Region:
        """The region of whole tiles that the cubes cover."""
        if self.region is None:
            return Region.globe()
        box = self.region
        return Region.from_bounds(box.west, box.south, box.east, box.north)

    def digest(self, *sections: str) -> str:
        """The named sections as canonical JSON, for ledgers and attributes."""
        document = self.model_dump(mode="json", include=set(sections) or None)
        return json.dumps(document, sort_keys=True)


Model = TypeVar("Model", bound=BaseModel)


def load_recipe(path: str | Path, root: str | None = None) -> Recipe:
    """Read and validate a recipe.

    ``{root}`` in a URL stands for the recipe's root. A relative root is taken from the current
    folder, so that workers started elsewhere find the same place.

    Args:
        path: a YAML file; see ``pipelines/`` and docs/recipe.md.
        root: instead of the root that the file names.

    Returns:
        The validated recipe.

    Raises:
        RecipeError: if the file can't be read or a key or value is not allowed. The message
            names file and key, what was found and what is allowed.
    """
    return load_rooted(Path(path), root, Recipe, "name, root, period")


def load_rooted(file: Path, root: str | None, model: type[Model], keys: str) -> Model:
    """Read and validate a file with a root, on which its other URLs may build.

    Args:
        file: a YAML file.
        root: instead of the root that the file names.
        model: what the file holds.
        keys: some of the expected keys, for the message about a file that holds no mapping.

    Raises:
        RecipeError: see `load_recipe`.
    """
    document = read_document(file, keys)
    document = document if root is None else {**document, "root": root}
    with explained(file, model):
        if problems := list(_wrong_urls(document)):
            raise places.PlaceError("; ".join(problems))
        return model.model_validate(_resolved(document))


def _wrong_urls(value: Any, key: str = "") -> Iterator[str]:
    """What is wrong with URLs, wherever in a recipe; no text of it may name credentials."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _wrong_urls(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _wrong_urls(item, f"{key}[{i}]")
    elif isinstance(value, str) and "://" in value:
        try:
            places.check_url(value)
        except places.PlaceError as error:
            yield f"{key}: {error}"


def _below(value: str, root: str) -> str:
    """A text with the root in place of ``{root}``, from which no ``..`` leads out again."""
    filled = value.replace("{root}", root)
    if PLACEHOLDER.search(filled):
        raise ValueError(f"{value!r} has an unknown placeholder; there is only {{root}}")
    if filled != value and ".." in value.split("/"):
        raise ValueError(f"{value!r} leads out of the root; give the whole path instead")
    return filled


def _resolved(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its root as a whole path, also in place of ``{root}``."""
    root = document.get("root")
    if not isinstance(root, str):
        return document
    if not root.strip():
        raise ValueError(
            "root: is empty, in the file or as --root (a shell variable that is not set?); "
            "expected a folder or s3://BUCKET/PREFIX"
        )
    if "://" not in root:
        root = str(Path(root).expanduser().resolve())

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return _below(value, root)
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value

    return {**fill(document), "root": root}
