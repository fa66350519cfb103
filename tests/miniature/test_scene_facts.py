"""Near misses and the truth of captions, against the pixel checker and by hand."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from miniature.captions import tell, tell_partly
from miniature.checker import check
from miniature.judges.scene_facts import CHANGES, Change, change, holds
from miniature.scenes import Group, Scene, render, sample_scene

PAIR = Scene((Group("star", "red"), Group("circle", "blue")), "left", "night", "pencil", "small", "striped")


def told(*groups: tuple[str, str | None, int], relation: str | None = None) -> dict[str, object]:
    named = [{"shape": shape, "color": color, "count": count} for shape, color, count in groups]
    return {"groups": named, "relation": relation, "setting": None, "style": None}


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (told(("star", "red", 1), ("circle", "blue", 1), relation="left"), True),
        (told(("circle", "blue", 1), ("star", "red", 1), relation="right"), True),
        (told(("circle", "blue", 1), ("star", "red", 1)), True),
        (told(("star", None, 1), ("circle", None, 1)), True),
        (told(("star", "red", 1), ("circle", "blue", 1), relation="right"), False),
        (told(("circle", "blue", 1), ("star", "red", 1), relation="left"), False),
        (
            told(("star", "red", 1), ("circle", "blue", 1), relation="above"),
            None,
        ),  # left, and maybe above too
        (told(("star", "blue", 1), ("circle", "red", 1)), False),
        (told(("star", "blue", 1), ("circle", "red", 1), relation="above"), False),
        (told(("star", "red", 2), ("circle", "blue", 1)), False),
        (told(("star", "red", 1)), False),
        ({**told(("star", "red", 1), ("circle", "blue", 1)), "setting": "night", "style": "pencil"}, True),
        ({**told(("star", "red", 1), ("circle", "blue", 1)), "setting": "day"}, False),
        ({**told(("star", "red", 1), ("circle", "blue", 1)), "style": "poster"}, False),
        ({**told(("star", "red", 1), ("circle", "blue", 1)), "size": "small", "texture": "striped"}, True),
        ({**told(("star", "red", 1), ("circle", "blue", 1)), "size": "small", "texture": None}, True),
        ({**told(("star", "red", 1), ("circle", "blue", 1)), "size": "large"}, False),
        ({**told(("star", "red", 1), ("circle", "blue", 1)), "texture": "plain"}, False),
    ],
)
def test_truth_by_hand(facts: dict[str, object], verdict: bool | None) -> None:
    assert holds(PAIR, facts) is verdict


def test_captions_are_true_of_their_scene_and_false_of_near_misses() -> None:
    rng, seen = np.random.default_rng(5), Counter[Change]()
    for _ in range(500):
        scene = sample_scene(rng)
        assert holds(scene, tell_partly(scene, rng).facts) is True
        for kind in CHANGES:
            near = change(scene, kind, rng)
            if near:
                seen[kind] += 1
                assert holds(near, tell(scene, rng).facts) is False
                assert sum(g.count for g in near.groups) <= 3
                assert len({(g.shape, g.color) for g in near.groups}) == len(scene.groups)
    assert min(seen[kind] for kind in CHANGES) > 200


@pytest.mark.parametrize("kind", ["color", "shape", "relation"])
def test_the_checker_sees_near_misses_too(kind: Change) -> None:
    rng = np.random.default_rng(6)
    verdicts: list[bool | None] = []
    while len(verdicts) < 60:
        scene = sample_scene(rng)
        near = change(scene, kind, rng)
        if near:
            verdicts.append(check(render(near, 64, rng), tell(scene, rng).facts))
    assert verdicts.count(True) <= 1


def test_colors_are_often_swapped_between_the_groups() -> None:
    """A changed colour is caught by a bag of words; a swapped one is not."""
    rng = np.random.default_rng(7)
    changed = [change(PAIR, "color", rng) for _ in range(200)]
    swapped = sum(c is not None and [g.color for g in c.groups] == ["blue", "red"] for c in changed)
    assert 70 < swapped < 130


def test_a_look_has_one_other_value() -> None:
    rng = np.random.default_rng(0)
    assert change(PAIR, "size", rng) == replace(PAIR, size="large")
    assert change(PAIR, "texture", rng) == replace(PAIR, texture="plain")
    assert change(PAIR, "style", rng) == replace(PAIR, style="poster")


def test_no_relation_to_turn() -> None:
    assert (
        change(Scene((Group("star", "red"),), None, "day", "poster"), "relation", np.random.default_rng(0))
        is None
    )
