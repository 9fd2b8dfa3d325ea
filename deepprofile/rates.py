"""Measured rates of a machine: seconds that a unit of work takes, kept in a small JSON file.

`deepprofile benchmark` measures and stores them; `deepprofile plan` turns work into time.
"""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepprofile.cluster import cores

UNITS = {
    "engine": "land cell-day predicted",
    "series": "land cell-day of series and profiles turned",
    "read": "raw byte of forcing read",
    "write": "raw byte of coefficients written",
    "collocate": "land cell-day of three products",
    "bootstrap": "land cell-day of a replicate",
    "train": "training sample",
}
"""Kinds of work and the unit of each."""
WHOLE_MACHINE = ("train",)
"""Kinds of work that one job does with all cores."""
VARIABLE = "DEEPPROFILE_RATES"
"""Environment variable with the path of the file of rates."""

Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class RatesError(ValueError):
    """Rates that can't be read; the message names the file and says what to do."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Section):
    """The machine that was measured.

    Attributes:
        processor: name of the processor.
        cores: cores that the measurement could use.
        memory: bytes of memory.
        torch: version of PyTorch.
        gpu: name of the GPU; None without one.
    """

    processor: str
    cores: Annotated[int, Field(ge=1)]
    memory: Annotated[int, Field(ge=0)]
    torch: str
    gpu: str | None = None


class Rates(_Section):
    """Seconds that a unit of work takes; see ``UNITS``.

    Attributes:
        version: of this format.
        measured: when, UTC.
        machine: where.
        core: on one core while all other cores do the same; of WHOLE_MACHINE on all cores.
        alone: on one core while the others are idle.
        gpu: on the GPU; empty without one.
    """

    version: Literal[1] = 1
    measured: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    machine: Machine
    core: dict[str, Seconds]
    alone: dict[str, Seconds] = {}
    gpu: dict[str, Seconds] = {}


def this_machine() -> Machine:
    """Description of the machine on which this runs."""
    import torch  # takes seconds, and most commands need none of it

    return Machine(
        processor=_processor(),
        cores=cores(),
        memory=psutil.virtual_memory().total,
        torch=torch.__version__,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def rates_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where rates are kept: ``DEEPPROFILE_RATES``, or the user's folder of settings."""
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE]).expanduser()
    settings = environment.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(settings).expanduser() / "deepprofile" / "rates.json"


def save_rates(rates: Rates, path: Path) -> None:
    """Write rates; folders are made as needed, and a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(rates.model_dump_json(indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def load_rates(path: Path) -> Rates:
    """Read rates.

    Raises:
        FileNotFoundError: if there is no such file.
        RatesError: if it does not hold rates in this format.
    """
    try:
        return Rates.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: there are no rates. Measure them with `deepprofile benchmark`."
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the whole"
        reason = f"{key}: found {problem['input']!r}; {problem['msg']}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise RatesError(
        f"{path}: does not hold rates that this version reads ({reason}). Measure them again with "
        "`deepprofile benchmark`, or remove the file."
    )


def _processor() -> str:
    """Name of the processor as Linux knows it, elsewhere as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
