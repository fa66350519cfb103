"""Every rule of GenEval on drawn scenes, with verdicts worked out by hand, on both sides of each border."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from flowsmith.metrics import GenEval, GenEvalChecker
from flowsmith.metrics.geneval.colours import ColourClassifier, cut_out
from flowsmith.metrics.geneval.names import COLOURS
from flowsmith.metrics.geneval.rules import Box, Detection, iou, keep, relations, verdict
from flowsmith.metrics.open_clip_loader import ClipEncoder
from flowsmith.prompts import Prompt

SIZE = 100
PAINT = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
LEFT: Box = (10, 40, 30, 60)
RIGHT: Box = (70, 40, 90, 60)


class Drawn(nn.Module):
    """A detector that finds what was drawn; masks are the boxes, but for those drawn as rings."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[Detection]] = {}

    def forward(self, image: Tensor, above: float) -> dict[str, list[Detection]]:
        return self.found


class ByEye(ClipEncoder):
    """A stand-in for CLIP that sees the commonest paint, and reads the first colour, as unit vectors."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.texts: list[str] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def encode_images(self, images: Sequence[Tensor]) -> Tensor:
        votes = [
            [
                float((image.permute(1, 2, 0).int() - torch.tensor(PAINT[c])).abs().sum(-1).eq(0).sum())
                if c in PAINT
                else 0.0
                for c in COLOURS
            ]
            for image in images
        ]
        return nn.functional.normalize(torch.tensor(votes))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        words = [text.replace("-colored", "").split() for text in texts]
        return torch.tensor([[float(colour in said) for colour in COLOURS] for said in words])


Drawing = tuple[str, str, Box, float]
"""Class, paint, box and how sure the detector is."""


def scene(*drawings: Drawing) -> tuple[Tensor, GenEvalChecker]:
    """Draw boxes over black; later ones over earlier ones."""
    image, detector = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), Drawn()
    for name, paint, box, score in drawings:
        left, top, right, bottom = (int(edge) for edge in box)
        image[:, top:bottom, left:right] = torch.tensor(PAINT[paint], dtype=torch.uint8)[:, None, None]
        mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        mask[top:bottom, left:right] = True
        detector.found.setdefault(name, []).append(Detection(score, box, mask))
    return image, GenEvalChecker(detector, ByEye())


def asked(task: str, *include: dict[str, Any], exclude: Sequence[dict[str, Any]] = ()) -> Prompt:
    facts = {"include": list(include), **({"exclude": list(exclude)} if exclude else {})}
    return Prompt("0", "a photo", task=task, facts=facts)


def one(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def decide(prompt: Prompt, *drawings: Drawing) -> bool | None:
    image, checker = scene(*drawings)
    return checker(image, prompt)  # type: ignore[no-any-return]


BENCH = asked("single_object", one("bench"))
CATS = asked("counting", one("cat", 2), exclude=[one("cat", 3)])
PAIR = asked("two_object", one("cat"), one("dog"))
RED_CAR = asked("colors", one("car", color="red"))
TWO_RED = asked("colors", one("car", 2, color="red"))
BOTH = asked("color_attr", one("cat", color="red"), one("dog", color="blue"))
LEFT_OF = asked("position", one("dog"), one("cat", position=["left of", 0]))


@pytest.mark.parametrize(
    ("prompt", "drawings", "right"),
    [
        # One object: the score must be above 0.3.
        (BENCH, [("bench", "red", LEFT, 0.31)], True),
        (BENCH, [("bench", "red", LEFT, 0.3)], False),
        (BENCH, [("chair", "red", LEFT, 0.99)], False),
        (BENCH, [], False),
        (BENCH, [("bench", "red", LEFT, 0.9), ("bench", "red", RIGHT, 0.9)], True),  # more is no fault
        # Two objects.
        (PAIR, [("cat", "red", LEFT, 0.5), ("dog", "red", RIGHT, 0.5)], True),
        (PAIR, [("cat", "red", LEFT, 0.5), ("cat", "red", RIGHT, 0.5)], False),
        (PAIR, [("cat", "red", LEFT, 0.5), ("dog", "red", RIGHT, 0.2)], False),
        # Counting: exactly so many above 0.9.
        (CATS, [("cat", "red", LEFT, 0.95), ("cat", "red", RIGHT, 0.91)], True),
        (CATS, [("cat", "red", LEFT, 0.95), ("cat", "red", RIGHT, 0.9)], False),
        (CATS, [("cat", "red", LEFT, 0.95)], False),
        (CATS, [("cat", "red", LEFT, 0.95)] * 3, False),
        (CATS, [*[("cat", "red", LEFT, 0.95)] * 2, ("cat", "red", RIGHT, 0.89)], True),
        (CATS, [*[("cat", "red", LEFT, 0.95)] * 2, ("dog", "red", RIGHT, 0.95)], True),
        # Colours: of the surest one alone.
        (RED_CAR, [("car", "red", LEFT, 0.5)], True),
        (RED_CAR, [("car", "blue", LEFT, 0.5)], False),
        (RED_CAR, [("car", "blue", LEFT, 0.9), ("car", "red", RIGHT, 0.8)], False),
        (RED_CAR, [("car", "blue", LEFT, 0.7), ("car", "red", RIGHT, 0.8)], True),
        (TWO_RED, [("car", "red", LEFT, 0.9), ("car", "red", RIGHT, 0.8)], True),
        (TWO_RED, [("car", "red", LEFT, 0.9), ("car", "blue", RIGHT, 0.8)], False),
        (TWO_RED, [("car", "red", LEFT, 0.9)], False),
        # Attribution: each its own colour.
        (BOTH, [("cat", "red", LEFT, 0.5), ("dog", "blue", RIGHT, 0.5)], True),
        (BOTH, [("cat", "blue", LEFT, 0.5), ("dog", "red", RIGHT, 0.5)], False),
        (BOTH, [("cat", "red", LEFT, 0.5), ("dog", "red", RIGHT, 0.5)], False),
        # Position: of the surest ones.
        (LEFT_OF, [("cat", "red", LEFT, 0.5), ("dog", "red", RIGHT, 0.5)], True),
        (LEFT_OF, [("cat", "red", RIGHT, 0.5), ("dog", "red", LEFT, 0.5)], False),
        (LEFT_OF, [("cat", "red", LEFT, 0.5)], False),
        (LEFT_OF, [("dog", "red", RIGHT, 0.5)], False),
        (LEFT_OF, [("cat", "red", LEFT, 0.5), ("dog", "red", (5, 40, 8, 60), 0.9), ("dog", "red", RIGHT, 0.5)], False),
        (LEFT_OF, [("cat", "red", LEFT, 0.5), ("dog", "red", (5, 40, 8, 60), 0.4), ("dog", "red", RIGHT, 0.5)], True),
    ],
)  # fmt: skip
def test_scenes(prompt: Prompt, drawings: list[Drawing], right: bool) -> None:
    assert decide(prompt, *drawings) is right


def test_sixteen_objects_of_a_class_are_looked_at() -> None:
    many: list[Drawing] = [("cat", "red", LEFT, 0.95 + i / 1000) for i in range(20)]
    allowed = asked("counting", one("cat", 16), exclude=[one("cat", 17)])
    assert decide(allowed, *many) is True
    assert decide(asked("counting", one("cat", 17)), *many) is False


def test_nothing_asked_is_no_verdict() -> None:
    assert decide(Prompt("0", "x", task="colors"), ("cat", "red", LEFT, 0.9)) is None
    assert decide(asked("counting", exclude=[one("cat")]), ("dog", "red", LEFT, 0.95)) is True
    assert decide(asked("counting", exclude=[one("cat")]), ("cat", "red", LEFT, 0.95)) is False


def test_reasons_are_told() -> None:
    image, checker = scene(("cat", "blue", LEFT, 0.9), ("cat", "red", RIGHT, 0.8))
    prompt = asked(
        "position",
        one("cat", color="red"),
        one("dog", 2),
        one("bird", position=["above", 0]),
        exclude=[one("cat", 2)],
    )
    told = checker.explain(image, prompt)
    assert told is not None
    assert told.reasons == (
        "cat is blue, red asked for",
        "0 dog, at least 2 asked for",
        "0 bird, at least 1 asked for",
        "2 cat, fewer than 2 asked for",
    )
    image, checker = scene(("cat", "blue", LEFT, 0.9), ("bird", "red", RIGHT, 0.8))
    told = checker.explain(image, asked("position", one("dog"), one("bird", position=["above", 0])))
    assert told is not None
    assert told.reasons == ("0 dog, at least 1 asked for", "nothing is there for bird to be above")
    told = checker.explain(image, asked("position", one("cat"), one("bird", position=["above", 0])))
    assert told is not None
    assert told.reasons == ("bird is right of, above asked for",)


BASE: Box = (40, 40, 60, 60)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # Extents 20 + 20, so four pixels of an offset do not count; then more than half of it must be left.
        ((44, 40, 64, 60), set()),  # off by 4: nothing is left
        ((48, 40, 68, 60), set()),  # off by 8: 4 left, exactly half
        ((49, 40, 69, 60), {"right of"}),  # off by 9: 5 left of 9
        ((31, 40, 51, 60), {"left of"}),
        ((40, 31, 60, 51), {"above"}),
        ((40, 49, 60, 69), {"below"}),
        ((52, 52, 72, 72), set()),  # off by 12, 12: 8 / 16.97 = 0.471 each
        ((60, 60, 80, 80), {"right of", "below"}),  # off by 20, 20: 16 / 28.28 = 0.566 each
        ((60, 28, 80, 48), {"right of"}),  # off by 20, -12: 16 / 23.3 = 0.686 and 8 / 23.3 = 0.343
        ((40, 40, 60, 60), set()),  # one upon the other
        ((0, 45, 100, 55), set()),  # as central as can be
    ],
)
def test_relations_by_hand(box: Box, expected: set[str]) -> None:
    assert relations(box, BASE) == expected


COORDINATE = st.floats(0, 100)
BOXES = st.tuples(COORDINATE, COORDINATE, st.floats(1, 50), st.floats(1, 50)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@given(BOXES, BOXES)
def test_relations_are_opposite_from_the_other_side(a: Box, b: Box) -> None:
    assert relations(b, a) == {OPPOSITE[name] for name in relations(a, b)}
    assert not {"left of", "right of"} <= relations(a, b)


def test_every_pair_must_be_so_placed() -> None:
    objects = {
        "cat": [Detection(0.9, (10, 40, 20, 50)), Detection(0.8, (80, 40, 90, 50))],
        "dog": [Detection(0.9, (50, 40, 60, 50))],
    }
    facts = {"include": [one("dog"), one("cat", 2, position=["left of", 0])]}
    assert not verdict(objects, facts, lambda *_: []).right
    assert verdict(
        objects, {"include": [one("dog"), one("cat", position=["left of", 0])]}, lambda *_: []
    ).right


def test_overlap_by_hand() -> None:
    """Boxes hold their last pixel: 11 x 11 and 11 x 11 share 6 x 11 of 242 - 66."""
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(66 / 176)
    assert iou((0, 0, 1, 1), (50, 50, 51, 51)) == 0
    sure, doubtful = Detection(0.9, (0, 0, 10, 10)), Detection(0.5, (5, 0, 15, 10))
    assert keep([doubtful, sure], 0.3) == [sure, doubtful], "as published, nothing is dropped"
    assert keep([doubtful, sure], 0.3, overlap=66 / 176) == [sure], "from the bound on"
    assert keep([doubtful, sure], 0.3, overlap=0.38) == [sure, doubtful]
    assert keep([sure, sure], 0.3) == [sure, sure], "even doubles"
    third = Detection(0.4, (10, 0, 20, 10))  # overlaps with the doubtful one, which is gone
    assert keep([third, doubtful, sure], 0.3, overlap=0.3) == [sure, third]


def test_cut_out_by_hand() -> None:
    """The box alone, grey #999 around the mask."""
    image = torch.full((3, 6, 8), 200, dtype=torch.uint8)
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[2, 3:6] = mask[1:5, 4] = True
    crop = cut_out(image, Detection(0.9, (3.0, 1.0, 6.0, 5.0), mask))
    cross = [[153, 200, 153], [200, 200, 200], [153, 200, 153], [153, 200, 153]]
    assert crop.tolist() == [cross] * 3
    assert (image == 200).all(), "the image itself stays"
    bare = cut_out(image, Detection(0.9, (-1.0, 1.0, 3.0, 9.0)))
    assert bare.shape == (3, 5, 3)
    assert (bare == 200).all()


def test_colour_of_the_mask_not_of_the_box() -> None:
    """A thin red object in a blue surrounding: by the box it is blue."""
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[2] = 255
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[:, 9:11] = True
    image[:, :, 9:11] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    box = (5.0, 0.0, 15.0, 20.0)
    colours = ColourClassifier(ByEye())
    assert colours(image, "car", [Detection(0.9, box, mask), Detection(0.9, box)]) == ["red", "blue"]


def test_wording_as_published_and_read_once() -> None:
    encoder = ByEye()
    colours, image = ColourClassifier(encoder), torch.zeros(3, 9, 9, dtype=torch.uint8)
    for _ in range(2):
        colours(image, "hot dog", [Detection(0.9, (0, 0, 9, 9))])
    assert len(encoder.texts) == 30
    assert encoder.texts[:3] == [
        "a photo of a red hot dog",
        "a photo of a red-colored hot dog",
        "a photo of a red object",
    ]


def test_in_the_metric() -> None:
    image, checker = scene(("cat", "red", LEFT, 0.95), ("dog", "blue", RIGHT, 0.95))
    judge = GenEval(checker)
    assert judge.checker is checker
    assert not list(judge.parameters()), "networks stay out of checkpoints"
    judge.update([image] * 3, [PAIR, BOTH, CATS])
    result = judge.compute()
    assert isinstance(result, dict)
    assert [result[task].item() for task in ("two_object", "color_attr", "counting")] == [1, 1, 0]
