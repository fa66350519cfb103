"""The checker on pictures of known scenes, on near misses, on mess, and where a doubtful reading decides."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from flowsmith.prompts import Prompt
from miniature.checker import Found, Verdict, check, check_image, find_objects
from miniature.scenes import RADII, Group, Relation, Scene, Size, render
from tests.miniature.looking import facts_of, near_misses, pictures

STAR = Found("star", "red", 0.3, 0.5, 0.9, "large", "plain")
BALL = Found("circle", "blue", 0.7, 0.5, 0.9, "large", "plain")


@pytest.mark.parametrize("side", [64, 96, 128])
def test_right_on_fresh_renders_and_finds_nothing_else(side: int) -> None:
    some = pictures(80, seed=side, side=side)
    verdicts = [check(picture, facts_of(scene)) for scene, picture in some]
    assert verdicts.count(True) >= 78
    assert False not in verdicts
    for scene, picture in some:
        assert len(find_objects(picture)) == sum(group.count for group in scene.groups)


def test_not_fooled_by_one_untrue_fact() -> None:
    rng = np.random.default_rng(0)
    for scene, picture in pictures(40, seed=12):
        for fact, wrong in near_misses(scene, rng).items():
            assert check(picture, wrong) is not True, (fact, scene)


@pytest.mark.parametrize("style", ["poster", "pencil"])
@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
def test_measures_every_shape_in_every_look(shape: Any, style: Any) -> None:
    rng = np.random.default_rng(1)
    sizes: tuple[Size, Size] = ("small", "large")
    for size in sizes:
        for texture in ("plain", "striped"):
            scene = Scene((Group(shape, "cyan", 2),), None, "dusk", style, size, texture)
            for found in find_objects(render(scene, 64, rng)):
                assert (found.shape, found.color, found.size, found.texture) == (shape, "cyan", size, texture)


def test_what_is_unsaid_or_absent_is_not_asked() -> None:
    rng = np.random.default_rng(2)
    scene = Scene((Group("circle", "blue", 2),), None, "day", "poster", "small", "striped")
    picture, facts = render(scene, 64, rng), facts_of(scene)
    assert check(picture, facts | {"size": None, "texture": None}) is True
    assert check(picture, {"groups": facts["groups"], "relation": None}) is True
    assert check(picture, facts | {"size": "large", "texture": None}) is False
    assert check(picture, facts | {"size": None, "texture": "plain"}) is False


def test_objects_are_where_they_were_drawn_in_pictures_of_uneven_sides() -> None:
    scene = Scene((Group("square", "red"),), None, "night", "poster", "large", "plain")
    picture = render(scene, 96, np.random.default_rng(3))
    (whole,) = find_objects(picture)
    tall = np.concatenate([np.full((48, 96, 3), picture[0, 0], np.uint8), picture])
    (found,) = find_objects(tall)
    assert found.shape == "square"
    assert found.x == pytest.approx(whole.x, abs=0.01)
    assert found.y == pytest.approx((48 + 96 * whole.y) / 144, abs=0.01)


def test_not_fooled_by_empty_pictures_or_noise() -> None:
    rng = np.random.default_rng(5)
    facts = facts_of(Scene((Group("star", "red"),), None, "day", "poster"))
    blanks = [np.full((64, 64, 3), v, np.uint8) for v in (0, 128, 255)]
    red = [np.broadcast_to(np.array([228, 32, 32], np.uint8), (64, 64, 3))]
    noise = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(20)]
    coarse = [
        np.repeat(np.repeat(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), 4, 0), 4, 1) for _ in range(20)
    ]
    for picture in [*blanks, *red, *noise, *coarse]:
        assert check(np.ascontiguousarray(picture), facts) is False  # nor does it abstain: mess must not pay


def _facts(*counts: int, relation: Relation | None = None, size: Size | None = None) -> dict[str, Any]:
    kinds = [("star", "red"), ("circle", "blue")]
    groups = [{"shape": s, "color": c, "count": n} for (s, c), n in zip(kinds, counts, strict=False)]
    return {"groups": groups, "relation": relation, "size": size, "texture": None}


MAYBE = replace(STAR, sure=False)
MEDIUM = replace(STAR, size=None)
ODD = replace(STAR, shape="triangle", rival="star")
CASES: list[tuple[list[Found], dict[str, Any], Verdict]] = [
    ([STAR], _facts(1), True),
    ([STAR, STAR, STAR], _facts(1), True),  # naming is not counting
    ([STAR, STAR, STAR], _facts(2), False),  # counting is exact
    ([STAR, STAR], _facts(2), True),
    ([STAR, replace(STAR, size="small")], _facts(2, size="large"), False),
    ([STAR, STAR, replace(STAR, size="small")], _facts(2, size="large"), False),
    ([MAYBE], _facts(1), None),
    ([STAR, MAYBE], _facts(1), True),  # the doubtful one does not decide
    ([STAR, MAYBE], _facts(2), None),
    ([STAR, STAR, MAYBE], _facts(2), None),
    ([STAR, STAR, STAR, MAYBE], _facts(2), False),
    ([ODD], _facts(1), None),
    ([STAR, ODD], _facts(2), None),
    ([replace(ODD, rival=None)], _facts(1), False),
    ([MEDIUM], _facts(1), True),  # no size was told
    ([MEDIUM], _facts(1, size="large"), None),
    ([replace(MEDIUM, color="pink")], _facts(1, size="large"), False),
    ([STAR], _facts(1, 1), False),
    ([STAR, BALL], _facts(1, 1), True),
    ([STAR, BALL], _facts(1, 1, relation="left"), True),
    ([STAR, BALL], _facts(1, 1, relation="right"), False),
    ([STAR, BALL], _facts(1, 1, relation="above"), False),  # level with each other
    ([STAR, replace(BALL, x=0.402)], _facts(1, 1, relation="left"), None),  # a hair beyond a tenth
    ([STAR, replace(BALL, x=0.42)], _facts(1, 1, relation="left"), True),
    ([STAR, replace(BALL, x=0.38)], _facts(1, 1, relation="left"), False),
    ([MAYBE, BALL], _facts(1, 1, relation="left"), None),
    ([MAYBE, BALL], _facts(1, 1, relation="right"), False),
]


@pytest.mark.parametrize(("objects", "facts", "verdict"), CASES)
def test_abstains_only_where_doubt_decides(
    objects: list[Found], facts: dict[str, Any], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miniature.checker.find_objects", lambda image: objects)
    assert check(np.zeros((64, 64, 3), np.uint8), facts) is verdict


def test_a_size_between_small_and_large_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for radius in np.arange(0.12, 0.17, 0.002):
        monkeypatch.setitem(RADII["large"], 1, (radius, radius))
        scene = Scene((Group("circle", "red"),), None, "day", "poster")
        (found,) = find_objects(render(scene, 96, np.random.default_rng(0)))
        sizes.append(found.size)
    order = [name for i, name in enumerate(sizes) if i == 0 or name != sizes[i - 1]]
    assert order == ["small", None, "large"]


def test_a_prompt_without_facts_has_no_verdict() -> None:
    scene = Scene((Group("circle", "blue"),), None, "day", "poster")
    image = torch.from_numpy(render(scene, 64, np.random.default_rng(7))).permute(2, 0, 1)
    assert check_image(image, Prompt("a", "a circle")) is None
    assert check_image(image, Prompt("a", "a circle", facts=facts_of(scene))) is True
