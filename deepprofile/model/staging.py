"""Memory through which parts of the cells go to a GPU and come back."""

import torch
from torch import Tensor

from deepprofile.model.engine import Engine


class Staging:
    """Memory for one part of the cells, page-locked where the device is a GPU.

    A GPU works while the CPU goes on: :meth:`start` returns at once, :meth:`finish` waits. Copies
    and computing of one part follow one another.
    """

    def __init__(
        self, cells: int, series: tuple[int, ...], result: tuple[int, ...], device: torch.device
    ) -> None:
        """Set memory aside.

        Args:
            cells: most cells of a part.
            series: (variables, days).
            result: (windows, n).
            device: where the network is.
        """
        pinned = device.type == "cuda"
        self._series = torch.empty((cells, *series), pin_memory=pinned)
        self._result = torch.empty((cells, *result), pin_memory=pinned)
        self._device_series = torch.empty((cells, *series), device=device)
        self._device_result = torch.empty((cells, *result), device=device)
        self._stream = torch.cuda.current_stream(device) if pinned else None
        self._done: torch.Event | None = torch.Event("cuda") if pinned else None
        self._target: Tensor | None = None

    def start(self, engine: Engine, series: Tensor, auxiliary: Tensor, target: Tensor) -> None:
        """Send a part to the device and let it compute.

        Args:
            engine: on the device.
            series: (cells, variables, days) in the CPU's memory.
            auxiliary: (cells, features) on the device, normalised.
            target: (cells, windows, n) in the CPU's memory, filled by :meth:`finish`.
        """
        n = len(series)
        self._series[:n].copy_(series)
        self._device_series[:n].copy_(self._series[:n], non_blocking=True)
        engine.run(self._device_series[:n], auxiliary, self._device_result[:n])
        self._result[:n].copy_(self._device_result[:n], non_blocking=True)
        if self._stream is not None:
            self._stream.record_event(self._done)
        self._target = target

    def finish(self) -> None:
        """Wait for the part that was started last, if any, and fetch its result."""
        if self._target is None:
            return
        if self._done is not None:
            self._done.synchronize()
        self._target.copy_(self._result[: len(self._target)])
        self._target = None
