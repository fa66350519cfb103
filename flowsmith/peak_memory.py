"""The most memory that a process ever held."""

import resource
import sys
from pathlib import Path

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def own_peak() -> int:
    """Return the most that this process held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux lets a process begin its ru_maxrss with what the one that started it held.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def children_peak() -> int:
    """Return the most that one of the processes that this one waited for held, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _UNIT
