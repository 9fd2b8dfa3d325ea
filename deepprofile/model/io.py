"""Models on disk or in an object store: ``model.safetensors`` and ``model.json`` in one folder.

Weights, batch-norm statistics and limits lie in the safetensors file; the network's shape, names,
units and provenance in the JSON file, with a fingerprint of both. Nothing is ever pickled.
"""

import hashlib
import json
import threading
from importlib.metadata import version
from typing import Any

import safetensors.torch
import torch

from deepprofile import places
from deepprofile.model.configuration import DESCRIPTION, NetworkConfig
from deepprofile.model.network import DeepProfile

WEIGHTS = "model.safetensors"
FORMAT = "deepprofile-model"
FORMAT_VERSION = 2

_resident: dict[str, tuple[str, DeepProfile]] = {}
_resident_lock = threading.Lock()


def fingerprint(model: DeepProfile) -> str:
    """SHA-256 of the model: configuration, and name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(_configuration_json(model.config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def save_model(model: DeepProfile, url: str, metadata: dict[str, Any] | None = None) -> str:
    """Write a model into a folder.

    Args:
        model: the model.
        url: folder, a local path or any fsspec URL; made if absent.
        metadata: anything JSON can hold, such as recipe, versions and input fingerprints.

    Returns:
        The model's fingerprint.

    Raises:
        TypeError: if ``metadata`` holds what JSON can't.
    """
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint(model),
        "network": model.config.to_dict(),
        "metadata": metadata or {},
        "written_by": {"deepprofile": version("deepprofile"), "torch": torch.__version__},
    }
    text = json.dumps(description, indent=2) + "\n"
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    places.write_bytes(places.inside(url, WEIGHTS), safetensors.torch.save(state))
    places.write_bytes(places.inside(url, DESCRIPTION), text.encode())  # last: it vouches
    return str(description["fingerprint"])


def load_model(url: str, expected: str | None = None) -> DeepProfile:
    """Read a model, in evaluation mode.

    Args:
        url: the folder that :func:`save_model` wrote.
        expected: refuse any model with another fingerprint.

    Raises:
        FileNotFoundError: if one of the two files is absent.
        ValueError: if a file is not a model of this format, the files don't belong together,
            or the fingerprint is not the expected one.
    """
    description = read_description(url)
    if expected is not None and description["fingerprint"] != expected:
        raise ValueError(
            f"{url} holds the model {description['fingerprint']}: expected {expected}. It was "
            "trained again since; predict with the model that was asked for, or ask for this one."
        )
    model = DeepProfile.from_config(NetworkConfig.from_dict(description["network"]))
    _fill(model, _read(url, WEIGHTS), f"{url}/{WEIGHTS}")
    if fingerprint(model) != description["fingerprint"]:
        raise ValueError(
            f"{url}/{WEIGHTS} and {DESCRIPTION} don't belong together: the model's fingerprint is "
            f"{fingerprint(model)}, the description says {description['fingerprint']}. One of "
            "them was changed or damaged; save the model again."
        )
    return model.eval()


def read_description(url: str) -> dict[str, Any]:
    """What ``model.json`` says: network, fingerprint, metadata and versions.

    Raises:
        FileNotFoundError: if the file is absent.
        ValueError: if it is not the description of a model in this format.
    """
    try:
        content = json.loads(_read(url, DESCRIPTION))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{url}/{DESCRIPTION} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{url}/{DESCRIPTION} holds a {type(content).__name__}, not an object")
    found = content.get("format"), content.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(
            f"{url}/{DESCRIPTION} has format and version {found}: this version of deepprofile "
            f"reads {(FORMAT, FORMAT_VERSION)}"
        )
    if not isinstance(content.get("fingerprint"), str):
        raise ValueError(f"{url}/{DESCRIPTION} names no fingerprint: save the model again")
    try:
        NetworkConfig.from_dict(content["network"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{url}/{DESCRIPTION} describes no network of this version ({error!r}): save the "
            "model again"
        ) from error
    return content


def resident(url: str, expected: str, device: str = "cpu") -> DeepProfile:
    """The model with fingerprint ``expected`` on a device, loaded once in each process.

    One model stays for each device, the last that was asked for. Threads that ask at the same
    time wait for one load. The model is shared: read it only.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_model`.
    """
    with _resident_lock:
        held, model = _resident.get(device, ("", None))
        if model is None or held != expected:
            model = load_model(url, expected).to(device)
            _resident[device] = expected, model
        return model


def _configuration_json(config: NetworkConfig) -> str:
    return json.dumps(config.to_dict(), sort_keys=True)


def _read(url: str, name: str) -> bytes:
    try:
        return places.read_bytes(places.inside(url, name))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"there is no {name} in {url}: expected a folder with {WEIGHTS} and {DESCRIPTION}, "
            "as dp.save_model or the train stage writes it"
        ) from error


def _fill(model: DeepProfile, content: bytes, path: str) -> None:
    try:
        state = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} doesn't fit the network of {DESCRIPTION}: {error}") from error
