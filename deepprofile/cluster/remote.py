"""Clusters on other machines: by SSH, or a scheduler that runs already."""

import asyncio
import re
import sys
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Literal, Self

from distributed import Client
from distributed.security import Security
from pydantic import AfterValidator, Field, model_validator

from deepprofile.cluster.base import (
    ALLOWED_FAILURES,
    ClusterError,
    ClusterSpec,
    Count,
    LimitedSpec,
    OwningClient,
    PatientClient,
    Section,
    extra_module,
    started,
)
from deepprofile.cluster.checks import unguard
from deepprofile.cluster.process import set_environment, worker_environment
from deepprofile.cluster.unreachable import explain
from deepprofile.events import notice
from deepprofile.places import redacted

LOGIN_SECONDS = 30
"""How long a machine may take to let SSH in."""
IMPORT_SECONDS = 120
"""How long a machine may take to import Dask, from a cold file system."""
CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""
ADDRESS = re.compile(r"(tcp|tls)://([^\s/@:\[\]]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}")
"""Addresses of schedulers, with the host by name or number."""
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "10m",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(ALLOWED_FAILURES),
}
"""Environment with which a scheduler that is started by hand treats jobs as the others do."""


class SshSpec(LimitedSpec):
    """Worker processes on machines that SSH reaches, with the same Python environment.

    Attributes:
        hosts: names or addresses: of the scheduler, then of the machines of the workers.
        workers_per_host: worker processes on each machine.
        cores_per_host: cores of each machine that they share.
        python: Python on the machines; null means the path of this one.
        user: name to log in with; null means what SSH is configured for.
        keys: private keys; empty for what SSH is configured for.
        known_hosts: file of known hosts; null means the user's own.
    """

    kind: Literal["ssh"]
    hosts: Annotated[list[str], Field(min_length=2)]
    workers_per_host: Count = 1
    cores_per_host: Count = 1
    python: str | None = None
    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    keys: tuple[str, ...] = ()
    known_hosts: str | None = None

    def start(self) -> Client:
        """Start scheduler and workers on the machines."""
        module = extra_module("asyncssh", "ssh", "use another cluster")
        from distributed import SSHCluster

        threads = self.workers_per_host * self.threads_per_worker
        set_environment(worker_environment(threads, self.cores_per_host))
        known = {"known_hosts": self.known_hosts} if self.known_hosts else {}
        options = {"username": self.user, "client_keys": list(self.keys) or None, "port": self.port}
        chosen = {name: value for name, value in options.items() if value is not None}
        connect_options = {**chosen, **known}
        _run_apart(self._check_hosts(module, connect_options))
        cluster = started(
            f"ssh {', '.join(self.hosts)}",
            lambda: SSHCluster(
                self.hosts,
                connect_options=connect_options,
                worker_options={
                    "nthreads": self.threads_per_worker,
                    "memory_limit": self.memory_limit,
                    "n_workers": self.workers_per_host,
                },
                scheduler_options={"dashboard_address": ":0"},
                remote_python=self.python,
            ),
        )
        return OwningClient(cluster)

    async def _check_hosts(self, asyncssh: Any, options: Mapping[str, Any]) -> None:
        """Log into all machines: where one refuses, Dask does not say which."""
        command = f'{self.python or sys.executable} -c "import distributed"'

        async def problem(host: str) -> str:
            try:
                async with asyncssh.connect(
                    host, connect_timeout=LOGIN_SECONDS, **options
                ) as connection:
                    done = await connection.run(command, timeout=IMPORT_SECONDS)
            except TimeoutError:
                return f"{host}: no answer within {LOGIN_SECONDS} s"
            except asyncssh.TimeoutError:
                return f"{host}: `{command}` has not ended there within {IMPORT_SECONDS} s"
            except (OSError, ValueError, asyncssh.Error) as error:
                return f"{host}: {error}"
            lines = str(done.stderr).strip().splitlines() or ["no output"]
            return f"{host}: `{command}` fails there ({lines[-1]})" if done.exit_status else ""

        hosts = list(dict.fromkeys(self.hosts))
        found = zip(hosts, await asyncio.gather(*map(problem, hosts)), strict=True)
        problems = {host: said for host, said in found if said}
        if problems:
            who = f"{self.user}@" if self.user else ""
            login = f"ssh -p {self.port} {who}{next(iter(problems))} true"
            raise ClusterError(
                f"SSH can't start Dask on {len(problems)} of {len(hosts)} machines: "
                f"{'; '.join(problems.values())}. `{login}` must work without a question: with a "
                "key that has no passphrase, and a known host. Keys of the cluster file for it: "
                "hosts, port, user, keys, known_hosts; and python, where it lies elsewhere there"
            )


def _run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run this in a thread of its own: this one may have a loop, and Ctrl-C ends the wait."""
    ended: Future[None] = Future()

    def run() -> None:
        try:
            ended.set_result(asyncio.run(work))
        except BaseException as error:
            ended.set_exception(error)

    Thread(target=run, name="deepprofile-ssh", daemon=True).start()
    ended.result()


class Tls(Section):
    """Certificates for a scheduler at ``tls://…``.

    Attributes:
        ca_file: certificate of the authority that has signed the others.
        cert: own certificate.
        key: its key.
    """

    ca_file: str
    cert: str
    key: str
    _file: Path | None = None

    def model_post_init(self, context: Any) -> None:
        """Keep which cluster file it is, for messages."""
        self._file = context["file"] if context else None

    def security(self) -> Security:
        """What Dask needs to know.

        Raises:
            ClusterError: if a file is not there.
        """
        for name, path in self.model_dump().items():
            if not Path(path).expanduser().is_file():
                where = f"cluster {self._file}: " if self._file else ""
                raise ClusterError(
                    f"{where}tls.{name}: there is no file {path}. Expected a PEM file"
                )
        files = {name: str(Path(path).expanduser()) for name, path in self.model_dump().items()}
        return Security(
            tls_ca_file=files["ca_file"],
            tls_client_cert=files["cert"],
            tls_client_key=files["key"],
            require_encryption=True,
        )


class _JoinedClient(PatientClient):
    """A client of a scheduler that outlives it."""

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """See `distributed.Client.close`."""
        if self.status == "running":
            unguard(self)
        return super().close(*args, **kwargs)  # type: ignore[no-untyped-call]


def _joined(address: str, security: Security | None) -> PatientClient:
    return _JoinedClient(address, timeout=CONNECT_SECONDS, security=security)


def _look_at_settings(client: Client) -> None:
    """Say so where jobs would wait for ever once all workers are lost."""
    found: tuple[float | None, int] | None = None
    with suppress(Exception):  # a scheduler may refuse to say
        # This travels whole: a scheduler may be without deepprofile.
        found = client.run_on_scheduler(
            lambda dask_scheduler: (
                dask_scheduler.no_workers_timeout,
                dask_scheduler.allowed_failures,
            )
        )
    if found is not None and found[0] is None:
        settings = " ".join(f"{name}={value}" for name, value in SETTINGS.items())
        notice(
            "scheduler settings",
            "this scheduler has jobs wait for ever once all workers are lost, and lets a job lose "
            f"{found[1]} workers before it fails. Start it with {settings}",
        )


def _an_address(text: str) -> str:
    if ADDRESS.fullmatch(text) is None or not 1 <= int(text.rpartition(":")[2]) <= 65535:
        raise ValueError("expected tcp://HOST:PORT or tls://HOST:PORT, such as tcp://host:8786")
    return text


class AddressSpec(ClusterSpec):
    """A scheduler that runs already.

    It has its own time for jobs without a worker, and its own number of workers that a job may
    lose; where that time is endless, joining it says so.

    Attributes:
        address: ``tcp://host:port`` or ``tls://host:port``.
        tls: certificates for ``tls://``.
    """

    kind: Literal["address"]
    address: Annotated[str, AfterValidator(_an_address)]
    tls: Tls | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tls is not None and not self.address.startswith("tls://"):
            raise ValueError(f"address {redacted(self.address)}: with tls expected tls://…")
        return self

    def start(self) -> Client:
        """Join the scheduler."""
        security = self.tls.security() if self.tls else None
        try:
            client = _joined(self.address, security)
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(explain(self.address, security, error)) from None
        client.advice = (
            f"Start some with `dask worker {redacted(self.address)}`, or look why those that run "
            "can't reach the scheduler. A cluster file may give a longer workers_timeout."
        )
        _look_at_settings(client)
        return client
