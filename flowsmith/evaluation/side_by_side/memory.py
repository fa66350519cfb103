"""Peak memory of one trainer in a process of its own, above what the process held once all was imported.

python -m flowsmith.evaluation.side_by_side.memory WORK FOLDER TRAINER CYCLES ACCUMULATION
"""

import gc
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.side_by_side import work as works
from flowsmith.evaluation.side_by_side.ours import Trainer
from flowsmith.evaluation.side_by_side.trl_trainer import trl_trainer
from flowsmith.evaluation.side_by_side.work import Work, load_model
from flowsmith.peak_memory import own_peak

WORKS = {work.name: work for work in (works.SMALL, works.LARGE, works.HALF_BILLION)}


def peak_memory(work: Work, folder: Path, trainer: str, cycles: int = 2, accumulation: int = 1) -> float:
    """Return MB above the idle process.

    Args:
        work: One of `WORKS`.
        folder: What `write_model` wrote.
        trainer: ``ours`` or ``trl``.
        cycles: How many are done.
        accumulation: TRL's micro-batches in a step.

    Raises:
        FlowsmithError: The process failed.
    """
    command = [
        sys.executable,
        "-m",
        __name__,
        work.name,
        str(folder),
        trainer,
        str(cycles),
        str(accumulation),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FlowsmithError(f"measuring the memory of {trainer} failed: {done.stderr[-2000:]}")
    measured: float = json.loads(done.stdout.splitlines()[-1])["mb"]
    return measured


def _measure(name: str, folder: Path, trainer: str, cycles: int, accumulation: int) -> float:
    import transformers
    from transformers import LlamaForCausalLM  # noqa: F401

    psutil: Any = importlib.import_module("psutil")
    if trainer == "trl":
        importlib.import_module("datasets")
        assert importlib.import_module("trl").GRPOTrainer
    transformers.logging.set_verbosity_error()
    work = WORKS[name]
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.ones(8, 8).mm(torch.ones(8, 8))  # libraries that the first product loads
    gc.collect()
    idle: int = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as scratch:
        if trainer == "trl":
            theirs = trl_trainer(work, folder, cycles, accumulation=accumulation, scratch=Path(scratch))
            theirs.train()
        else:
            ours = Trainer(work, load_model(folder, work, device), load_model(folder, work, device))
            for _ in range(cycles):
                ours.cycle()
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    return (own_peak() - idle) / 2**20


def main(arguments: list[str]) -> None:
    """Measure and print."""
    name, folder, trainer, cycles, accumulation = arguments
    result: dict[str, Any] = {"mb": _measure(name, Path(folder), trainer, int(cycles), int(accumulation))}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
