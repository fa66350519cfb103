"""Logged scalars as JSON lines: what a person greps and a script reads without TensorBoard."""

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger


class JsonlLogger(Logger):
    """Appends one line ``{"start": n, "step": s, name: value, …}`` per call to ``metrics.jsonl``.

    A run that was resumed may log a step again: the line of the later start counts.

    Args:
        folder: The run's folder.
        start: Number of this start.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        super().__init__()
        self.file = folder / "metrics.jsonl"
        self.start = start

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.file.parent.name

    @property
    def version(self) -> int:
        """Number of the start."""
        return self.start

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the resolved config lies beside the log."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one line. Numbers that JSON lacks (NaN, infinities) are written as strings."""
        row: dict[str, Any] = {"start": self.start, "step": step}
        row |= {name: v if math.isfinite(v := float(value)) else str(v) for name, value in metrics.items()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab+") as stream:
            # A process killed in the middle of a line must not spoil the first line of the next start.
            if stream.tell() and not self._ends_line(stream):
                stream.write(b"\n")
            stream.write(json.dumps(row).encode() + b"\n")

    @staticmethod
    def _ends_line(stream: Any) -> bool:
        stream.seek(-1, 2)
        return bool(stream.read(1) == b"\n")
