"""Profiles of two models don't belong in one cube: who must know which models a cube holds."""

from deepprofile.stages.context import StageError
from deepprofile.store import NotACubeError, history


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
            "Profiles of two models don't belong in one cube. To go on with the present model, "
            "also over a longer period, run the stages ingest, predict and evaluate alone; for a "
            "new model remove that cube or give the recipe another root."
        )
