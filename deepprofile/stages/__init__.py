"""What a recipe runs: ``chain`` names the stages in order, each is one module."""

from deepprofile.stages.context import Context, StageError

__all__ = ["Context", "StageError"]
