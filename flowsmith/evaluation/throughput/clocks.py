"""Seconds by the clock on the wall, and by that of the processors, which others on the machine disturb less."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Seconds:
    """What something took.

    Attributes:
        wall: Seconds that went by.
        cpu: Seconds of processors that this process used.
    """

    wall: float
    cpu: float


def timed(work: Callable[[], T]) -> tuple[T, Seconds]:
    """Do something; return what it returns, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def ratio(slow: Seconds, fast: Seconds) -> dict[str, float]:
    """Return how many times as long the one took as the other, by both clocks."""
    return {"wall": slow.wall / fast.wall, "cpu": slow.cpu / fast.cpu}


def conditions(threads: int) -> dict[str, float | int]:
    """Return what a measurement was made under: threads, processors, and how many processes wanted to run."""
    return {
        "threads": threads,
        "processors": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 1),
    }
