"""The model of a recipe: its description, and which models a cube of profiles holds."""

from typing import Any

from deepprofile.model.io import load_model, read_description
from deepprofile.model.network import DeepProfile
from deepprofile.stages.context import StageError
from deepprofile.store import NotACubeError, history


def describe_model(url: str) -> dict[str, Any]:
    """What ``model.json`` says of the model in a folder.

    Raises:
        FileNotFoundError: if there is no model.
        StageError: if the file is damaged or of another version of deepprofile.
    """
    try:
        return read_description(url)
    except ValueError as error:
        raise _damaged(url, error) from error


def whole_model(url: str, fingerprint: str) -> DeepProfile:
    """The model in a folder.

    Raises:
        FileNotFoundError: if there is no model.
        StageError: if a file is damaged or the model has another fingerprint.
    """
    try:
        return load_model(url, fingerprint)
    except ValueError as error:
        raise _damaged(url, error) from error


def refuse_other_model(coefficients: str, fingerprint: str | None) -> None:
    """Stop if a cube of coefficients holds profiles of another model.

    Args:
        coefficients: URL of the cube.
        fingerprint: of the model that is to be used; None for one that is yet to be trained.

    Raises:
        StageError: naming both models and the ways out.
    """
    try:
        commits = history(coefficients)
    except NotACubeError:
        return
    held = {str(c.metadata["model"]) for c in commits if "model" in c.metadata}
    others = sorted(held - {fingerprint})
    if others:
        wanted = f"the recipe's model is {fingerprint}" if fingerprint else "training makes another"
        raise StageError(
            f"{coefficients}: holds profiles of the model {', '.join(others)}, but {wanted}. "
            f"Profiles of two models don't belong in one cube. {_way_on(fingerprint)}; for a new "
            "model remove that cube or give the recipe another root."
        )


def _way_on(fingerprint: str | None) -> str:
    """How to go on with the model whose profiles are there."""
    if fingerprint:
        return "To go on with the model of the cube, put it back in the recipe's place for models"
    return (
        "To go on with the present model, also over a longer period, run the stages ingest, "
        "predict and evaluate alone"
    )


def _damaged(url: str, error: ValueError) -> StageError:
    return StageError(
        f"{error}. Remove the folder {url} and run the stage train to make the model again, or "
        "put back a copy that this version can read."
    )
