"""The share of images that hold what their prompts asked for, by GenEval's tasks and overall."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flowsmith.metrics.protocol import Judge, JudgeError, check_samples
from flowsmith.prompts import Prompt

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
OVERALL = "overall"

Checker = Callable[[Tensor, Prompt], bool | None]
"""Says whether a uint8 image of 3 x height x width holds what the prompt's facts ask for. None says that the
prompt asks for nothing it can check; an image that it cannot make out is False, or else mess would pay."""


def geneval_accuracies(verdicts: Sequence[float], tasks: Sequence[str]) -> dict[str, float]:
    """Return the share of right images per task, and ``overall``, the mean of the six tasks.

    The tasks weigh the same however many images each has, as in the paper. Where a task has no verdict, it is
    NaN and so is ``overall``: a mean of five is no GenEval score.

    Args:
        verdicts: 1 right, 0 wrong, NaN abstained (left out), one an image.
        tasks: Task of each image.
    """
    accuracies = {}
    for task in TASKS:
        mine = [v for v, t in zip(verdicts, tasks, strict=True) if t == task and not math.isnan(v)]
        accuracies[task] = sum(mine) / len(mine) if mine else math.nan
    return accuracies | {OVERALL: sum(accuracies.values()) / len(TASKS)}


class GenEval(Judge):
    """Accuracy of images against the facts of their prompts, 0 to 1.

    Args:
        checker: Decides one image; see `Checker`. `GenEvalChecker` is the published one; its networks follow the
            judge to its device and count in its hash.
        name: Column and log name.
    """

    checker: Checker

    def __init__(self, checker: Checker, name: str = "geneval") -> None:
        super().__init__(name, **({"checker": checker} if isinstance(checker, nn.Module) else {}))
        if not isinstance(checker, nn.Module):
            self.checker = checker
        self._add_sums((len(TASKS),))

    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Return 1 (right), 0 (wrong) or NaN (nothing to check, or no task of GenEval's) for each sample."""
        check_samples(images, prompts)
        verdicts = [
            self.checker(image, prompt) if prompt.task in TASKS else None
            for image, prompt in zip(images, _records(prompts), strict=True)
        ]
        return torch.tensor([math.nan if v is None else float(v) for v in verdicts], device=self.device)

    def update(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> None:
        """Judge a batch and add it to the accuracies of its tasks."""
        values = self.judge(images, prompts).to(self.total)
        tasks = torch.tensor(
            [TASKS.index(p.task) if p.task in TASKS else 0 for p in _records(prompts)], device=self.device
        )
        answered = ~values.isnan()
        self.total.index_add_(0, tasks[answered], values[answered])
        self.count += torch.bincount(tasks[answered], minlength=len(TASKS))
        self.abstained += (~answered).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the accuracy per task, ``overall`` (mean of the six), and ``abstained``, a count."""
        accuracies = (self.total / self.count).float()
        return {
            **dict(zip(TASKS, accuracies, strict=True)),
            OVERALL: accuracies.mean(),
            "abstained": self.abstained,
        }


def _records(prompts: Sequence[str | Prompt]) -> list[Prompt]:
    records = [p for p in prompts if isinstance(p, Prompt)]
    if len(records) < len(prompts):
        bare = next(p for p in prompts if not isinstance(p, Prompt))
        raise JudgeError(
            f"GenEval was asked about the bare text {bare!r}, whose facts nobody knows: give Prompt records, "
            "as read_prompts returns them"
        )
    return records
