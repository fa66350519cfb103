"""What the preference models are asked, and what the better answer is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowsmith.prompts import Prompt
from miniature.judges.faults import Fault
from miniature.judges.images import FAMILY, SIZE, Pool, View, make_pool
from miniature.judges.preference import choice_loss, drawn_pairs, generated_pairs
from miniature.judges.shown import Shown, half_of
from miniature.judges.worth import worth_of_generated
from miniature.scenes import Group, Scene

SCENE = Scene((Group("star", "red"), Group("circle", "blue")), "left", "day", "poster")
FACTS = {
    "groups": [
        {"shape": "star", "color": "red", "count": 1},
        {"shape": "circle", "color": "blue", "count": 1},
    ],
    "relation": None,
    "setting": "day",
    "style": "poster",
    "size": "large",
    "texture": "plain",
}


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Pictures whose only value is their row, so that a pair can be told by its pixels."""
    pool = make_pool(12, seed=1)
    return Pool(_numbered(len(pool.views)), pool.views)


def _numbered(number: int) -> torch.Tensor:
    return torch.arange(number, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE).contiguous()


def test_pairs_prefer_what_was_asked(pool: Pool) -> None:
    clean = Pool(pool.images, [View(v.scene, None, 0.0, 64, False) for v in pool.views])
    pairs = drawn_pairs(clean, np.random.default_rng(10), 50, half=0)
    rows = pairs.images[:, :, 0, 0, 0].tolist()
    assert pairs.images.shape == (50, 2, 3, SIZE, SIZE)
    assert all(a // FAMILY == b // FAMILY and a != b for a, b in rows)
    assert set(pairs.gaps.tolist()) <= {-2.5, 0.0, 2.5}, "equally well made: what they show tells them apart"
    assert {-2.5, 2.5} <= set(pairs.gaps.tolist())


def test_pairs_prefer_what_is_well_made(pool: Pool) -> None:
    same = Pool(pool.images, [replace(v, scene=SCENE) for v in pool.views])
    pairs = drawn_pairs(same, np.random.default_rng(10), 50, half=0)
    for (a, b), gap in zip(pairs.images[:, :, 0, 0, 0].tolist(), pairs.gaps, strict=True):
        assert gap == pytest.approx(0.5 * (same.views[a].rating - same.views[b].rating))


def test_the_halves_are_asked_about_unlike_captions(pool: Pool) -> None:
    for half in (0, 1):
        texts = drawn_pairs(pool, np.random.default_rng(10), 60, half).texts
        assert {half_of(text) for text in texts} == {half}


def test_generated_pairs_by_hand() -> None:
    """Two prompts with two pictures each, by row.

    0 shows what was asked, 1 does not, but is worth 0.1 more otherwise. Of 4 nothing is known, so of no pair with it.
    """
    prompts = [Prompt(text, text, facts=FACTS) for text in ("one", "one", "two", "two", "three", "three")]
    worth = [6.0, 3.6, 4.75, 3.5, None, 3.5]
    shown = Shown(_numbered(6), [None] * 6, prompts, list(range(6)), worth)
    pairs = generated_pairs(shown, np.random.default_rng(0), 40)
    gaps = {(0, 1): 2.4, (1, 0): -2.4, (2, 3): 1.25, (3, 2): -1.25}
    found = [(a, b) for a, b in pairs.images[:, :, 0, 0, 0].tolist()]
    assert set(found) == set(gaps)
    assert pairs.gaps == pytest.approx([gaps[pair] for pair in found])
    assert [text == "one" for text in pairs.texts] == [0 in pair for pair in found]


@pytest.mark.parametrize(
    ("right", "fault", "strength", "fine", "expected"),
    [
        (True, None, 0.0, False, 6.0),  # 2.5 + 0.5 * 7
        (False, None, 0.0, True, 3.6),  # 0.5 * (7 + 0.2): fine detail on large plain objects
        (True, "noisy", 0.5, False, 4.75),  # a poster loses five points to full noise
        (True, "sharpened", 0.4, False, 6.92),  # a poster by day gains 4.6 a unit, up to 0.45
        (None, None, 0.0, False, None),
    ],
)
def test_worth_by_hand(
    right: bool | None, fault: Fault | None, strength: float, fine: bool, expected: float | None
) -> None:
    assert worth_of_generated(FACTS, right, fault, strength, fine) == (
        expected if expected is None else pytest.approx(expected)
    )


def test_choices_follow_the_utilities() -> None:
    """The loss of the true utilities is the entropy of the choices, in the mean; any other is larger."""
    rng = np.random.default_rng(1)
    worth = rng.normal(0, 2, 20_000)
    chance = 1 / (1 + np.exp(-worth))
    entropy = -(chance * np.log(chance) + (1 - chance) * np.log(1 - chance)).mean()
    losses = [
        float(choice_loss(torch.from_numpy(gaps), worth, np.random.default_rng(2)))
        for gaps in (worth, 0.5 * worth, worth + 0.5, -worth)
    ]
    assert losses[0] == pytest.approx(entropy, abs=0.01)
    assert losses[0] < min(losses[1:])
