"""Dask clusters: where to run."""

from deepprofile.cluster.base import ClusterError
from deepprofile.cluster.connecting import LOCAL, connect, connected
from deepprofile.cluster.local import LocalSpec
from deepprofile.cluster.process import ENVIRONMENT, cores, keep_from_deadlock

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
