"""The processes of one training: each computes an equal share of every batch.

All of them hold the same network and draw the same samples; what they exchange is gradients
(``DistributedDataParallel``), batch-norm statistics and the terms of the loss. One process does
the same as before there were several, to the bit.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from deepprofile.model.batch_norm import share_statistics
from deepprofile.model.loss import LossTerms

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Environment variables that name the network interface by which processes reach one another."""
_KNOWN = signature(DistributedDataParallel).parameters
_OWN_BUFFERS: Any = {
    "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers": False
}
"""Buffers are not sent at every step; the argument has another name since torch 2.13."""
TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others, which may read longer, validate or write."""


class LostProcessError(RuntimeError):
    """Another process of the training has ended or does not answer."""


class DifferentProcessesError(ValueError):
    """The processes of a training don't have the same samples or settings."""


@dataclass(frozen=True)
class Processes:
    """This process among those of one training.

    Attributes:
        rank: its number, from 0; number 0 writes what is to be written.
        size: how many there are.
        neighbours: how many of them are on this machine, and share its cores.
    """

    rank: int = 0
    size: int = 1
    neighbours: int = 1

    def share(self, batch: Tensor) -> Tensor:
        """The samples of a batch that are this process's; their number is a multiple of size."""
        return batch if self.size == 1 else batch.chunk(self.size)[self.rank]

    def spread(self, model: nn.Module, device: str) -> nn.Module:
        """Prepare a model for the shares; what is returned is called in training.

        Its batch norms, replaced in place, take the statistics of the whole batch. The gradient of
        each parameter is the mean over the processes.
        """
        if self.size == 1:
            return model
        share_statistics(model, device)
        return DistributedDataParallel(model, gradient_as_bucket_view=True, **_OWN_BUFFERS)

    def terms(self, own: LossTerms) -> LossTerms:
        """Terms of the loss of a share, whose mean over the processes is that of the batch.

        All terms are means over samples but ``negative``, which is a sum.
        """
        if self.size == 1:
            return own
        more = (self.size - 1) * own.negative
        return own._replace(total=own.total + more, negative=own.negative + more)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, the same bits in all of them."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def align(self, state: Mapping[str, Tensor]) -> None:
        """Set floating-point tensors to those of process 0 that have the same names.

        Between processors of two kinds last bits drift apart.
        """
        if self.size == 1:
            return
        for name in sorted(state):  # processes need not have them in one order
            if state[name].is_floating_point():
                dist.broadcast(state[name], src=0)

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Check that all processes have the same settings.

        Raises:
            DifferentProcessesError: in all of them, if not; names each setting that differs.
        """
        if self.size == 1:
            return
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, dict(settings))
        wrong = [
            f"{key}: {everyone[0].get(key)!r} in process 1, {found.get(key)!r} in process {number}"
            for number, found in enumerate(everyone, 1)
            for key in sorted({*everyone[0], *found})
            if everyone[0].get(key) != found.get(key)
        ]
        if wrong:
            raise DifferentProcessesError(
                f"the {self.size} processes of the training differ: {'; '.join(wrong)}. They must "
                "read the same samples and checkpoints; was something written meanwhile? Run again."
            )


ALONE = Processes()
"""A training in one process."""


@contextmanager
def joined(
    processes: Processes, store: TCPStore, device: str, host: str, timeout: timedelta = TIMEOUT
) -> Iterator[Processes]:
    """Be one of several processes while the context is open.

    Args:
        processes: this one among them.
        store: where they meet.
        device: on which they train, ``"cpu"`` or ``"cuda"``.
        host: address of this machine at which the others reach it.
        timeout: longest wait for another process.

    Raises:
        LostProcessError: if another process ends before its time or does not answer.
        RuntimeError: if this operating-system process has a group of processes already.
    """
    if dist.is_initialized():
        raise RuntimeError(
            "this worker takes part in another training of several processes: wait for its end"
        )
    ended = [f"ended {rank}" for rank in range(processes.size)]
    kind = torch.device(device).type
    own_device = torch.device("cuda", torch.cuda.current_device()) if kind == "cuda" else None
    try:
        with _interface(host):
            dist.init_process_group(
                BACKENDS[kind],
                store=store,
                rank=processes.rank,
                world_size=processes.size,
                timeout=timeout,
                device_id=own_device,
            )
        yield processes
        # Who leaves at once may break the connection on which another still receives.
        store.set(ended[processes.rank], "yes")
        store.wait(ended, timeout)
    except RuntimeError as error:
        if not _of_another(error):
            raise
        raise LostProcessError(
            f"process {processes.rank + 1} of {processes.size} lost another one: {error}"
        ) from error
    finally:
        with suppress(dist.DistError):
            store.set(ended[processes.rank], "yes")
        if dist.is_initialized():
            dist.destroy_process_group()


def _of_another(error: RuntimeError) -> bool:
    """Whether an error tells of the connection to other processes."""
    plain = type(error) is RuntimeError and "gloo" in str(error).lower()
    return plain or isinstance(error, dist.DistError)


@contextmanager
def _interface(host: str) -> Iterator[None]:
    """Have torch use the interface with this address, unless the user has named one."""
    found = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if host in {address.address for address in addresses}
    ]
    chosen = {name: found[0] for name in INTERFACES if found and name not in os.environ}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name in chosen:
            os.environ.pop(name, None)
