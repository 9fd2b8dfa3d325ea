"""How exactly matrix products are computed, fixed while the network runs.

PyTorch keeps this in settings of the process that anybody may change; results would then depend
on them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS = ("float32", "tf32", "bfloat16")
"""``float32``: IEEE. ``tf32`` (GPUs): factors rounded to 11 bits. ``bfloat16`` (CPUs): factors
rounded to 8 bits. Sums are float32 in all of them."""
DEVICES = {"tf32": "cuda", "bfloat16": "cpu"}
"""Kind of device of those precisions that not every device has."""
TF32_CAPABILITY = (8, 0)
"""CUDA's compute capability from which a GPU has tf32; older ones would compute float32."""
_NAMES = {"float32": "ieee", "bfloat16": "bf16"}
"""PyTorch's names where they are others."""


def has_bfloat16() -> bool:
    """Whether this processor and this build of PyTorch have products of bfloat16."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # built without oneDNN
        return False


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError unless a device has a precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    wanted = DEVICES.get(precision, device.type)
    if wanted != device.type:
        names = [name for name in PRECISIONS if DEVICES.get(name, device.type) == device.type]
        raise ValueError(
            f"precision {precision!r} is there on {wanted} devices only, and the network runs on "
            f"{device}: expected one of {', '.join(names)}"
        )
    if precision == "bfloat16" and not has_bfloat16():
        raise ValueError(
            "precision 'bfloat16': this processor has no products of bfloat16; expected 'float32'"
        )
    if precision == "tf32" and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability(device)
        if capability < TF32_CAPABILITY:
            raise ValueError(
                f"precision 'tf32': {device} has compute capability {capability}, tf32 needs "
                f"{TF32_CAPABILITY}; expected 'float32'"
            )


class _Setting:
    """PyTorch's setting of one kind of device, shared by the threads that want the same.

    A thread that wants another one waits, and lets no thread that comes later go before it.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._entrance, self._changed = threading.Lock(), threading.Condition()
        self._name, self._before, self._running = "", "", 0

    def enter(self, name: str) -> None:
        """Wait until the setting may be ``name``, and hold it there."""
        with self._entrance, self._changed:
            self._changed.wait_for(lambda: not self._running or self._name == name)
            if not self._running:
                self._before = self._backend.fp32_precision
                self._backend.fp32_precision = self._name = name
            self._running += 1

    def leave(self) -> None:
        """Let go; the last one puts the process's own setting back."""
        with self._changed:
            self._running -= 1
            if not self._running:
                self._backend.fp32_precision = self._before
                self._changed.notify_all()


_SETTINGS = {
    "cpu": _Setting(torch.backends.mkldnn.matmul),  # type: ignore[attr-defined]
    "cuda": _Setting(torch.backends.cuda.matmul),
}


@contextmanager
def fixed(precision: str, device: torch.device) -> Iterator[None]:
    """Compute matrix products on a kind of device in a precision, whatever the process is set to.

    Threads with the same precision run side by side; one with another waits for them. What was
    inherited from PyTorch's general setting before stands as this kind's own setting afterwards.

    Raises:
        ValueError: if the device has no such precision.
    """
    check_precision(precision, device)
    setting = _SETTINGS.get(device.type)
    if setting is None:
        raise ValueError(f"the network is on {device}: expected a device of {', '.join(_SETTINGS)}")
    setting.enter(_NAMES.get(precision, precision))
    try:
        yield
    finally:
        setting.leave()
