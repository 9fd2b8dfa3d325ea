"""How commands end, for scripts that call them."""

from enum import IntEnum


class Code(IntEnum):
    """Exit codes of `deepprofile daily`; 2 is any error in what the user gave."""

    DONE = 0
    FAILED = 1
    SETUP = 2
    BUSY = 3
    NOT_YET = 4


EXIT_CODES = (
    "Exit codes: 0 done, or nothing to do; 1 something failed, what succeeded is published, the "
    "next run repeats the rest; 2 the recipe, the model, a cube or the cluster does not allow it; "
    "3 another run is at work; 4 no granule of the day of --date has arrived yet."
)
