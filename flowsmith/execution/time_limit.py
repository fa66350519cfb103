"""A bound on how long nodes may run, looked at before every call of a denoising network."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flowsmith.execution.errors import ExecutionError

_end: ContextVar[float] = ContextVar("end", default=math.inf)


class TimeLimitError(ExecutionError):
    """A flow takes longer than it may."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let `check_time` raise after so many seconds, inside the context."""
    token = _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(token)


def check_time() -> None:
    """Return while there is time left.

    Raises:
        TimeLimitError: There is none.
    """
    if time.monotonic() > _end.get():
        raise TimeLimitError("the time limit is over")
