"""Run by a nanny before it starts its worker: ``dask worker … --preload-nanny`` with this module.

The environment must be there when the worker's process starts: libraries read it as they load.
What the user, or the scheduler of a computing centre, has set stays.
"""

import os
from typing import Any

from deepprofile.cluster.process import (
    cores,
    keep_from_deadlock,
    with_own_threads,
    worker_environment,
)

PROCESSES = "DEEPPROFILE_PROCESSES"
"""Environment variable: worker processes that share the machine or the batch job; 1 by default."""
CORES = "DEEPPROFILE_CORES"
"""Environment variable: cores that they share, where a process can't see that it has not all of the
machine's (a share of time, as pods have, or no binding); by default those that it sees."""


def dask_setup(nanny: Any) -> None:
    """Called by Dask with the nanny."""
    keep_from_deadlock()
    processes = int(os.environ.get(PROCESSES, "1"))
    n_cores = int(os.environ.get(CORES) or cores())
    values = with_own_threads(worker_environment(processes * (nanny.nthreads or 1), n_cores))
    for name, value in values.items():
        if name not in os.environ:
            # The second is what the process sets again once it has started.
            nanny.pre_spawn_env[name] = nanny.env[name] = value
