import numpy as np
import pytest
from numpy.typing import NDArray

from miniature.captions import sample_pair
from miniature.checker import check, find_objects
from miniature.scenes import COLORS, Group, Scene, render


def _facts(scene: Scene) -> dict[str, object]:
    groups = [{"shape": g.shape, "color": g.color, "count": g.count} for g in scene.groups]
    return {"groups": groups, "relation": scene.relation, "setting": scene.setting, "style": scene.style}


def _scenes(number: int, seed: int) -> list[tuple[Scene, NDArray[np.uint8]]]:
    rng = np.random.default_rng(seed)
    scenes = [sample_pair(rng)[0] for _ in range(number)]
    return [(scene, render(scene, 64, rng)) for scene in scenes]


def test_right_on_fresh_renders_and_finds_nothing_else() -> None:
    scenes = _scenes(600, seed=11)
    right = [
        check(picture, _facts(scene)) and len(find_objects(picture)) == sum(g.count for g in scene.groups)
        for scene, picture in scenes
    ]
    assert sum(right) >= 0.99 * len(scenes)


@pytest.mark.parametrize("size", [48, 96, 128])
def test_reads_other_sizes(size: int) -> None:
    rng = np.random.default_rng(3)
    scenes = [sample_pair(rng)[0] for _ in range(80)]
    assert sum(check(render(scene, size, rng), _facts(scene)) for scene in scenes) >= 78


def test_not_fooled_by_a_wrong_colour_count_or_place() -> None:
    for scene, picture in _scenes(300, seed=12):
        facts = _facts(scene)
        wrong = [dict(group) for group in facts["groups"]]  # type: ignore[attr-defined]
        unused = [c for c in COLORS if c not in {g.color for g in scene.groups}]
        wrong[0]["color"] = unused[0]
        assert not check(picture, facts | {"groups": wrong})
        if len(scene.groups) == 1:
            other = {1: 2, 2: 3, 3: 2}[scene.groups[0].count]
            assert not check(
                picture, facts | {"groups": [dict(wrong[0], color=scene.groups[0].color, count=other)]}
            )
        else:
            swapped = {"left": "right", "right": "left", "above": "below", "below": "above"}[
                str(scene.relation)
            ]
            assert not check(picture, facts | {"relation": swapped})


def test_not_fooled_by_empty_pictures_or_noise() -> None:
    rng = np.random.default_rng(5)
    facts = _facts(Scene((Group("star", "red"),), None, "day", "poster"))
    blanks = [np.full((64, 64, 3), v, np.uint8) for v in (0, 128, 255)]
    red = [np.broadcast_to(np.array([228, 32, 32], np.uint8), (64, 64, 3))]
    noise = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(100)]
    coarse = [
        np.repeat(np.repeat(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), 4, 0), 4, 1) for _ in range(50)
    ]
    assert not any(check(p, facts) for p in [*blanks, *red, *noise, *coarse])


def test_counting_is_exact_and_naming_is_not() -> None:
    rng = np.random.default_rng(6)
    three = render(Scene((Group("circle", "blue", 3),), None, "day", "poster"), 64, rng)
    one = {"groups": [{"shape": "circle", "color": None, "count": 1}], "relation": None}
    two = {"groups": [{"shape": "circle", "color": None, "count": 2}], "relation": None}
    assert check(three, one)
    assert not check(three, two)
