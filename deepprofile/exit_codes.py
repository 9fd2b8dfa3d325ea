"""How commands end, for scripts that call them."""

from enum import IntEnum

from deepprofile.cluster import ClusterError
from deepprofile.export import ExportError
from deepprofile.model.configuration import ModelError
from deepprofile.operators.signals import Terminated
from deepprofile.places import PlaceError
from deepprofile.rates import RatesError
from deepprofile.recipe import RecipeError
from deepprofile.stages.context import StageError
from deepprofile.store import CubeError, JobError

EXPECTED = (
    RecipeError,
    ClusterError,
    StageError,
    CubeError,
    JobError,
    OSError,
    RatesError,
    ExportError,
    PlaceError,
    ModelError,
)
"""Errors that tell the user what to do; anything else is a fault and shows where it rose."""


class Code(IntEnum):
    """How commands end by themselves; `deepprofile daily` alone has the last two.

    FAILED is a fault of the program; of `daily` also something that failed, and of `verify` a cube
    that is not sound. STOPPED is one of EXPECTED.
    """

    DONE = 0
    FAILED = 1
    STOPPED = 2
    BUSY = 3
    NOT_YET = 4


INTERRUPTED, TERMINATED = 130, 143
"""How they end by a signal: 128 and its number, as shells have it."""


_SIGNALS = (
    "130 interrupted (Ctrl-C); 143 ended by SIGTERM: the cluster is closed, what was published "
    "stays, and the same command goes on from there."
)
EXIT_CODES = (
    "Exit codes: 0 done, or nothing to do; 1 something failed, what succeeded is published, the "
    "next run repeats the rest, or a fault of the program, shown with its traceback; "
    "2 the recipe, the model, a cube or the cluster does not allow it; "
    "3 another run is at work; 4 no granule of the day of --date has arrived yet; " + _SIGNALS
)
"""Those of `deepprofile daily`."""
RUN_CODES = (
    "Exit codes: 0 done; 1 a fault of the program, shown with its traceback; 2 something was wrong "
    "or failed, and one message says what to do: what succeeded is published, the same command "
    "repeats the rest; " + _SIGNALS
)
"""Those of commands that do long work."""
VERIFY_CODES = (
    "Exit codes: 0 the cube is sound; 1 it is not, or a fault of the program, shown with its "
    "traceback; 2 it could not be checked; 130 interrupted (Ctrl-C); 143 ended by SIGTERM."
)
"""Those of `deepprofile verify`."""
COMMAND_CODES = (
    "Exit codes: 0 done; 1 a fault of the program, shown with its traceback; 2 something was "
    "wrong, and one message says what to do; 130 interrupted (Ctrl-C); 143 ended by SIGTERM."
)
"""Those of all other commands."""


def code_of(error: BaseException) -> int:
    """The exit code of a command that ends with an error.

    What breaks while a signal ends the command is due to the signal. `SystemExit` has a code of its
    own, or a text, which stands for 1.
    """
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, KeyboardInterrupt):
            return TERMINATED if isinstance(behind, Terminated) else INTERRUPTED
        behind = behind.__cause__ or behind.__context__
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return error.code or Code.DONE
    return Code.STOPPED if isinstance(error, EXPECTED) else Code.FAILED
