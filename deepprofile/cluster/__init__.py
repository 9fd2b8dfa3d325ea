"""Dask clusters: where to run."""

from deepprofile.cluster.connecting import LOCAL, connect, connected
from deepprofile.cluster.process import ENVIRONMENT, cores, keep_from_deadlock
from deepprofile.cluster.specs import ClusterError, LocalSpec

__all__ = [
    "ENVIRONMENT",
    "LOCAL",
    "ClusterError",
    "LocalSpec",
    "connect",
    "connected",
    "cores",
    "keep_from_deadlock",
]
