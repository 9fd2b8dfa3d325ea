"""Whether the workers have the device and the precision that a recipe asks for."""

import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from dask.base import annotate

from deepprofile.cluster.base import GPU
from deepprofile.model.device import choose_device
from deepprofile.model.precision import DEVICES, check_precision
from deepprofile.recipe import Predict
from deepprofile.stages.context import Context, StageError
from deepprofile.store.jobs import NO_WORKERS, workers_of

_ONE_PROCESS = (
    "on a cluster with one process of several threads for each GPU (--cluster cluster/gpu.yaml)"
)
_WITH_GPUS = (
    "run on a cluster whose workers have GPUs (--cluster cluster/gpu.yaml for this machine's, or "
    "cluster/cuda.yaml, cluster/slurm-gpu.yaml)"
)
SHOWN = 3
"""Workers, and machines, that a message names at most."""


@dataclass(frozen=True)
class Answer:
    """What a worker says of the device that it would take.

    Attributes:
        kind: ``cpu`` or ``cuda``; empty if it can't.
        reason: why it can't.
        host: name of its machine.
        gpu: identity of its GPU; empty without one.
        process: number of its process on that machine.
    """

    kind: str
    reason: str = ""
    host: str = ""
    gpu: str = ""
    process: int = 0


def settle_device(context: Context) -> Context:
    """The context with what ``auto`` comes to in place of it, so that all workers do the same.

    Says so where processes share a GPU and predict on the processor for that.

    Raises:
        StageError: see `check_answers`.
    """
    asked, answers = context.recipe.predict, _ask(context)
    device, reason = settle(asked, answers)
    if reason:
        context.console.print(f"predict: {reason}", highlight=False)
    predict = asked.model_copy(update={"device": device})
    return replace(context, recipe=context.recipe.model_copy(update={"predict": predict}))


def worker_devices(context: Context) -> list[str]:
    """Kinds of devices on which the workers will predict, ``cpu``, ``cuda`` or both.

    Raises:
        StageError: see `check_answers`.
    """
    answers = _ask(context)
    check_answers(context.recipe.predict, answers)
    return sorted({answer.kind for answer in answers.values()})


def settle(asked: Predict, answers: Mapping[str, Answer]) -> tuple[str, str]:
    """Device that the jobs carry, and why it is not the GPU that workers have, if it is not.

    ``auto`` is the device that all workers take, and the processor where processes share a GPU.
    It stays ``auto`` where only some workers have a GPU: each takes what it has.

    Args:
        asked: what the recipe says.
        answers: of each worker, by its address.

    Raises:
        StageError: see `check_answers`.
    """
    shared = _shared_gpus(answers)
    if shared and asked.device == "auto" and DEVICES.get(asked.precision) != "cuda":
        _check_able(asked, answers)
        return "cpu", (
            f"worker processes share a GPU ({shared}), so they predict on the processor. To use "
            f"the GPU, run {_ONE_PROCESS}."
        )
    check_answers(asked, answers)
    kinds = {answer.kind for answer in answers.values()}
    return (kinds.pop() if len(kinds) == 1 else asked.device), ""


def training_workers(context: Context) -> tuple[str, list[str]]:
    """Device on which the network is trained, ``cpu`` or ``cuda``, and the workers that have it.

    Where one process trains, it does not matter whether others share its GPU, and any of the
    workers will do. Where several train, these are as many workers, each a process with a GPU of
    its own where they train on GPUs, on as many machines as there are.

    Raises:
        StageError: see `able_workers`; or there are too few for the processes that the recipe asks
            for.
    """
    size = context.recipe.training.processes
    device, able = able_workers(context)
    if size == 1:
        return device, list(able)
    apart = workers_apart(able)
    if len(apart) < size:
        what = "workers with a GPU of their own" if device == "cuda" else "worker processes"
        raise StageError(
            f"training.processes {size}: there are {len(apart)} {what}. Set the key to "
            f"{len(apart)} at most, or run on a cluster with more."
        )
    return device, apart[:size]


def able_workers(context: Context) -> tuple[str, dict[str, Answer]]:
    """Device on which networks are trained, and all workers that have it, by address.

    ``auto`` is a GPU where any worker has one.

    Raises:
        StageError: if there is no worker, or none has the GPU that the recipe asks for.
    """
    asked = context.recipe.training.device
    workers_of(context.client)  # has some come, where they come with the work
    answers = _answers(context, asked, "float32")
    if not answers:
        raise StageError(NO_WORKERS)
    kinds = {address: answer.kind for address, answer in answers.items() if answer.kind}
    if not kinds:
        raise StageError(
            f"training.device {asked}: none of {len(answers)} workers can, {_such_as(answers)}. To "
            f"train without a GPU set the key in the recipe to auto or cpu; with one, {_WITH_GPUS}."
        )
    device = "cuda" if "cuda" in kinds.values() else "cpu"
    return device, {key: answers[key] for key in sorted(kinds) if kinds[key] == device}


def unless_all(context: Context, workers: Sequence[str]) -> list[str] | None:
    """These workers, for a job that no other can do; None if all can: then later ones can too."""
    return None if len(workers) == len(context.client.nthreads()) else list(workers)


def workers_apart(answers: Mapping[str, Answer]) -> list[str]:
    """Workers of which no two share a process or a GPU, machine by machine in turn.

    Args:
        answers: of each worker, by its address.
    """
    first: dict[tuple[str, str | int], str] = {}
    for address, answer in answers.items():
        first.setdefault((answer.host, answer.gpu or answer.process), address)
    seen: Counter[str] = Counter()
    order: list[tuple[int, str, str]] = []
    for (host, _), address in first.items():
        order.append((seen[host], host, address))
        seen[host] += 1
    return [address for _, _, address in sorted(order)]


def check_answers(asked: Predict, answers: Mapping[str, Answer]) -> None:
    """Stop unless there are workers, all of them can, and no two of them share a GPU.

    Every process has a context of its own on its GPU, which takes memory, and one after another
    they compute no faster; threads of one process share both.

    Args:
        asked: what the recipe says.
        answers: of each worker, by its address.

    Raises:
        StageError: if there is no worker, one has not the device or the precision, or several
            have one GPU.
    """
    _check_able(asked, answers)
    shared = _shared_gpus(answers)
    if shared:
        raise StageError(
            f"predict.device {asked.device} with predict.precision {asked.precision}: worker "
            f"processes share a GPU ({shared}). Run {_ONE_PROCESS}, or predict on the "
            "processor (predict.device: cpu, which has float32 and bfloat16)."
        )


@contextmanager
def on_gpus(context: Context) -> Iterator[None]:
    """Jobs that are run meanwhile go to workers with a GPU alone, where the recipe asks for one.

    These are the workers that declare the Dask resource GPU; where none does, all are taken to be
    alike. Workers that join later count too.
    """
    resources = gpu_resources(context, context.recipe.predict.device)
    if resources:
        with annotate(resources=resources):
            yield
    else:
        yield


def gpu_resources(context: Context, device: str) -> dict[str, int]:
    """Dask resources that a job for a device needs; none where no worker declares a GPU."""
    return {GPU: 1} if device == "cuda" and _declared(context) else {}


def _declared(context: Context) -> set[str]:
    """Addresses of the workers that declare a GPU."""
    workers = workers_of(context.client).items()
    return {address for address, worker in workers if worker.get("resources", {}).get(GPU)}


def _ask(context: Context) -> dict[str, Answer]:
    """What the workers say that predict: of a recipe for GPUs those that declare one, if any."""
    asked = context.recipe.predict
    known = _declared(context)
    declared = known if asked.device == "cuda" else set()
    return _answers(context, asked.device, asked.precision, sorted(declared) or None)


def _answers(
    context: Context, device: str, precision: str, workers: list[str] | None = None
) -> dict[str, Answer]:
    """What workers say, without those that leave meanwhile."""
    said: dict[str, Answer | Exception] = context.client.run(
        _answer, device, precision, workers=workers, on_error="return"
    )
    answers = {}
    for address, found in said.items():
        if isinstance(found, Answer):
            answers[address] = found
        elif not isinstance(found, OSError):
            raise found
    return answers


def _check_able(asked: Predict, answers: Mapping[str, Answer]) -> None:
    if not answers:
        raise StageError(NO_WORKERS)
    refused = {address: answer for address, answer in answers.items() if not answer.kind}
    if refused:
        raise StageError(
            f"predict.device {asked.device} with predict.precision {asked.precision}: "
            f"{len(refused)} of {len(answers)} workers can't, {_such_as(refused)}. To predict "
            "without a GPU set these keys of the recipe to auto or cpu, and to float32 or "
            f"bfloat16; with one, {_WITH_GPUS}."
        )


def _such_as(refused: Mapping[str, Answer]) -> str:
    """Some of the workers that can't, and why the first of them can't."""
    first = sorted(refused)[:SHOWN]
    hosts = sorted({answer.host for answer in refused.values() if answer.host})
    where = f" on {', '.join(hosts[:SHOWN])}" if hosts else ""
    return f"such as {', '.join(first)}{where}: {refused[first[0]].reason.rstrip('.')}"


def _shared_gpus(answers: Mapping[str, Answer]) -> str:
    """The GPUs that several processes have, in words; empty if there is none."""
    users = Counter((answer.host, answer.gpu) for answer in answers.values() if answer.gpu)
    shared = [(count, gpu, host) for (host, gpu), count in sorted(users.items()) if count > 1]
    return ", ".join(f"{count} the GPU {gpu} of {host}" for count, gpu, host in shared)


def _answer(device: str, precision: str) -> Answer:
    """Device that this worker takes, or why it can't."""
    try:
        kind = choose_device(device)
        check_precision(precision, torch.device(kind))
    except (RuntimeError, ValueError) as error:
        return Answer("", str(error), host=socket.gethostname())
    gpu = str(torch.cuda.get_device_properties(kind).uuid) if kind == "cuda" else ""
    return Answer(kind, host=socket.gethostname(), gpu=gpu, process=os.getpid())
