"""Checkpoints: the whole state of a training after an epoch, in a folder of its own.

``epoch-0012.safetensors`` holds all tensors, ``epoch-0012.json`` the history, the settings and
a SHA-256 of the tensors: written last, it vouches for them, and tensors without it don't count.
The last two epochs are kept, so that a file damaged later costs an epoch, not the training.
``history.csv`` is a copy of the history for people. Nothing is ever pickled.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import safetensors.torch
from torch import Tensor

from deepprofile import places
from deepprofile.model.samples import Samples

FORMAT = "deepprofile-checkpoint"
FORMAT_VERSION = 1
HISTORY = "history.csv"
KEPT = 2
"""Epochs whose checkpoints are kept."""
NAME = re.compile(r"epoch-(\d{4,})\.(json|safetensors)")
MAX_SHOWN = 60
"""Characters of a setting that a message shows."""


class CheckpointError(ValueError):
    """A checkpoint from which this training can't go on; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after an epoch.

    Attributes:
        epoch: epochs that are done.
        tensors: everything that later epochs depend on, by name.
        history: the records of all epochs so far, as :class:`EpochRecord` has them.
        settings: what makes the training this one; with another value the model is another.
        conditions: where it ran (threads, device, versions); other ones change last bits at most.
        set_aside: later checkpoints that can't be read, and why.
    """

    epoch: int
    tensors: Mapping[str, Tensor]
    history: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    conditions: Mapping[str, Any]
    set_aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoints:
    """Where a training keeps its state, until :func:`remove_checkpoints` is called.

    Attributes:
        url: folder, a local path or an ``s3://`` URL; made if absent, and of this training alone.
        settings: more that must be the same to go on, beside network, training and samples.
        on_resume: called with the epochs that are done and what is to be told, when a training
            goes on.
    """

    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    on_resume: Callable[[int, list[str]], None] | None = None


def save_checkpoint(url: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all, then the log, and drop what is older than the last.

    Args:
        url: the folder.
        checkpoint: its settings and conditions are what JSON can hold.
    """
    name = f"epoch-{checkpoint.epoch:04d}"
    content = safetensors.torch.save(
        {key: tensor.detach().cpu().contiguous() for key, tensor in checkpoint.tensors.items()}
    )
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "epoch": checkpoint.epoch,
        "sha256": sha256(content).hexdigest(),
        "settings": checkpoint.settings,
        "conditions": checkpoint.conditions,
        "history": [_without_nan(record) for record in checkpoint.history],
    }
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    places.write_bytes(places.inside(url, f"{name}.safetensors"), content)
    places.write_bytes(places.inside(url, f"{name}.json"), text.encode())
    write_history(url, pd.DataFrame([dict(record) for record in checkpoint.history]))
    for file, epoch in _files(url).items():
        if epoch <= checkpoint.epoch - KEPT:
            _remove(file)


def load_checkpoint(url: str) -> Checkpoint | None:
    """The last checkpoint that is whole; None where there is none.

    Raises:
        CheckpointError: if there are some and none of them is whole.
    """
    documents = {file: epoch for file, epoch in _files(url).items() if file.endswith(".json")}
    set_aside: list[str] = []
    for file in sorted(documents, key=documents.__getitem__, reverse=True):
        try:
            return _read(file, tuple(set_aside))
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            set_aside.append(f"{file}: {error}")
    if set_aside:
        raise CheckpointError(
            f"no checkpoint of the training can be read: {'; '.join(set_aside)}. Remove the "
            f"folder {url} to train from the start."
        )
    return None


def remove_checkpoints(url: str) -> None:
    """Remove the folder with all its checkpoints, if there is one."""
    if places.exists(url):
        _remove(url, recursive=True)


def write_history(url: str, history: pd.DataFrame) -> None:
    """Write the loss terms of every epoch as a table into a folder."""
    places.write_csv(places.inside(url, HISTORY), history)


def fingerprints(samples: Samples, index: Tensor, validation: Tensor) -> dict[str, str]:
    """Short hash of each array that a training reads, by name."""
    arrays = {name: getattr(samples, name) for name in ("series", "auxiliary", "target", "weight")}
    arrays |= {"training": index, "validation": validation}
    return {f"samples.{name}": _hash(tensor) for name, tensor in arrays.items()}


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Settings that differ, each as one phrase.

    Args:
        found: those of a checkpoint.
        expected: those of the training that is to go on.
    """
    plain = json.loads(json.dumps(expected))  # tuples become lists, as in the checkpoint
    return [
        f"{key}: {_show(found, key)} in the checkpoint, {_show(plain, key)} now"
        for key in sorted({*found, *plain})
        if found.get(key) != plain.get(key) or (key in found) != (key in plain)
    ]


def _read(file: str, set_aside: tuple[str, ...]) -> Checkpoint:
    content = json.loads(places.read_bytes(file))
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, not an object")
    kind = content.get("format"), content.get("format_version")
    if kind != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"format and version are {kind}, expected {(FORMAT, FORMAT_VERSION)}")
    tensors = places.read_bytes(file.removesuffix(".json") + ".safetensors")
    if sha256(tensors).hexdigest() != content["sha256"]:
        raise ValueError("its tensors are not those that were written (SHA-256 differs)")
    return Checkpoint(
        int(content["epoch"]),
        safetensors.torch.load(tensors),
        [_with_nan(record) for record in content["history"]],
        dict(content["settings"]),
        dict(content["conditions"]),
        set_aside,
    )


def _files(url: str) -> dict[str, int]:
    """Files of checkpoints in a folder, and their epochs."""
    try:
        found = places.find(url)
    except FileNotFoundError:
        return {}
    names = {file: NAME.fullmatch(PurePosixPath(file).name) for file in found}
    return {file: int(match[1]) for file, match in names.items() if match}


def _remove(url: str, recursive: bool = False) -> None:
    store, path = places.filesystem(url)
    try:
        store.rm(path, recursive=recursive)
    except FileNotFoundError:  # a run that was taken for lost has done it
        return


def _hash(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().numpy()
    digest = sha256(f"{values.dtype} {values.shape}".encode())
    digest.update(values.data)
    return digest.hexdigest()[:16]


def _show(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return "absent"
    text = json.dumps(settings[key])
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _without_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as strict JSON: null where there is no number."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in record.items()
    }


def _with_nan(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in record.items()}
