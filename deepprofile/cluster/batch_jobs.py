"""What becomes of the batch jobs of a Slurm cluster: submitted, queued, running, lost."""

import asyncio
import getpass
import math
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Adaptive
from distributed.scheduler import WorkerState

from deepprofile.cluster.base import ClusterError, Outlook

COMMAND_SECONDS = 60
"""How long a command of Slurm may take."""


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
                asyncio.get_running_loop().call_later(seconds, self._replace, name, lost)
            super()._update_worker_status(op, msg)

        async def _close(self) -> None:
            self._created.clear()  # dask-jobqueue's jobs never say that they are closed
            await super()._close()

        def _replace(self, name: str, lost: Any) -> None:
            there = {known["name"] for known in self.scheduler_info["workers"].values()}
            alive = name in there or any(_job_name(other) == name for other in there)
            asked = name in self.worker_spec and name in self.workers
            if asked and not alive and lost is not None and lost() is self.workers[name]:
                self._futures.add(asyncio.ensure_future(self.workers.pop(name).close()))
                self.loop.add_callback(self._correct_state)

    Replacing.__name__ = kind.__name__
    return Replacing


def try_to_submit(script: str) -> None:
    """Ask Slurm whether it would take a batch job, without submitting it.

    Raises:
        ClusterError: if there is no Slurm, it does not answer, or it refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.sh"
        path.write_text(script)
        code, said = _run("sbatch", "--test-only", str(path))
    if code:
        directives = [line for line in script.splitlines() if line.startswith("#SBATCH")]
        raise ClusterError(
            f"Slurm would not take the batch jobs: {said}. What was asked for: "
            f"{', '.join(line.removeprefix('#SBATCH ') for line in directives)}. Give the cluster "
            "file a queue, account, cores, memory and walltime that `sinfo` and `sacctmgr` show"
        )


def look(cluster: Any) -> Outlook:
    """What Slurm says of the batch jobs of a cluster, as long as no worker has joined."""
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
        return Outlook(f"batch job {', '.join(sorted(asked))} has ended", hopeless=True)
    words = [f"{number} is {state.lower()} ({why})" for number, state, why in there]
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
