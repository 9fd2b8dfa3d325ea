"""Memory of processes that a benchmark watches."""

import psutil

INTERVAL = 1.0
"""Seconds between two looks at the memory."""


def pss(process: psutil.Process) -> int:
    """Proportional set size in bytes: pages that processes share count once."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
