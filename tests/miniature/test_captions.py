import numpy as np
import pytest

from flowsmith.prompts import Split, read_prompts, write_prompts
from miniature.captions import TASKS, Task, sample_pair, sample_prompt, split_of, tell_partly
from miniature.scenes import MAX_OBJECTS, place, sample_scene


def test_a_relation_told_from_either_side_is_one_combination() -> None:
    star = {"shape": "star", "color": None, "count": 1}
    ball = {"shape": "circle", "color": "red", "count": 1}
    rest = {"setting": "day", "style": None}
    for relation, mirror in (("left", "right"), ("above", "below")):
        there = split_of({"groups": [star, ball], "relation": relation, **rest})
        assert there == split_of({"groups": [ball, star], "relation": mirror, **rest})
    assert split_of({"groups": [star, ball], "relation": None, **rest}) == split_of(
        {"groups": [ball, star], "relation": None, **rest}
    )


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
            assert (groups[0]["count"] > 1) == (task == "counting")
            assert all((g["color"] is not None) == (task in ("colors", "color_attr")) for g in groups)
            assert (prompt.facts["relation"] is not None) == (task == "position")
            assert all(g["shape"] in prompt.text for g in groups)


def test_words_and_facts_agree() -> None:
    rng = np.random.default_rng(2)
    for _ in range(500):
        scene, told = sample_pair(rng)
        for said in told.facts["groups"]:
            assert any((g.shape, g.count) == (said["shape"], said["count"]) for g in scene.groups)
            assert said["color"] is None or f"{said['color']} {said['shape']}" in told.text
        if told.facts["relation"] is None and len(scene.groups) == 2:
            assert " and " in told.text
        assert (told.facts["style"] is None) == not_in(told.text, ("poster", "pencil"))


def not_in(text: str, words: tuple[str, ...]) -> bool:
    return not any(word in text for word in words)


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


def test_prompt_files_round_trip(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "prompts.jsonl"
    rng = np.random.default_rng(4)
    prompts = [sample_prompt("position", i, "test", rng) for i in range(5)]
    write_prompts(path, prompts)
    again = read_prompts(path, "test")
    assert again == prompts
    assert [dict(p.facts) for p in again] == [dict(p.facts) for p in prompts]
