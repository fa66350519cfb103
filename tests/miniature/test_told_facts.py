"""Reading what a caption tells from its encoding."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from miniature.captions import tell
from miniature.scenes import Group, Scene
from miniature.text_encoder import WIDTH
from miniature.told_facts import ToldFacts, answers_of

SCENE = Scene(
    (Group("star", "red"), Group("circle", "blue", 2)), "left", "dusk", "pencil", "small", "striped"
)


def test_answers_by_hand() -> None:
    told = tell(SCENE, np.random.default_rng(0))
    # star red 1, circle blue 2; left, dusk, pencil, small, striped: places from 1 among the options.
    assert answers_of(told.facts) == [4, 1, 1, 1, 5, 2, 1, 2, 2, 1, 2]


def test_what_is_unsaid_is_none() -> None:
    alone = Scene((Group("square", "cyan"),), None, "day", "poster")
    told = tell(alone, np.random.default_rng(0), colors=False, style=False)
    assert answers_of(told.facts) == [2, 0, 1, 0, 0, 0, 0, 1, 0, 2, 1]


def test_the_loss_is_read_after_the_last_word_alone() -> None:
    """A layer that copies features sees right answers there; what stands before the end changes nothing."""
    facts = tell(SCENE, np.random.default_rng(0)).facts
    head = ToldFacts()
    sizes = [5, 7, 4, 5, 7, 4, 5, 4, 3, 3, 3]
    assert head.layer.out_features == sum(sizes) == 50
    with torch.no_grad():
        head.layer.weight.copy_(torch.eye(50, WIDTH))
        head.layer.bias.zero_()
    right = torch.cat(
        [one_hot(torch.tensor(a), n) for a, n in zip(answers_of(facts), sizes, strict=True)]
    ).float()
    text = torch.zeros(2, 4, WIDTH)
    text[0, 2:, :50] = 20 * right
    text[0, :2] = torch.randn(2, WIDTH)
    text[1] = torch.randn(4, WIDTH)  # an empty caption tells nothing and is not asked
    ended = torch.tensor([[False, False, True, True], [False, True, True, True]])
    assert float(head.loss(text, ended, [facts, None])) < 1e-6
    text[0, 3] = 0  # half as sure
    expected = np.mean([np.log(1 + (n - 1) * np.exp(-10.0)) for n in sizes])
    assert float(head.loss(text, ended, [facts, None])) == pytest.approx(expected, rel=1e-3)
