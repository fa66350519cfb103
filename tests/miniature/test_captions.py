import re
from pathlib import Path

import numpy as np
import pytest

from flowsmith.prompts import Split, read_prompts, write_prompts
from miniature.captions import LOOKS, TASKS, Task, sample_pair, sample_prompt, split_of, tell, tell_partly
from miniature.scenes import (
    MAX_OBJECTS,
    SETTINGS,
    SIZES,
    STYLES,
    TEXTURES,
    Group,
    Scene,
    place,
    sample_scene,
)

# The words that commit to a look, by hand.
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "setting": {"day": ("by day", "in daylight", "on a bright day"), "dusk": ("dusk",), "night": ("night",)},
    "style": {"poster": ("poster",), "pencil": ("pencil",)},
    "size": {"small": ("small", "tiny"), "large": ("large", "big")},
    "texture": {"plain": ("plain",), "striped": ("striped",)},
}


def test_a_relation_told_from_either_side_is_one_combination() -> None:
    star = {"shape": "star", "color": None, "count": 1}
    ball = {"shape": "circle", "color": "red", "count": 1}
    rest = {"setting": "day", "style": None, "size": "small", "texture": None}
    for relation, mirror in (("left", "right"), ("above", "below")):
        there = split_of({"groups": [star, ball], "relation": relation, **rest})
        assert there == split_of({"groups": [ball, star], "relation": mirror, **rest})
    assert split_of({"groups": [star, ball], "relation": None, **rest}) == split_of(
        {"groups": [ball, star], "relation": None, **rest}
    )


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_tells_combinations_apart(look: str) -> None:
    values = {"setting": SETTINGS, "style": STYLES, "size": SIZES, "texture": TEXTURES}[look]
    rng, apart = np.random.default_rng(6), 0
    for _ in range(60):
        facts = tell(sample_scene(rng), rng).facts
        apart += len({split_of(facts | {look: value}) for value in (*values, None)}) > 1
    assert apart > 20  # by chance the split of three facts is one in about half of the cases


def test_a_split_follows_from_facts_and_not_from_words() -> None:
    rng = np.random.default_rng(7)
    scene = sample_scene(rng)
    tellings = [tell(scene, rng) for _ in range(40)]
    assert len({told.text for told in tellings}) > 10
    assert len({told.split for told in tellings}) == 1


def test_splits_share_no_combination_and_no_words() -> None:
    rng = np.random.default_rng(0)
    texts: dict[Split, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for _ in range(4000):
        told = tell_partly(sample_scene(rng), rng)
        texts[told.split].add(told.text)
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    shares = [len(t) / sum(map(len, texts.values())) for t in texts.values()]
    assert shares[0] == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_prompts_state_what_their_task_asks(task: Task) -> None:
    rng = np.random.default_rng(1)
    for split in ("train", "validation", "test"):
        for i in range(20):
            prompt = sample_prompt(task, i, split, rng)
            groups = prompt.facts["groups"]
            assert split_of(dict(prompt.facts)) == split == prompt.split
            assert len(groups) == (2 if task in ("two_object", "position", "color_attr") else 1)
            assert task == "colors" or (groups[0]["count"] > 1) == (task == "counting")
            assert all((g["color"] is not None) == (task in ("colors", "color_attr")) for g in groups)
            assert (prompt.facts["relation"] is not None) == (task == "position")
            assert all(g["shape"] in prompt.text for g in groups)
            assert all(prompt.facts[look] is not None for look in LOOKS)  # what is unsaid cannot be compared


def test_colors_are_crossed_with_counts() -> None:
    rng = np.random.default_rng(3)
    counts = [sample_prompt("colors", i, "train", rng).facts["groups"][0]["count"] for i in range(300)]
    assert all(75 <= counts.count(count) <= 125 for count in (1, 2, 3))  # 100 each, within three deviations


def test_words_and_facts_agree() -> None:
    rng = np.random.default_rng(2)
    for _ in range(500):
        scene, told = sample_pair(rng)
        for said in told.facts["groups"]:
            assert any((g.shape, g.count) == (said["shape"], said["count"]) for g in scene.groups)
            assert said["color"] is None or f"{said['color']} {said['shape']}" in told.text
        if told.facts["relation"] is None and len(scene.groups) == 2:
            assert " and " in told.text
        for look, words in WORDS.items():
            said = [value for value, some in words.items() if any(word in told.text for word in some)]
            assert said == ([] if told.facts[look] is None else [told.facts[look]])
            assert told.facts[look] in (None, getattr(scene, look))


class Fixed:
    """Chance that always takes the first word, and puts looks where ``after`` says."""

    def __init__(self, after: bool) -> None:
        self.after = after

    def random(self) -> float:
        return 0.9 if self.after else 0.1

    def choice(self, words: tuple[str, ...]) -> str:
        return words[0]


@pytest.mark.parametrize(
    ("scene", "after", "text"),
    [
        (
            Scene((Group("star", "cyan", 2),), None, "night", "pencil", "small", "striped"),
            False,
            "a pencil drawing of two small striped cyan stars at night",
        ),
        (
            Scene((Group("circle", "red"),), None, "day", "poster", "large", "plain"),
            True,
            "a large plain red circle, by day, poster",
        ),
        (
            Scene(
                (Group("square", "blue"), Group("triangle", "pink", 2)),
                "left",
                "dusk",
                "poster",
                "small",
                "plain",
            ),
            True,
            "a small plain blue square left of two small plain pink triangles, at dusk, poster",
        ),
    ],
)
def test_wording_by_hand(scene: Scene, after: bool, text: str) -> None:
    assert tell(scene, Fixed(after)).text == text  # type: ignore[arg-type]


def test_looks_left_out_leave_no_trace() -> None:
    scene = Scene((Group("star", "cyan", 3),), None, "night", "pencil", "small", "striped")
    told = tell(
        scene, np.random.default_rng(0), colors=False, setting=False, style=False, size=False, texture=False
    )
    assert told.text == "three stars"
    assert told.facts == {
        "groups": [{"shape": "star", "color": None, "count": 3}],
        "relation": None,
        **dict.fromkeys(LOOKS),
    }


def test_every_word_is_used_and_an_article_stands_for_one() -> None:
    rng = np.random.default_rng(8)
    texts = [sample_pair(rng)[1].text for _ in range(1500)]
    for look in WORDS.values():
        for words in look.values():
            assert all(any(word in text for text in texts) for word in words)
    nouns = re.compile(r"\b(a|two|three)((?: (?!a |two |three )\w+)*?) (circle|square|triangle|star)(s?)\b")
    for text in texts:
        for number, adjectives, _, plural in nouns.findall(text):
            if not adjectives.strip().startswith(("poster", "pencil")):
                assert (number != "a") == bool(plural), text


def test_objects_keep_apart_and_to_their_side() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        scene = sample_scene(rng)
        placed = place(scene, rng)
        assert len(placed) == sum(g.count for g in scene.groups) <= MAX_OBJECTS
        for i, (x, y, r) in enumerate(placed):
            assert r < x < 1 - r
            assert r < y < 1 - r
            assert all(np.hypot(x - u, y - v) > r + s for u, v, s in placed[:i])
        if scene.relation:
            n = scene.groups[0].count
            axis, sign = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}[scene.relation]
            assert all(sign * (b[axis] - a[axis]) > 0.1 for a in placed[:n] for b in placed[n:])


def test_prompt_files_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    rng = np.random.default_rng(4)
    prompts = [sample_prompt("position", i, "test", rng) for i in range(5)]
    write_prompts(path, prompts)
    again = read_prompts(path, "test")
    assert again == prompts
    assert [dict(p.facts) for p in again] == [dict(p.facts) for p in prompts]
