"""Runs of a small stage that stands in for the real ones, and what they must come to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINE: dict[str, Any] = {
    "model": {"class_path": "tests.stand_ins.ExportingModule"},
    "data": {"class_path": "tests.stand_ins.LineData"},
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    },
}
Start = Callable[..., int]


def told(stage: str, what: str, rank: int = 0) -> list[Any]:
    rows = [json.loads(line) for line in Path(f"steps.{rank}.jsonl").read_text().splitlines()]
    return [row[what] for row in rows if row["stage"] == stage]


def steps(stage: str = "train", rank: int = 0) -> list[int]:
    return told(stage, "step", rank)


def weight(name: str = "line") -> float:
    found: float = json.loads(Path(f"runs/{name}/export/weight.json").read_text())["weight"]
    return found


def expected_weight(size: int = 2, epochs: int = 2, lr: float = 0.1) -> float:
    """Gradient descent on mean((w x - 2 x)^2) by hand, x = 0.1 … 1.2: dw = -lr * 2 (w - 2) mean(x^2)."""
    value = 0.0
    for _ in range(epochs):
        for start in range(1, 13, size):
            value -= lr * 2 * (value - 2) * sum((n / 10) ** 2 for n in range(start, start + size)) / size
    return value
