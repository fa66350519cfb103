"""Mask2Former from disk: masks, boxes and scores from the raw outputs by hand, at the image's own shape."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowsmith.metrics import AestheticScore, GenEval, GenEvalChecker, JudgeError
from flowsmith.metrics.geneval.detector import InstanceDetector
from flowsmith.metrics.geneval.names import CLASSES
from flowsmith.metrics.published import random_models as models
from flowsmith.metrics.published.by_hand import detector_pixels, instances
from flowsmith.prompts import Prompt

SHORT, LONG = 64, 120


@pytest.fixture(scope="module")
def detector(judges_folder: Path) -> InstanceDetector:
    return InstanceDetector.load(judges_folder / models.DETECTOR, SHORT, LONG)


@pytest.mark.parametrize(
    ("shape", "size", "padded"),
    [
        ((90, 120), (64, 85), (64, 96)),  # the shorter side becomes 64
        ((120, 90), (85, 64), (96, 64)),
        ((40, 160), (30, 120), (32, 128)),  # the longer one would be more than 120
        ((64, 64), (64, 64), (64, 64)),
    ],
)
def test_scores_and_boxes_by_hand(
    shape: tuple[int, int],
    size: tuple[int, int],
    padded: tuple[int, int],
    detector: InstanceDetector,
) -> None:
    image = smooth(shape)
    pixels = detector_pixels(image, size)
    torch.testing.assert_close(detector.resized(image)[0].double(), pixels, atol=1e-5, rtol=0)
    frame = torch.zeros(1, 3, *padded)
    frame[0, :, : size[0], : size[1]] = pixels
    with torch.no_grad():
        output = detector.model(pixel_values=frame)
    classes, masks = output.class_queries_logits[0], output.masks_queries_logits[0]
    assert masks.shape[1:] == (padded[0] // 4, padded[1] // 4)
    by_hand = instances(classes, masks, shape, size, padded)
    chances = classes.softmax(-1)[:, :-1].flatten().sort(descending=True).values
    likely = {
        pair: found
        for pair, found in by_hand.items()
        if classes.softmax(-1)[pair] >= chances[99]  # a hundred pairs are looked at
    }
    expected = sorted((CLASSES[label], *found) for (_, label), found in likely.items())
    ours = sorted((name, one.score, one.box) for name, found in detector(image).items() for one in found)
    assert [name for name, _, _ in ours] == [name for name, _, _ in expected]
    assert [score for _, score, _ in ours] == pytest.approx([score for _, score, _ in expected], abs=1e-5)
    assert [box for _, _, box in ours] == [box for _, _, box in expected]


def test_masks_have_the_images_size_and_fill_their_boxes(detector: InstanceDetector) -> None:
    for found in detector(smooth((50, 150))).values():
        for one in found:
            assert one.mask is not None
            assert one.mask.shape == (50, 150)
            left, top, right, bottom = (int(edge) for edge in one.box)
            assert one.mask[top:bottom, left:right].sum() == one.mask.sum() > 0
            assert one.mask[top].any()
            assert one.mask[bottom - 1].any()
            assert one.mask[:, left].any()
            assert one.mask[:, right - 1].any()


def test_a_bound_only_leaves_out(detector: InstanceDetector) -> None:
    image = smooth((70, 90))
    everything = {(n, one.score) for n, found in detector(image).items() for one in found}
    bound = sorted(score for _, score in everything)[len(everything) // 2]
    some = {(n, one.score) for n, found in detector(image, bound).items() for one in found}
    assert some == {(n, score) for n, score in everything if score > bound}
    assert 0 < len(some) < len(everything)
    assert detector(image, 1.0) == {}


def test_stuff_of_a_panoptic_model_is_nothing(detector: InstanceDetector) -> None:
    """Labels from the eightieth on take their share of probability and are never reported."""
    image = smooth((64, 64))
    few = detector(image)
    with torch.no_grad():
        old = detector.model.class_predictor
        detector.model.class_predictor = wide = torch.nn.Linear(old.in_features, 84)
        wide.weight[:80], wide.bias[:80] = old.weight[:80], old.bias[:80]
        wide.weight[80:], wide.bias[80:] = old.weight[80], 50.0
        wide.bias[83] = old.bias[80]
    try:
        assert detector(image, 0.01) == {}
    finally:
        detector.model.class_predictor = old
    assert detector(image).keys() == few.keys()


def test_too_few_classes(judges_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(judges_folder / models.DETECTOR, tmp_path / "few"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): f"c{i}" for i in range(20)}
    config["label2id"] = {f"c{i}": i for i in range(20)}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeError):
        InstanceDetector.load(folder)
    with pytest.raises(JudgeError, match="is no folder"):
        InstanceDetector.load(tmp_path / "nowhere")


def test_from_disk_to_a_verdict(judges_folder: Path, tmp_path: Path) -> None:
    """The public path on random weights: what the detector is sure of is right, and its colour is CLIP's."""
    checker = GenEvalChecker(judges_folder / models.DETECTOR, judges_folder / models.CLIP, threshold=0.2)
    assert isinstance(checker.detector, InstanceDetector)
    checker.detector.short, checker.detector.long = SHORT, LONG
    image = smooth((80, 100))
    found = checker.detector(image, 0.2)
    name, best = max(((n, max(d.score for d in ds)) for n, ds in found.items()), key=lambda pair: pair[1])
    absent = next(other for other in CLASSES if other not in found)
    surest = next(one for one in found[name] if one.score == best)
    colour = checker.colours(image, name, [surest])[0]
    prompts = [
        Prompt("0", "x", task="single_object", facts={"include": [{"class": name, "count": 1}]}),
        Prompt("1", "x", task="single_object", facts={"include": [{"class": absent, "count": 1}]}),
        Prompt("2", "x", task="colors", facts={"include": [{"class": name, "count": 1, "color": colour}]}),
    ]
    judge = GenEval(checker)
    assert judge.judge([image] * 3, prompts).tolist() == [1, 0, 1]
    rating = AestheticScore(judges_folder / models.CLIP)
    assert checker.colours.encoder is rating.encoder, "the colours' CLIP is the aesthetic judge's"
    assert len(judge.weight_hash) == 16
    judge.to("meta")
    assert next(checker.detector.parameters()).is_meta


def smooth(shape: tuple[int, int]) -> Tensor:
    noise = torch.Generator().manual_seed(11)
    coarse = torch.randint(0, 256, (1, 3, 5, 7), generator=noise).float()
    return torch.nn.functional.interpolate(coarse, shape, mode="bilinear")[0].round().byte()
