"""From a cluster file, an address or ``local`` to a client whose workers can do the work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from distributed import Client
from distributed.comm.core import CommClosedError
from pydantic import ValidationError

from deepprofile.cluster.base import ClusterError, ClusterSpec
from deepprofile.cluster.checks import check_workers
from deepprofile.cluster.kubernetes import KubernetesSpec
from deepprofile.cluster.local import CudaSpec, LocalSpec
from deepprofile.cluster.remote import AddressSpec, SshSpec
from deepprofile.cluster.slurm import SlurmSpec
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
        ClusterError: if the file is not valid.
    """
    if text == LOCAL:
        return LocalSpec()
    if "://" in text:
        return AddressSpec(kind="address", address=text)
    return read_spec(Path(text))


def read_spec(path: Path) -> ClusterSpec:
    """The cluster that a file describes.

    Raises:
        ClusterError: if it can't be read, or a key or value is not allowed.
    """
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClusterError(
            f"cluster {path}: can't be read ({error.strerror}). "
            "Expected a file of cluster/, a scheduler address such as tcp://host:8786, or 'local'."
        ) from error
    except yaml.YAMLError as error:
        raise ClusterError(f"cluster {path}: is not valid YAML: {error}") from error
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise ClusterError(f"cluster {path}: expected keys such as kind; found {document!r}")
    kind = document.get("kind", "local")
    if kind not in SPECS:
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
    try:
        return SPECS[kind].model_validate(document)
    except ValidationError as error:
        allowed = ", ".join(SPECS[kind].model_fields)
        raise ClusterError(
            f"cluster {path}: {_problems(error)}. Allowed keys of kind {kind}: {allowed}"
        ) from error


def _problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        said = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            lines.append(f"{key}: is missing and must be given")
        elif key:
            lines.append(f"{key}: found {problem['input']!r}, {said}")
        else:
            lines.append(said)
    return redacted("; ".join(lines))
