"""What the preference models are asked, and what the better answer is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flowsmith.prompts import Prompt
from miniature.judges.images import FAMILY, SIZE, Pool, View, make_pool
from miniature.judges.preference import drawn_pairs, generated_pairs
from miniature.judges.shown import Shown, half_of
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

    0 shows what was asked, 1 has a wrong colour but is drawn finer: 2.5 - 0.5 * 0.2. 2 shows it, noisily, in 3 nothing
    can be made out: 2.5 - 0.5 * 2.5. Of two such nothing is known.
    """
    view = View(SCENE, None, 0.0, 64, True, generated=True)
    wrong = replace(SCENE, groups=(Group("star", "red"), Group("circle", "green")))
    noisy = replace(view, fault="noisy", strength=0.5)
    views = [view, replace(view, scene=wrong, size=96), noisy, None, None, None]
    prompts = [Prompt(text, text, facts=FACTS) for text in ("one", "one", "two", "two", "three", "three")]
    shown = Shown(_numbered(6), views, prompts, list(range(6)))
    pairs = generated_pairs(shown, np.random.default_rng(0), 40)
    gaps = {(0, 1): 2.4, (1, 0): -2.4, (2, 3): 1.25, (3, 2): -1.25}
    found = [(a, b) for a, b in pairs.images[:, :, 0, 0, 0].tolist()]
    assert set(found) == set(gaps)
    assert pairs.gaps == pytest.approx([gaps[pair] for pair in found])
    assert [text == "one" for text in pairs.texts] == [0 in pair for pair in found]


def test_a_spoilt_copy_is_worth_less() -> None:
    view = View(SCENE, None, 0.0, 64, True, generated=True)
    views: list[View | None] = [view, replace(view, fault="noisy", strength=0.5)]
    shown = Shown(_numbered(2), views, [Prompt("a", "one", facts=FACTS)] * 2, [0, 0])
    pairs = generated_pairs(shown, np.random.default_rng(0), 20)
    for (a, _), gap in zip(pairs.images[:, :, 0, 0, 0].tolist(), pairs.gaps, strict=True):
        assert gap == pytest.approx(
            1.25 if a == 0 else -1.25
        )  # noise at half strength: 2.5 points of a poster
