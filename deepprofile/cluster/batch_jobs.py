"""What becomes of the batch jobs of a Slurm cluster: submitted, queued, running, lost."""

import asyncio
import getpass
import logging
import math
import re
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Adaptive
from distributed.deploy.cluster import Cluster
from distributed.scheduler import WorkerState
from distributed.utils import format_dashboard_link

from deepprofile.cluster.base import ClusterError, Outlook
from deepprofile.cluster.checks import REFUSED

COMMAND_SECONDS = 60
"""How long a command of Slurm may take."""
REFUSED_JOBS = 3
"""Batch jobs with workers of other versions, from which on no other takes the place of one."""
LOG = logging.getLogger("deepprofile.cluster")
KEYS = {
    "-p": "queue",
    "-A": "account",
    "--cpus-per-task": "cores",
    "--mem": "memory",
    "-t": "walltime",
    "--gpus": "gpus",
}
"""Options of sbatch, and the keys of a cluster file that give them."""
NO_SLURM = (
    *("configuration source", "configuration file", "slurm controller", "control machine address"),
    *("has not answered", "timed out", "zero bytes", "munge", "authentication error"),
)
"""Words of commands on a machine where Slurm is not set up, or does not answer."""


def batch_job(worker: WorkerState) -> str:
    """Name of the batch job of a worker, one of several in it."""
    return _job_name(str(worker.name))


class WholeJobs(Adaptive):
    """Adapts by whole batch jobs.

    Dask's own counts workers: it would cancel a batch job that is queued, or that works, for one of
    its workers that is not needed.
    """

    async def target(self) -> int:
        """Workers that the work asks for, as many as whole batch jobs have."""
        cluster: Any = self.cluster
        asked: int = await super().target()  # type: ignore[no-untyped-call]
        size = max(1, len(cluster.new_spec.get("group", ())))
        return math.ceil(asked / size) * size

    async def scale_down(self, workers: Any) -> None:
        """Give back the batch jobs of which all workers are named."""
        cluster: Any = self.cluster
        named: set[str] = set(workers)
        whole: set[str] = set()
        for name, spec in cluster.worker_spec.items():
            members = {f"{name}{suffix}" for suffix in spec.get("group", [""])}
            whole |= members if members <= named else set()
        await super().scale_down(sorted(whole))


def _job_name(worker: str) -> str:
    """The name of a worker is that of its batch job and a number."""
    return worker.rpartition("-")[0]


def replacing(kind: Any) -> Any:
    """The same kind of cluster, which submits anew what it has lost.

    dask-jobqueue's own overlooks a lost batch job of several workers, and replaces one of a
    single worker only while it adapts.

    Args:
        kind: dask-jobqueue's class.
    """

    class Replacing(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._refused: set[str] = set()
            super().__init__(*args, **kwargs)

        def new_worker_spec(self) -> dict[str, Any]:
            # No name twice: what is heard late of a batch job must not be taken for a later one.
            self._i += 1
            made: dict[str, Any] = super().new_worker_spec()
            return made

        def _update_worker_status(self, op: str, msg: Any) -> None:
            if op == "remove":
                worker = self.scheduler_info["workers"][msg]["name"]
                name = worker if worker in self.workers else _job_name(worker)
                seconds = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
                # A strong reference would be one too many when the cluster closes meanwhile.
                lost = weakref.ref(self.workers[name]) if name in self.workers else None
                asyncio.get_running_loop().call_later(seconds, self._replace, name, msg, lost)
            # SpecCluster's own would forget the batch job, so that it is submitted anew.
            Cluster._update_worker_status(self, op, msg)

        @property
        def dashboard_link(self) -> str:
            # The scheduler of a run listens to all, its dashboard to this machine alone.
            port = self.scheduler_info.get("services", {}).get("dashboard")
            return str(format_dashboard_link("127.0.0.1", port)) if port else ""

        async def _close(self) -> None:
            self._created.clear()  # dask-jobqueue's jobs never say that they are closed
            await super()._close()

        def _replace(self, name: str, address: str, lost: Any) -> None:
            there = {known["name"] for known in self.scheduler_info["workers"].values()}
            alive = name in there or any(_job_name(other) == name for other in there)
            asked = name in self.worker_spec and name in self.workers
            same = asked and lost is not None and lost() is self.workers[name]
            if same and not alive and not self._is_given_up(str(lost().job_id), address):
                self._futures.add(asyncio.ensure_future(self.workers.pop(name).close()))
                self.loop.add_callback(self._correct_state)

        def _is_given_up(self, job_id: str, address: str) -> bool:
            """Whether a batch job in place of this one would have other versions, too."""
            events = self.scheduler.get_events(REFUSED)
            if address not in {refused for _, (refused, _) in events}:
                return False
            before = len(self._refused)
            self._refused.add(job_id)
            if before < len(self._refused) == REFUSED_JOBS:
                LOG.warning(
                    "%d batch jobs had workers with other versions than this process: no more are "
                    "submitted in their place. Mend the environment of the batch jobs (python and "
                    "prologue of the cluster file), stop this command, and run it again",
                    REFUSED_JOBS,
                )
            return len(self._refused) >= REFUSED_JOBS

    Replacing.__name__ = kind.__name__
    return Replacing


def try_to_submit(script: str, file: Mapping[str, Any]) -> None:
    """Ask Slurm whether it would take a batch job, without submitting it.

    Args:
        script: the batch job.
        file: keys and values of the cluster file.

    Raises:
        ClusterError: if there is no Slurm, it does not answer, or it refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.sh"
        path.write_text(script)
        code, said = _run("sbatch", "--test-only", str(path))
    if not code:
        return
    said = "; ".join(list(dict.fromkeys(said.splitlines()))[-2:])
    if any(words in said.lower() for words in NO_SLURM):
        raise ClusterError(
            f"Slurm is not set up on this machine, or does not answer: {said}. Run this where "
            "`sinfo` shows the partitions, such as on a login node, or use another cluster"
        )
    raise ClusterError(
        f"Slurm would not take the batch jobs: {said}. What the cluster file asks for, and in "
        f"brackets the option of sbatch: {_asked(script, file)}. Give it a queue, account, cores, "
        "memory and walltime that `sinfo` and `sacctmgr` show"
    )


def _asked(script: str, file: Mapping[str, Any]) -> str:
    """What a batch job asks for, with the keys of the cluster file."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    options = [line.removeprefix("#SBATCH ") for line in lines]
    given = {option: KEYS.get(re.split("[ =]", option)[0]) for option in options}
    asked = [f"{key}: {file[key]} ({o})" for o, key in given.items() if key and file[key]]
    return ", ".join([*asked, *(f"directives: {option}" for option in file["directives"])])


def look(cluster: Any, output: str) -> Outlook:
    """What Slurm says of the batch jobs of a cluster, as long as no worker has joined.

    Args:
        cluster: of batch jobs.
        output: where they write.
    """
    asked = {str(job.job_id) for job in list(cluster.workers.values()) if job.job_id}
    if set(cluster.worker_spec) - set(cluster.workers):
        return Outlook("batch jobs are being submitted")
    if not asked:
        return Outlook("no batch job is submitted", hopeless=True)
    code, said = _run("squeue", f"--user={getpass.getuser()}", "--noheader", "--format=%i %T %r")
    if code:
        return Outlook(f"squeue does not answer: {said}")
    found = [line.split(maxsplit=2) for line in said.splitlines()]
    there = [line for line in found if line and line[0] in asked]
    if not there:
        advice = (
            f"What it wrote ({output}) says why: prologue or python may fail on the nodes, or the "
            "interface may not be there. Mend it, and run this again."
        )
        return Outlook(f"batch job {', '.join(sorted(asked))} has ended", True, advice)
    words = [
        f"{number} is {state.lower()}{f' ({why})' if why != 'None' else ''}"
        for number, state, why in there
    ]
    return Outlook(f"batch job {'; '.join(words)}")


def _run(*command: str) -> tuple[int, str]:
    """Exit code of a command, and what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ClusterError(
            f"a cluster of kind slurm needs Slurm's command {command[0]}, which is not here. Run "
            "this on a login node, or use another cluster"
        ) from None
    except subprocess.TimeoutExpired:
        return 1, f"{command[0]} has not answered within {COMMAND_SECONDS} s"
    return done.returncode, (done.stderr.strip() if done.returncode else done.stdout)
