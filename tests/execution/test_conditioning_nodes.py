"""Nodes that make, change and join conditionings, by hand on small encodings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ModelLibrary
from flowsmith.execution.conditioning import Area, Condition, Conditioning, PictureSize
from flowsmith.execution.nodes import find_node
from tests.execution.running import run

LIBRARY = ModelLibrary(".")
HOW: dict[str, Any] = {"size": PictureSize(8, 8), "guidance": 2.0, "strength": 0.5, "start": 0.1}


def text(value: float, tokens: int = 2, pooled: bool = True, **how: Any) -> Conditioning:
    """A conditioning whose numbers are all ``value``; the pooled state's are ten times that."""
    states = torch.full((tokens, 3), value)
    return Conditioning((Condition(states, torch.full((4,), 10 * value) if pooled else None, **how),))


def result(name: str, **inputs: Any) -> Conditioning:
    found: Conditioning = run(LIBRARY, name, **inputs)
    return found


def only(conditioning: Conditioning) -> Condition:
    (part,) = conditioning
    return part


def numbers(tensor: Tensor | None) -> list[float]:
    assert tensor is not None
    return [round(float(number), 6) for number in tensor.flatten().unique()]


def told(part: Condition) -> tuple[Any, ...]:
    return part.size, part.guidance, part.strength, part.start, part.end


def test_combining_keeps_all_conditions_as_they_are() -> None:
    first, second = text(1, **HOW), text(2)
    both = result("ConditioningCombine", conditioning_1=first, conditioning_2=second + first)
    assert both.parts == (*first, *second, *first)


def test_concatenation_puts_the_first_texts_tokens_behind() -> None:
    to, behind = text(1, **HOW) + text(5, tokens=1), text(2, tokens=3) + text(9)
    parts = result("ConditioningConcat", conditioning_to=to, conditioning_from=behind).parts
    assert [part.states[:, 0].tolist() for part in parts] == [[1, 1, 2, 2, 2], [5, 2, 2, 2]]
    assert [told(part) for part in parts] == [told(part) for part in to]
    assert [part.pooled for part in parts] == [part.pooled for part in to]


def test_an_average_fills_the_shorter_text_with_nothing() -> None:
    """0.25 of one's own: 0.25 * 4 + 0.75 * 8 = 7 on the tokens that both have, 1 beyond."""
    to = text(4, tokens=3, **HOW)
    how: dict[str, Any] = {"conditioning_to": to, "conditioning_to_strength": 0.25}
    part = only(result("ConditioningAverage", conditioning_from=text(8), **how))
    assert part.states[:, 0].tolist() == [7, 7, 1]
    assert numbers(part.pooled) == [70]
    assert told(part) == told(only(to))
    part = only(result("ConditioningAverage", conditioning_from=text(8, tokens=9), **how))
    assert part.states[:, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize(("mine", "theirs", "pooled"), [(True, False, [40]), (False, True, [80])])
def test_an_average_takes_the_pooled_state_that_there_is(
    mine: bool, theirs: bool, pooled: list[float]
) -> None:
    sides = {"conditioning_to": text(4, pooled=mine), "conditioning_from": text(8, pooled=theirs)}
    assert (
        numbers(only(result("ConditioningAverage", **sides, conditioning_to_strength=0.25)).pooled) == pooled
    )


def test_nothing_is_said_by_zeros() -> None:
    part = only(result("ConditioningZeroOut", conditioning=text(4, **HOW)))
    assert (numbers(part.states), numbers(part.pooled)) == ([0], [0])
    assert told(part) == told(only(text(4, **HOW)))
    assert only(result("ConditioningZeroOut", conditioning=text(4, pooled=False))).pooled is None


def test_places_times_weights_and_guidance_are_set_on_every_condition() -> None:
    two = text(1) + text(2, **HOW)
    box = {"width": 64, "height": 128, "x": 8, "y": 16}
    shares = {"width": 0.5, "height": 1.0, "x": 0.25, "y": 0.0}
    for name, inputs, expected in (
        ("ConditioningSetArea", {**box, "strength": 2.0}, {"area": Area(64, 128, 8, 16), "strength": 2.0}),
        (
            "ConditioningSetAreaPercentage",
            {**shares, "strength": 2.0},
            {"area": Area(0.5, 1.0, 0.25, 0.0, relative=True), "strength": 2.0},
        ),
        ("ConditioningSetAreaStrength", {"strength": 2.0}, {"strength": 2.0}),
        ("ConditioningSetTimestepRange", {"start": 0.2, "end": 0.7}, {"start": 0.2, "end": 0.7}),
        ("FluxGuidance", {"guidance": 4.0}, {"guidance": 4.0}),
    ):
        for part, before in zip(result(name, conditioning=two, **inputs), two, strict=True):
            assert {key: getattr(part, key) for key in expected} == expected
            others = {"states", "pooled", "size", "guidance", "area", "strength", "start", "end"} - set(
                expected
            )
            assert all(getattr(part, key) is getattr(before, key) for key in others)


def test_sizes_and_guidance_go_with_their_texts(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of each, so that none gets another one's."""
    library = ModelLibrary(models)
    clip = library.checkpoint("tiny_a").text
    assert clip is not None
    asked: list[Any] = []
    encode = type(clip).encode

    def note(self: Any, texts: Any) -> Any:
        asked.extend(texts)
        return encode(self, ["" if not isinstance(t, str) else t for t in texts])

    monkeypatch.setattr(type(clip), "encode", note)
    numbers = {"width": 1, "height": 2, "crop_w": 3, "crop_h": 4, "target_width": 5, "target_height": 6}
    rows: list[dict[str, Any]] = [
        {"clip": clip, **numbers, "text_g": "a", "text_l": "b"},
        {"clip": clip, **numbers, "width": 9, "text_g": "c", "text_l": "d"},
    ]
    sizes = [only(c).size for (c,) in find_node("CLIPTextEncodeSDXL").run(rows, library)]
    assert sizes == [PictureSize(2, width, 4, 3, 6, 5) for width in (1, 9)]
    assert asked == [{"g": "a", "l": "b"}, {"g": "c", "l": "d"}]
    rows = [{"clip": clip, "ascore": score, "width": 1, "height": 2, "text": "x"} for score in (3.0, 4.0)]
    sizes = [only(c).size for (c,) in find_node("CLIPTextEncodeSDXLRefiner").run(rows, library)]
    assert sizes == [PictureSize(2, 1, score=score) for score in (3.0, 4.0)]
    asked.clear()
    rows = [{"clip": clip, "clip_l": "a", "t5xxl": "b", "guidance": g} for g in (1.5, 2.5)]
    assert [only(c).guidance for (c,) in find_node("CLIPTextEncodeFlux").run(rows, library)] == [1.5, 2.5]
    assert asked == [{"l": "a", "t5xxl": "b"}] * 2
