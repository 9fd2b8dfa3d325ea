"""YAML documents that users write: read with clear errors, validated by a pydantic model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from deepprofile import places

MAX_NAMED = 10
"""Files that a message names."""
_CLUSTER = re.compile(r"^kind:", re.MULTILINE)


class RecipeError(ValueError):
    """A recipe that can't be run; the message names file, key, what was found and what may be."""


def read_document(file: Path, keys: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; dates stay text.

    Args:
        file: the file.
        keys: some of the expected keys, for the message about a file that holds no mapping.

    Raises:
        RecipeError: if the file can't be read, is no valid YAML, or holds no mapping or a key
            twice.
    """
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise RecipeError(
            f"{file}: can't be read ({error.strerror}). {_neighbours(file.parent)}"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: is not UTF-8 text ({error}). Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{file}: is not valid YAML: {_where(error)}") from None
    if not isinstance(document, dict):
        raise RecipeError(f"{file}: expected keys such as {keys}; found {document!r}")
    return document


@contextmanager
def explained(file: Path, model: type[BaseModel]) -> Iterator[None]:
    """Turn what ``model`` finds wrong with a file's document into a RecipeError."""
    try:
        yield
    except ValidationError as error:
        raise RecipeError(_explain(file, error, model)) from None
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{file}: {places.redacted(str(error))}") from None


class _Loader(yaml.SafeLoader):
    """YAML in which dates stay text, so that impossible ones are explained, and keys are unique."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that stands twice would silently lose one of its values."""
        keys = [str(key.value) for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {twice[0]!r} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _where(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the line itself: it may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return type(error).__name__
    mark = error.problem_mark
    return places.redacted(f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}")


def _neighbours(folder: Path) -> str:
    """The recipes of a folder, for the message about one that is not there."""
    files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    names = [path.name for path in files if path.is_file() and not _is_cluster(path)]
    if not names:
        return f"There is no recipe in {folder.resolve()}."
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"Recipes in {folder}: {', '.join(names[:MAX_NAMED])}{more}."


def _is_cluster(file: Path) -> bool:
    """Whether a file describes a cluster: no recipe has this key at its top."""
    return _CLUSTER.search(file.read_text(encoding="utf-8", errors="replace")) is not None


def _explain(file: Path, error: ValidationError, model: type[BaseModel]) -> str:
    lines = [f"{file}: {error.error_count()} problem(s)"]
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(_keys_at(problem["loc"][:-1], model))
            lines.append(f"  {key}: unknown key. Allowed here: {allowed}")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: is missing and must be given")
        elif problem["type"] == "value_error":
            lines.append(f"  {key}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"  {key}: found {problem['input']!r}; {problem['msg']}")
    return places.redacted("\n".join(lines))


def _keys_at(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Keys that are allowed in the section at ``location``."""
    choices: list[type[BaseModel]] = []
    for part in location:
        field = model.model_fields.get(str(part))
        # A key of a mapping from names to sections leads to no other model.
        choices = list(_sections_of(field.annotation)) if field else choices
        named = [one for one in choices if _is_kind(one, part)]
        model = next(iter(named or (choices if field else [])), model)
    return sorted(model.model_fields)


def _sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation: itself, those of a union, or the values of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections_of(part)


def _is_kind(model: type[BaseModel], part: int | str) -> bool:
    """Whether a location names a model of a union by the text that tells it from the others."""
    return any(part in get_args(field.annotation) for field in model.model_fields.values())
