import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flowsmith.metrics import TASKS, GenEval, JudgeError, geneval_accuracies
from flowsmith.prompts import Prompt

BLACK, WHITE = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.full((3, 4, 4), 255, dtype=torch.uint8)


def is_white(image: Tensor, prompt: Prompt) -> bool | None:
    return bool(image.min() == 255) if prompt.facts else None


def asked(task: str, facts: bool = True) -> Prompt:
    return Prompt("p", "a white picture", task=task, facts={"white": True} if facts else {})


def test_by_hand() -> None:
    """Tasks weigh the same: 3 of 4, 0 of 1, and four tasks all right make 0.75 / 6 + 4 / 6."""
    judge = GenEval(is_white)
    judge.update([WHITE, WHITE, WHITE, BLACK], [asked("counting")] * 4)
    judge.update([BLACK, *[WHITE] * 4], [asked(t) for t in TASKS if t != "counting"])
    judge.update([BLACK, BLACK], [asked("counting", facts=False), asked("")])
    result = judge.compute()
    assert result["counting"] == 0.75
    assert result["single_object"] == 0
    assert all(result[t] == 1 for t in ("two_object", "colors", "position", "color_attr"))
    assert result["overall"].item() == pytest.approx((0.75 + 4) / 6)
    assert result["abstained"] == 2


def test_per_sample() -> None:
    verdicts = GenEval(is_white).judge([WHITE, BLACK, BLACK], [asked("colors"), asked("colors"), asked("x")])
    assert verdicts[:2].tolist() == [1, 0]
    assert math.isnan(verdicts[2])


def test_a_task_without_verdict_leaves_no_overall() -> None:
    verdicts = geneval_accuracies([1.0, 0.0, math.nan], ["colors", "colors", "position"])
    assert verdicts["colors"] == 0.5
    assert math.isnan(verdicts["position"])
    assert math.isnan(verdicts["overall"])


@given(st.lists(st.tuples(st.sampled_from(TASKS), st.booleans()), max_size=40))
def test_metric_and_function_agree(samples: list[tuple[str, bool]]) -> None:
    tasks = [t for t, _ in samples] + list(TASKS)
    right = [r for _, r in samples] + [True] * len(TASKS)
    judge = GenEval(is_white)
    half = len(tasks) // 2
    images = [WHITE if r else BLACK for r in right]
    judge.update(images[:half], [asked(t) for t in tasks[:half]])
    judge.update(images[half:], [asked(t) for t in tasks[half:]])
    expected = geneval_accuracies([float(r) for r in right], tasks)
    result = judge.compute()
    assert {k: pytest.approx(v, abs=1e-6) for k, v in expected.items()} == {
        k: result[k].item() for k in expected
    }


def test_bare_text_has_no_facts() -> None:
    with pytest.raises(JudgeError, match=r"bare text 'a star'.*give Prompt records"):
        GenEval(is_white).update([WHITE], ["a star"])
