"""From a cluster file, an address or ``local`` to a client whose workers can do the work."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from distributed import Client
from distributed.comm.core import CommClosedError
from pydantic import BaseModel, ValidationError

from deepprofile.cluster.base import ClusterError, ClusterSpec
from deepprofile.cluster.checks import check_workers
from deepprofile.cluster.kubernetes import KubernetesSpec
from deepprofile.cluster.local import CudaSpec, LocalSpec
from deepprofile.cluster.remote import AddressSpec, SshSpec
from deepprofile.cluster.slurm import SlurmSpec
from deepprofile.documents import RecipeError, read_document
from deepprofile.events import notice
from deepprofile.places import redacted

LOST = (
    "the scheduler of the cluster was lost ({error}): its process has ended, or the network to it. "
    "What was published stays. Start it again, look into its log for why it ended, and run the "
    "same command: it goes on from there."
)
LOCAL = "local"
SPECS: dict[str, type[ClusterSpec]] = {
    "local": LocalSpec,
    "cuda": CudaSpec,
    "ssh": SshSpec,
    "slurm": SlurmSpec,
    "kubernetes": KubernetesSpec,
    "address": AddressSpec,
}
"""Kinds of cluster files."""
EXAMPLES = {
    "memory": "such as 16GiB",
    "memory_limit": "such as 6GiB",
    "keep_idle": "such as 5 minutes",
    "workers_timeout": "such as 10 minutes",
}
"""Texts for keys that often get a number instead, for messages."""
INTERRUPTED = "interrupted: {kept}. What Dask says below of workers that it stops is no fault."
GOES_ON = "what was published stays, and the same command goes on from there"
NOTHING_KEPT = "what was not finished does not count, and the same command begins anew"


def connect(spec: str | Path | ClusterSpec = LOCAL) -> Client:
    """A Dask client on the cluster that ``spec`` describes.

    Args:
        spec: path of a cluster file (``cluster/*.yaml``), the address of a running scheduler
            (``tcp://host:port``, ``tls://…``), ``"local"`` for one worker process per core, or
            what `spec_of` makes of one of them.

    Returns:
        A client of a cluster that has a worker at least; closing it also stops a cluster that
        this call started. Worker processes are
        spawned, so a script calls this under ``if __name__ == "__main__":``.

    Raises:
        ClusterError: if the file is not valid, the cluster can't be started, no scheduler answers
            at the address, no worker joins in time, or the workers have other versions of what
            they need.
    """
    described = spec if isinstance(spec, ClusterSpec) else spec_of(str(spec))
    return described.connect(None if isinstance(described, LocalSpec) else check_workers)


@contextmanager
def connected(spec: str | Path | ClusterSpec = LOCAL, kept: str = NOTHING_KEPT) -> Iterator[Client]:
    """A client, see `connect`, that is closed at the end of the ``with`` block.

    Worker processes that are slow to stop are killed; on a busy machine even that may take longer
    than Dask waits for it, which is no fault of what was done.

    Args:
        spec: see `connect`.
        kept: what becomes of the work if it is interrupted, for the message.
    """
    with ExitStack() as stack:
        try:
            client = connect(spec)
            stack.callback(_close, client)
            with _named_if_lost(client):
                yield client
        except KeyboardInterrupt:
            notice("interrupted", INTERRUPTED.format(kept=kept))
            raise


def _close(client: Client) -> None:
    try:
        client.close()
    except TimeoutError:
        client.status = "closed"  # or Dask would wait for it once more, a minute, as Python ends


@contextmanager
def _named_if_lost(client: Client) -> Iterator[None]:
    """Name the cause of errors that are due to a scheduler that does not answer any more."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CommClosedError) or client.status != "running":
            raise ClusterError(LOST.format(error=type(error).__name__)) from error
        raise


def spec_of(text: str) -> ClusterSpec:
    """What a path, an address or ``local`` describes, see `connect`.

    Raises:
        ClusterError: if the file or the address is not valid.
    """
    if text == LOCAL:
        return LocalSpec()
    if "://" in text:
        try:
            return AddressSpec(kind="address", address=text)
        except ValidationError as error:
            raise ClusterError(f"cluster: {_problems(error, AddressSpec)}") from None
    return read_spec(Path(text))


def read_spec(path: Path) -> ClusterSpec:
    """The cluster that a file describes.

    Raises:
        ClusterError: if it can't be read, or a key or value is not allowed.
    """
    document = _document(path)
    kind = document.get("kind", "local")
    if not isinstance(kind, str) or kind not in SPECS:
        raise ClusterError(
            f"cluster {path}: kind: found {kind!r}; expected one of {', '.join(SPECS)}"
        )
    if isinstance(document.get("tls"), dict):
        document["tls"] = {
            key: str(path.absolute().parent / Path(value).expanduser())
            if isinstance(value, str)
            else value
            for key, value in document["tls"].items()
        }
    try:  # as JSON, in which strict takes lists for tuples, and true for no number
        return SPECS[kind].model_validate_json(
            json.dumps(document, default=str), strict=True, context={"file": path}
        )
    except ValidationError as error:
        allowed = ", ".join(SPECS[kind].model_fields)
        raise ClusterError(
            f"cluster {path}: {_problems(error, SPECS[kind])}. Allowed keys of kind {kind}: "
            f"{allowed}"
        ) from error


def _document(path: Path) -> dict[str, Any]:
    try:
        return read_document(path, "kind")
    except RecipeError as error:
        if isinstance(error.__cause__, OSError):
            raise ClusterError(
                f"cluster {path}: can't be read ({error.__cause__.strerror}). Expected a file of "
                "cluster/, a scheduler address such as tcp://host:8786, or 'local'."
            ) from error
        raise ClusterError(f"cluster {error}") from error


def _problems(error: ValidationError, spec: type[ClusterSpec]) -> str:
    return redacted("; ".join(_problem(one, spec) for one in error.errors()))


def _problem(one: Mapping[str, Any], spec: type[ClusterSpec]) -> str:
    key, found = ".".join(map(str, one["loc"])), one["input"]
    said = one["msg"].removeprefix("Value error, ")
    match one["type"]:
        case "missing":
            return f"{key}: is missing and must be given"
        case "extra_forbidden":
            return f"{key}: unknown key{_meant(one['loc'], spec)}"
        case "tuple_type" | "list_type":
            said = f"expected a list, such as [{json.dumps('...' if found is None else found)}]"
        case "string_type":
            said = f"expected a text, {EXAMPLES.get(key, 'in quotes')}"
        case "int_type":
            said = "expected a whole number"
        case "model_type":
            said = "expected keys with values"
    return f"{key}: found {found!r}, {said}" if key else said


def _meant(location: tuple[int | str, ...], spec: type[BaseModel]) -> str:
    """The key that may be meant by an unknown one; without any, those of its section."""
    for part in location[:-1]:
        annotation = spec.model_fields[str(part)].annotation
        parts = (annotation, *get_args(annotation))
        spec = next(one for one in parts if isinstance(one, type) and issubclass(one, BaseModel))
    near = get_close_matches(str(location[-1]), spec.model_fields, n=1)
    if near:
        return f", did you mean {near[0]}?"
    return f", expected one of {', '.join(spec.model_fields)}" if location[1:] else ""
