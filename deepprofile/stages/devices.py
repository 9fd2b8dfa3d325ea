"""Whether the workers have the device and the precision that a recipe asks for."""

import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from deepprofile.model.device import choose_device
from deepprofile.model.precision import check_precision
from deepprofile.recipe import Predict
from deepprofile.stages.context import Context, StageError


@dataclass(frozen=True)
class Answer:
    """What a worker says of the device that it would take.

    Attributes:
        kind: ``cpu`` or ``cuda``; empty if it can't.
        reason: why it can't.
        host: name of its machine.
        gpu: identity of its GPU; empty without one.
    """

    kind: str
    reason: str = ""
    host: str = ""
    gpu: str = ""


def worker_devices(context: Context) -> list[str]:
    """Kinds of devices on which the workers will predict, ``cpu``, ``cuda`` or both.

    Raises:
        StageError: see `check_answers`.
    """
    asked = context.recipe.predict
    answers = context.client.run(_answer, asked.device, asked.precision)
    check_answers(asked, answers)
    return sorted({answer.kind for answer in answers.values()})


def check_answers(asked: Predict, answers: Mapping[str, Answer]) -> None:
    """Stop unless all workers can, and no two of them share a GPU.

    Every process has a context of its own on its GPU, which takes memory, and one after another
    they compute no faster; threads of one process share both.

    Args:
        asked: what the recipe says.
        answers: of each worker, by its address.

    Raises:
        StageError: if a worker has not the device or the precision, or several have one GPU.
    """
    refused = {address: answer.reason for address, answer in answers.items() if not answer.kind}
    if refused:
        address, text = min(refused.items())
        raise StageError(
            f"predict.device {asked.device} with predict.precision {asked.precision}: "
            f"{len(refused)} of {len(answers)} workers can't, such as {address}: {text}. Change "
            "these keys of the recipe, or run on a cluster whose workers can."
        )
    users = Counter((answer.host, answer.gpu) for answer in answers.values() if answer.gpu)
    shared = [(count, gpu, host) for (host, gpu), count in sorted(users.items()) if count > 1]
    if shared:
        named = ", ".join(f"{count} the GPU {gpu} of {host}" for count, gpu, host in shared)
        raise StageError(
            f"predict.device {asked.device}: worker processes share a GPU ({named}). Run on a "
            "cluster with one process of several threads for each GPU (--cluster "
            "cluster/gpu.yaml), or set predict.device: cpu."
        )


def _answer(device: str, precision: str) -> Answer:
    """Device that this worker takes, or why it can't."""
    try:
        kind = choose_device(device)
        check_precision(precision, torch.device(kind))
    except (RuntimeError, ValueError) as error:
        return Answer("", str(error))
    gpu = str(torch.cuda.get_device_properties(kind).uuid) if kind == "cuda" else ""
    return Answer(kind, host=socket.gethostname(), gpu=gpu)
