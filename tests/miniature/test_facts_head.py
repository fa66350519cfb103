import math
from dataclasses import replace

import pytest
import torch

from miniature.judges.facts_head import FactsHead, answers_of
from miniature.judges.images import View
from miniature.scenes import COLORS, SHAPES, Group, Scene

SCENE = Scene(
    (Group("star", "red", 2), Group("circle", "blue")), "left", "night", "pencil", "large", "striped"
)
VIEW = View(SCENE, "noisy", 0.5, 64, False)


def test_answers_by_hand() -> None:
    counts, rest = answers_of(VIEW)[:24], answers_of(VIEW)[24:]
    told = {(c, s): counts[4 * i + j] for i, c in enumerate(COLORS) for j, s in enumerate(SHAPES)}
    assert {kind: n for kind, n in told.items() if n} == {("red", "star"): 2, ("blue", "circle"): 1}
    # Blue stands before red, and right of it: left, right -> 1 + 1; night, pencil, large, striped; "noisy" is the
    # second fault.
    assert rest == [2, 2, 1, 1, 1, 2]


def test_words_may_tell_either_group_first() -> None:
    mirrored = replace(SCENE, groups=SCENE.groups[::-1], relation="right")
    assert answers_of(replace(VIEW, scene=mirrored)) == answers_of(VIEW)
    turned = replace(SCENE, relation="right")
    assert answers_of(replace(VIEW, scene=turned)) != answers_of(VIEW)


def test_a_fault_too_weak_to_see_is_none() -> None:
    assert answers_of(replace(VIEW, strength=0.1))[-1] == answers_of(replace(VIEW, fault=None))[-1] == 0


def test_loss_of_a_head_that_knows_nothing() -> None:
    """Equal logits cost log(classes) a question, and a rating of 0 four times its squared distance."""
    head = FactsHead(8)
    torch.nn.init.zeros_(head.layer.weight)
    torch.nn.init.zeros_(head.layer.bias)
    clean = replace(
        VIEW, fault=None
    )  # rated 7.0; noise at half strength takes 1.5 points from a pencil drawing
    rating = 4 * ((7.0 - 5.5) ** 2 + (5.5 - 5.5) ** 2) / 2 / 2.0**2
    expected = 24 * 0.5 * math.log(4) + math.log(5) + math.log(3) + 3 * math.log(2) + math.log(12) + rating
    assert head.loss(torch.randn(2, 8), [clean, VIEW]).item() == pytest.approx(expected, rel=1e-5)


def test_gains_by_hand() -> None:
    """A layer that rates an embedding by its first number times two deviations: two points a unit."""
    head = FactsHead(2)
    with torch.no_grad():
        head.layer.weight.zero_()
        head.layer.weight[-1] = torch.tensor([1.0, 0.0])
    before, after = torch.tensor([[1.0, 5.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
    assert head.gain_loss(before, after, [2.0, -2.0]).item() == pytest.approx(0.0)
    # One point is half a unit: errors of 0.5 and 1.5, squared, their mean four times.
    assert head.gain_loss(before, after, [1.0, 1.0]).item() == pytest.approx(4 * (0.25 + 2.25) / 2)


def test_nobody_knows_how_well_a_generated_picture_is_made() -> None:
    """Its fault and rating are not asked for, so no gradient comes from them; an added fault is known."""
    generated = replace(VIEW, fault=None, strength=0.0, generated=True)
    assert answers_of(generated)[-1] == -100
    assert answers_of(generated)[:-1] == answers_of(VIEW)[:-1]
    assert answers_of(replace(VIEW, generated=True)) == answers_of(VIEW)
    head, embedding = FactsHead(8), torch.randn(2, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(head.loss(embedding, [VIEW, generated]), head.layer.weight)
    alone = head.loss(embedding[:1], [VIEW])
    (expected,) = torch.autograd.grad(alone, head.layer.weight)
    torch.testing.assert_close(gradient[-13:], expected[-13:])  # twelve faults or none, and the rating
