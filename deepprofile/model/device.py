"""Where the network computes: the processor or a GPU, and who may use the GPU when."""

import threading
from contextlib import AbstractContextManager, nullcontext

import torch

DEVICES = ("auto", "cpu", "cuda")
"""What may be asked for; ``auto`` is a GPU where torch can use one."""

_one_at_a_time = threading.Lock()


def choose_device(wanted: str) -> str:
    """The kind of device to use in this process, ``cpu`` or ``cuda``.

    Args:
        wanted: one of DEVICES.

    Raises:
        ValueError: if it is none of them.
        RuntimeError: if a GPU is asked for and there is none.
    """
    if wanted not in DEVICES:
        raise ValueError(f"device is {wanted!r}: expected one of {', '.join(DEVICES)}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "device is cuda, but torch finds no GPU in this process. Ask for auto or cpu, or "
            "install a build of torch for the GPU's driver."
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def exclusive(device: torch.device) -> AbstractContextManager[object]:
    """Held while computing on a device: of a process's threads one at a time uses the GPU.

    The others read, decode and write meanwhile. Threads of the processor compute side by side.
    """
    return nullcontext() if device.type == "cpu" else _one_at_a_time
