"""What people saw on pictures, kept as labels, and how the checker's verdicts compare with it."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scipy.stats import binomtest

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write
from miniature.checker import Verdict

_ANSWERS: dict[str, Verdict] = {"y": True, "n": False, "?": None}


class LabelError(FlowsmithError):
    """Pictures cannot be made again, or verdicts do not belong to them."""


@dataclass(frozen=True)
class Label:
    """One picture, and whether it shows what its prompt says.

    Attributes:
        prompt: Id of a prompt.
        flow: File of a flow's template, seen from the miniature's folder.
        seed: Of the flow's first sampling node.
        shows: What was seen; None where one cannot tell, or has not looked yet.
    """

    prompt: str
    flow: str
    seed: int
    shows: Verdict = None


@dataclass(frozen=True)
class Agreement:
    """The checker against the eye.

    Attributes:
        right: Pictures on which both answer, and answer the same.
        answered: Pictures on which both answer.
        abstained: Pictures on which the eye answers and the checker does not.
        unclear: Pictures on which the eye does not.
        disagreements: Pictures on which both answer otherwise.
    """

    right: int
    answered: int
    abstained: int
    unclear: int
    disagreements: tuple[Label, ...]

    def __str__(self) -> str:
        low, high = wilson(self.right, self.answered)
        share = self.right / self.answered if self.answered else math.nan
        return (
            f"{self.right} of {self.answered} right: {share:.1%}, 95 % interval {low:.1%} to {high:.1%}; "
            f"the checker abstained on {self.abstained}, the eye on {self.unclear}"
        )


def compare(labels: Sequence[Label], verdicts: Sequence[Verdict]) -> Agreement:
    """Compare what was seen with the checker's verdicts on the same pictures."""
    seen = [
        (label, verdict) for label, verdict in zip(labels, verdicts, strict=True) if label.shows is not None
    ]
    both = [(label, verdict) for label, verdict in seen if verdict is not None]
    wrong = tuple(label for label, verdict in both if label.shows != verdict)
    return Agreement(len(both) - len(wrong), len(both), len(seen) - len(both), len(labels) - len(seen), wrong)


def wilson(right: int, number: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, 0 to 1; it holds near the ends too, and is all of it for no trials."""
    if not number:
        return 0.0, 1.0
    interval = binomtest(right, number).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def read_labels(path: Path) -> list[Label]:
    """Read labels, or pictures that wait for them.

    Raises:
        LabelError: There is no such file, or it holds something else.
    """
    try:
        return [Label(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, TypeError, ValueError) as error:
        raise LabelError(
            f"{path} holds no labels ({error}): make pictures with --sheets, then --verdicts"
        ) from error


def write_labels(path: Path, labels: Iterable[Label]) -> None:
    """Write labels, a line each, whole or not at all."""
    lines = ",\n".join(json.dumps(asdict(label)) for label in labels)
    with atomic_write(path) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def with_verdicts(labels: Sequence[Label], text: str, per_sheet: int) -> list[Label]:
    """Return the pictures of all sheets with what was seen on them.

    Args:
        labels: The pictures in the sheets' order.
        text: A line a sheet, a character a picture: y, n or ?. Spaces, empty lines and what follows a # are left out.
        per_sheet: Pictures on a full sheet.

    Raises:
        LabelError: A sheet's line has a wrong length or an unknown character, or lines are too few or too many.
    """
    lines = [line.partition("#")[0] for line in text.splitlines()]
    lines = ["".join(line.split()) for line in lines if line.strip()]
    sheets = [labels[i : i + per_sheet] for i in range(0, len(labels), per_sheet)]
    if len(lines) != len(sheets):
        raise LabelError(f"{len(lines)} lines of verdicts for {len(sheets)} sheets: give a line for each")
    for number, (line, sheet) in enumerate(zip(lines, sheets, strict=True), 1):
        if len(line) != len(sheet) or set(line) - set(_ANSWERS):
            raise LabelError(
                f"line {number} is {line!r}: give {len(sheet)} characters, y, n or ?, one for each of its pictures"
            )
    return [replace(x, shows=_ANSWERS[c]) for x, c in zip(labels, "".join(lines), strict=True)]
