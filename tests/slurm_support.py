"""A Slurm of one node on this machine: its own daemons, key, ports and folder."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from cluster_support import free_ports

DAEMONS = ("munged", "slurmctld", "slurmd")
CORES = 4
"""Cores that the node claims, however many it has: those of two batch jobs of a test."""
MEMORY_MB = 8000
PATIENCE = 120.0

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 Sockets=1 CoresPerSocket={cores} ThreadsPerCore=1 \
RealMemory={memory}
PartitionName=compute Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurmError(RuntimeError):
    """Slurm can't run here, and why."""


@contextmanager
def slurm():
    """Run the daemons; ``SLURM_CONF`` names the cluster meanwhile.

    Raises:
        NoSlurmError: if a daemon is not installed, or doesn't come to life.
    """
    missing = [name for name in DAEMONS if shutil.which(name, path="/usr/sbin:/usr/bin") is None]
    if missing:
        raise NoSlurmError(f"not installed: {', '.join(missing)} (Debian: slurm-wlm)")
    if os.geteuid():
        raise NoSlurmError("slurmd needs root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _configure(folder)
        for name, *options in _commands(folder):
            daemons.append(_start(folder, name, *options))
        _wait_until_idle(folder, daemons)
        yield
    finally:
        _stop(daemons)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def ask(*command):
    """What a command of Slurm says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout


def queue():
    """Numbers of the batch jobs that are queued or running, and their states."""
    lines = ask("squeue", "--noheader", "--states=PD,R", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def wait_until(condition, what):
    """Wait for something that comes to be true."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}; the queue: {queue()}")
        time.sleep(0.1)
    return found


def _configure(folder):
    for name in ("munge", "state", "spool", "logs"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    controller_port, node_port = free_ports(2)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            user="root",
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
            cores=CORES,
            memory=MEMORY_MB,
        )
    )


def _commands(folder):
    munge = {"key-file": "key", "socket": "socket", "log-file": "log", "pid-file": "pid"}
    files = {**munge, "seed-file": "seed"}
    options = [f"--{option}={folder / 'munge' / name}" for option, name in files.items()]
    yield "munged", "--foreground", "--force", "--num-threads=1", *options
    yield "slurmctld", "-D", "-c"
    yield "slurmd", "-D"


def _start(folder, name, *options):
    path = shutil.which(name, path="/usr/sbin:/usr/bin")
    with (folder / "logs" / name).open("wb") as log:
        process = subprocess.Popen([path, *options], stdout=log, stderr=log)
    if name == "munged":
        _wait(folder, [process], (folder / "munge" / "socket").exists)
    return process


def _wait_until_idle(folder, daemons):
    def idle():
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() == "idle"

    _wait(folder, daemons, idle)


def _wait(folder, daemons, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end or any(daemon.poll() is not None for daemon in daemons):
            logs = "\n".join(
                f"{path.name}: {path.read_text(errors='replace')[-2000:]}"
                for path in sorted((folder / "logs").iterdir())
            )
            raise NoSlurmError(f"the daemons don't come to life:\n{logs}")
        time.sleep(0.1)


def _stop(daemons):
    """Cancel all batch jobs, wait for their end, stop the daemons and what they have started."""
    with suppress(Exception):
        ask("scancel", "--user=root", "--full")
        wait_until(lambda: not ask("squeue", "--noheader"), "batch jobs don't end")
    started = []
    for daemon in reversed(daemons):
        with suppress(psutil.NoSuchProcess):
            started += psutil.Process(daemon.pid).children(recursive=True)
        daemon.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(20)
    for process in [*daemons, *started]:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.kill()
    for daemon in daemons:
        daemon.wait(20)


@dataclass(frozen=True)
class Patient:
    """A job that says where it runs and waits for leave to end."""

    number: int
    folder: str

    @property
    def key(self):
        return f"patient {self.number}"


def wait_for_leave(job):
    """The square of the job's number and the batch job that it ended in."""
    folder, batch_job = Path(job.folder), os.environ["SLURM_JOB_ID"]
    (folder / f"started-{batch_job}-{job.number}").touch()
    end = time.monotonic() + PATIENCE
    while not (folder / "leave").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return job.number**2, batch_job
