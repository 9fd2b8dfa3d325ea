"""Machines of a test: network namespaces, each with a cable to this one that can be pulled."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

from cluster_support import wait_for_line

READY = "Registered to"


class NoNetworkError(RuntimeError):
    """Network namespaces can't be made here, and why."""


class Machine:
    """A network namespace that reaches this one through a cable alone.

    Attributes:
        name: of the namespace.
        gateway: address of this end of the cable.
        address: address of the other end.
    """

    def __init__(self, number):
        self.name = f"dp{os.getpid()}-{number}"
        self.link, peer = f"dp{os.getpid() % 100000}v{number}", f"dp{os.getpid() % 100000}w{number}"
        network = f"10.{200 + number}.{os.getpid() % 250}"
        self.gateway, self.address = f"{network}.1", f"{network}.2"
        self.inside = peer

    def __enter__(self):
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self.link, "type", "veth", "peer", "name", self.inside)
            _ip("link", "set", self.inside, "netns", self.name)
            _ip("address", "add", f"{self.gateway}/30", "dev", self.link)
            _ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", self.inside)
            for device in ("lo", self.inside):
                _ip("-n", self.name, "link", "set", device, "up")
            _ip("-n", self.name, "route", "add", "default", "via", self.gateway)
            self.plug_in()
        except NoNetworkError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        _ip("netns", "delete", self.name)

    def pull_out(self):
        _ip("link", "set", self.link, "down")

    def plug_in(self):
        _ip("link", "set", self.link, "up")

    def sent_again(self):
        """TCP segments that the machine has sent again, as nobody confirmed them."""
        lines = _ip("netns", "exec", self.name, "cat", "/proc/net/snmp").splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(dict(zip(names, values, strict=True))["RetransSegs"])


@contextmanager
def machines(count):
    """So many machines.

    Raises:
        NoNetworkError: if there can't be any.
    """
    if shutil.which("ip") is None:
        raise NoNetworkError("the command ip is not installed (Debian: iproute2)")
    with ExitStack() as stack:
        yield [stack.enter_context(Machine(number)) for number in range(count)]


@contextmanager
def worker_on(machine, scheduler, env, *options):
    """A worker process with a nanny on a machine, which is started anew whenever it has ended.

    So it is with pods and services: a worker that finds itself cut off ends.
    """
    worker = [
        *(
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            scheduler,
            "--host",
            machine.address,
        ),
        *("--no-dashboard", "--nthreads", "1", *options),
    ]
    forever = f"while true; do {shlex.join(worker)}; sleep 0.1; done"
    process = subprocess.Popen(
        ["ip", "netns", "exec", machine.name, "sh", "-c", forever],
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        wait_for_line(process, READY)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
