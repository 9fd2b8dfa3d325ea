"""What an experiment is: the recipe whose samples it uses, and the settings that its runs vary."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deepprofile.documents import explained, read_document
from deepprofile.recipe import Recipe, Training, load_recipe

MAX_RUNS = 1000
WHERE = ("device", "processes")
"""Keys that say where a training runs: all runs take the recipe's device, each in one process."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
Settings = dict[str, Any]


class Definition(BaseModel):
    """The file of an experiment.

    Attributes:
        name: of the experiment and of its folder below the recipe's root.
        recipe: path of the recipe, from the experiment's file.
        figure: how the runs are drawn: by the number of training cells, or by λ.
        training: keys of the recipe's section ``training`` that are the same in all runs.
        vary: keys of that section with the values that they take, in all combinations.
        also: further runs, each as the keys that it sets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME)]
    recipe: str
    figure: Literal["training_size", "smoothness"]
    training: Settings = {}
    vary: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    also: list[Settings] = []

    @model_validator(mode="after")
    def _of_training(self) -> Self:
        used = {*self.training, *self.vary, *(key for run in self.also for key in run)}
        allowed = set(Training.model_fields) - set(WHERE)
        unknown = sorted(used - allowed)
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: only these keys of the recipe's section training can be "
                f"set: {', '.join(sorted(allowed))}"
            )
        twice = sorted(set(self.training) & set(self.vary))
        if twice:
            raise ValueError(f"{', '.join(twice)}: stand under training and under vary")
        varied = {"training_size": "candidates", "smoothness": "smoothness"}[self.figure]
        if varied not in self.vary:
            raise ValueError(f"vary: figure {self.figure} needs several values of {varied}")
        return self

    def settings(self) -> list[Settings]:
        """What each run sets beside ``training``, in order."""
        combined = [
            dict(zip(self.vary, found, strict=True)) for found in product(*self.vary.values())
        ]
        return combined + self.also


@dataclass(frozen=True)
class Run:
    """One training of an experiment.

    Attributes:
        name: of the run and its folder, made of what it sets.
        settings: what it sets beside what all runs set.
        recipe: the recipe with its settings.
        folder: URL of the folder of its model and results.
    """

    name: str
    settings: Settings
    recipe: Recipe
    folder: str

    @property
    def key(self) -> str:
        """Name in messages."""
        return self.name


@dataclass(frozen=True)
class Experiment:
    """An experiment, ready to run.

    Attributes:
        definition: its file.
        recipe: the recipe whose samples it uses.
        runs: its trainings.
    """

    definition: Definition
    recipe: Recipe
    runs: tuple[Run, ...]

    @property
    def folder(self) -> str:
        """URL of the folder of its results."""
        return f"{self.recipe.root}/experiments/{self.definition.name}"


def load_experiment(path: str | Path, root: str | None = None) -> Experiment:
    """Read and validate an experiment and its recipe.

    Args:
        path: a YAML file; see ``pipelines/experiments`` and docs/experiments.md.
        root: instead of the root that the recipe names.

    Raises:
        RecipeError: if a file can't be read or a key or value is not allowed, of the experiment,
            its recipe or one of its runs; or two runs set the same.
    """
    file = Path(path)
    document = read_document(file, "name, recipe, vary")
    with explained(file, Definition):
        definition = Definition.model_validate(document)
    recipe = load_recipe(file.parent / definition.recipe, root)
    runs: dict[str, Run] = {}
    with explained(file, Definition):
        for settings in definition.settings():
            name = "_".join(f"{key}-{value}" for key, value in settings.items())
            if name in runs:
                raise ValueError(f"also: the run {settings} stands twice")
            runs[name] = _run(name, settings, definition, recipe)
        if len(runs) > MAX_RUNS:
            raise ValueError(f"vary: makes {len(runs)} runs, at most {MAX_RUNS} are possible")
    return Experiment(definition, recipe, tuple(runs.values()))


def _run(name: str, settings: Settings, definition: Definition, recipe: Recipe) -> Run:
    options = {**recipe.training.model_dump(), **definition.training, **settings}
    try:
        training = Training.model_validate(options)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, found {problem['input']!r}"
            for problem in error.errors()
        )
        raise ValueError(f"run {name}: {found}") from None
    folder = f"{recipe.root}/experiments/{definition.name}/{name}"
    return Run(name, settings, recipe.model_copy(update={"training": training}), folder)
