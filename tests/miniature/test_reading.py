"""Scenes read back from pictures: against the places that the renderer drew, and pictures that are none."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from miniature.objects import Found
from miniature.reading import read_scene
from miniature.scenes import Group, Scene, place, render, sample_scene
from tests.miniature.looking import Picture

STAR = Found("star", "red", 0.3, 0.5, 0.9, "large", "plain")


@pytest.mark.parametrize("side", [64, 96])
def test_reads_what_was_drawn(side: int) -> None:
    rng, read, relations = np.random.default_rng(side), 0, set()
    for _ in range(80):
        scene = sample_scene(rng)
        again = np.random.default_rng(0)
        again.bit_generator.state = rng.bit_generator.state
        seen = read_scene(render(scene, side, rng))
        if seen is None:
            continue
        read += 1
        assert Counter(seen.groups) == Counter(scene.groups)
        assert replace(seen, groups=(), relation=None) == replace(scene, groups=(), relation=None)
        if seen.relation:
            if scene.style == "pencil":
                again.random()  # the paper's strokes are drawn before objects are placed
            places, first = place(scene, again), scene.groups[0].count
            sides = [places[:first], places[first:]]
            if seen.groups[0] != scene.groups[0]:
                sides.reverse()
            axis, sign = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}[seen.relation]
            assert all(sign * (b[axis] - a[axis]) > 0.1 for a in sides[0] for b in sides[1])
            relations.add(seen.relation)
    assert read >= 76
    assert relations == {"left", "right", "above", "below"}


def _picture(**changes: object) -> Picture:
    scene = Scene((Group("circle", "blue", 2),), None, "day", "poster")
    return render(replace(scene, **changes), 64, np.random.default_rng(4))  # type: ignore[arg-type]


def test_leaves_pictures_unread_that_are_no_scene() -> None:
    clear = _picture()
    assert read_scene(clear) is not None
    grey = np.full((64, 64, 3), 220, np.uint8)
    smear = clear.copy()
    smear[:, :6] = (228, 32, 32)  # a red border: coloured, but like no shape
    between = np.clip(clear.astype(int) - 50, 0, 255).astype(np.uint8)  # neither day nor dusk
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for picture in (grey, smear, between, noise):
        assert read_scene(picture) is None


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [STAR, replace(STAR, size="small")],
        [STAR, replace(STAR, texture="striped")],
        [STAR, replace(STAR, size=None)],
        [replace(STAR, size=None)],
        [replace(STAR, sure=False)],
        [replace(STAR, rival="triangle")],
        [STAR] * 4,
        [STAR, replace(STAR, color="blue"), replace(STAR, color="pink")],
        [STAR, replace(STAR, color="blue", x=0.4, y=0.42)],  # none stands clear of the other
    ],
)
def test_leaves_doubt_unread(objects: list[Found], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniature.reading.find_objects", lambda image, any_outline: objects)
    assert read_scene(_picture()) is None
    monkeypatch.setattr("miniature.reading.find_objects", lambda image, any_outline: [STAR])
    assert read_scene(_picture()) == Scene((Group("star", "red"),), None, "day", "poster")


def test_the_clearer_relation_is_read_and_either_group_may_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ball = replace(STAR, color="blue", x=0.6, y=0.85)
    monkeypatch.setattr("miniature.reading.find_objects", lambda image, any_outline: [STAR, ball])
    even, odd = _picture(), _picture()
    odd[0, 0, 0] ^= 1
    star, blue = Group("star", "red"), Group("star", "blue")
    seen = [read_scene(picture) for picture in (even, odd)]
    assert {(s.groups, s.relation) for s in seen if s} == {((star, blue), "above"), ((blue, star), "below")}
