"""Schedulers, workers and an SSH server of a test, each a process of its own on this machine."""

import asyncio
import datetime
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificates(folder: Path, *, days: int = 2) -> dict[str, str]:
    """An authority and a certificate of it that is valid from yesterday on for some days.

    Beside them lies ``expired.pem``: a certificate of the same authority and key that is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    own = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("authority", authority, "authority", authority, days, ca=True)
    leaf = _certificate("localhost", own, "authority", authority, days, ca=False)
    files = {
        "ca_file": root.public_bytes(serialization.Encoding.PEM),
        "cert": leaf.public_bytes(serialization.Encoding.PEM),
        "key": own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    }
    expired = _certificate("localhost", own, "authority", authority, -1, ca=False)
    (folder / "expired.pem").write_bytes(expired.public_bytes(serialization.Encoding.PEM))
    for name, content in files.items():
        (folder / f"{name}.pem").write_bytes(content)
    return {name: str(folder / f"{name}.pem") for name in files}


def _certificate(name, key, issuer, issuer_key, days, *, ca):
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
    subject, signer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)
    )
    builder = x509.CertificateBuilder(
        signer, subject, key.public_key(), x509.random_serial_number(), start,
        start + datetime.timedelta(days=2 + days),
    )  # fmt: skip
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


def tls_options(files: dict[str, str]) -> list[str]:
    return [
        "--tls-ca-file",
        files["ca_file"],
        "--tls-cert",
        files["cert"],
        "--tls-key",
        files["key"],
    ]


def free_ports(count: int) -> list[int]:
    """Ports of this machine on which nobody listens, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_for_line(process: subprocess.Popen, until: str) -> str:
    """The first line on the standard error of a process that holds a text."""
    seen: list[str] = []
    for line in process.stderr:
        seen.append(line)
        if until in line:
            break
    assert seen and until in seen[-1], "".join(seen)
    # Whoever does not read a pipe stops who writes to it.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return seen[-1]


@contextmanager
def dask_process(role: str, *arguments: str, until: str, env: dict[str, str] | None = None):
    """A scheduler or a worker; yields the line that says that it is ready."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{role}", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    try:
        yield wait_for_line(process, until)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def scheduler(*options: str, protocol: str = "tcp"):
    """A scheduler on a free port of this machine; its address."""
    where = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--protocol", protocol]
    with dask_process("scheduler", *where, *options, until="Scheduler at") as line:
        yield line.split("Scheduler at:")[1].strip()


@contextmanager
def worker(address: str, *options: str, env: dict[str, str] | None = None):
    """A worker process of a scheduler, with a nanny as the command line starts it."""
    arguments = [address, "--no-dashboard", *options]
    with dask_process("worker", *arguments, until="Registered to", env=env):
        yield


@contextmanager
def ssh_server(folder: Path):
    """An SSH server on this machine that runs commands; its port and the files of a client."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(folder / "key"))
    (folder / "authorized").write_bytes(key.export_public_key())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def relay(source, target):
        while data := await source.read(4096):
            target.write(data)

    async def client_gone(process):
        while not process.channel.is_closing():
            await asyncio.sleep(0.1)

    async def run(process):
        command = await asyncio.create_subprocess_shell(
            process.command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        output = asyncio.gather(
            relay(command.stdout, process.stdout), relay(command.stderr, process.stderr)
        )
        gone = asyncio.ensure_future(client_gone(process))
        await asyncio.wait({output, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGTERM)
            await asyncio.wait({output})
        gone.cancel()
        process.exit(await command.wait())

    async def listen():
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=str(folder / "authorized"),
            process_factory=run,
            encoding=None,
        )

    async def close():
        server.close()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=10)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(20)
    port = server.get_port()
    known = f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}"
    (folder / "known_hosts").write_text(known)
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
