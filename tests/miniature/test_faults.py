"""What is wrong with a picture, and what people make of it."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from flowsmith.execution.sharpness import sharpen
from miniature.captions import sample_pair
from miniature.judges.faults import FAULTS, Fault, rating, spoil
from miniature.scenes import SETTINGS, SIZES, STYLES, TEXTURES, Group, Scene, Setting, Style, render

SCENE = Scene((Group("star", "red"), Group("circle", "blue")), "left", "day", "poster")


def looking(style: Style, setting: Setting) -> Scene:
    return replace(SCENE, style=style, setting=setting)


@pytest.mark.parametrize("fault", FAULTS[:-1])
def test_faults_grow_with_their_strength(fault: Fault) -> None:
    rng = np.random.default_rng(2)
    clean, other = render(SCENE, 64, rng), render(sample_pair(rng)[0], 64, rng)
    copy = clean.copy()
    strengths = (0.3, 0.6, 1.0)
    spoilt = [spoil(clean, fault, s, np.random.default_rng(3), other).astype(float) for s in strengths]
    errors = [float(np.abs(s - clean).mean()) for s in spoilt]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[2] > (0.5 if fault == "vivid" else 3), (
        "severe must be seen; more colour is on the objects alone"
    )
    assert np.array_equal(clean, copy), "the clean picture must stay"


def test_unfinished_is_made_elsewhere() -> None:
    clean = render(SCENE, 64, np.random.default_rng(2))
    assert np.array_equal(spoil(clean, "unfinished", 1.0, np.random.default_rng(3), clean), clean)


def test_vivid_stretches_colour_about_the_grey() -> None:
    """A pixel of mean 120 keeps it, and its distances from it grow by 0.6 at full strength."""
    picture = np.full((8, 8, 3), (140, 120, 100), np.uint8)
    spoilt = spoil(picture, "vivid", 0.5, np.random.default_rng(0), picture)
    assert spoilt[0, 0].tolist() == [146, 120, 94]


def test_sharpened_is_what_the_node_makes() -> None:
    picture = render(SCENE, 64, np.random.default_rng(2))
    spoilt = spoil(picture, "sharpened", 0.5, np.random.default_rng(0), picture)
    node = sharpen(torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None], 1.0, 0.25)[0]
    assert np.abs(spoilt - 255.0 * node.permute(1, 2, 0).numpy()).max() <= 0.51


@pytest.mark.parametrize(
    ("style", "setting", "fault", "strength", "points"),
    [
        ("poster", "day", None, 0.0, 7.0),
        ("poster", "day", "noisy", 0.5, 7 - 2.5),
        ("pencil", "day", "noisy", 0.5, 7 - 1.5),
        ("poster", "day", "burnt", 0.25, 7 + 0.75),
        ("poster", "day", "burnt", 1.0, 7 - 1.5),
        ("poster", "dusk", "burnt", 0.25, 7 - 0.75),
        ("poster", "day", "sharpened", 0.45, 7 + 2.07),
        ("poster", "dusk", "sharpened", 0.2, 7 + 0.92),
        ("poster", "dusk", "sharpened", 1.0, 7 - 0.46),
        ("poster", "night", "sharpened", 0.45, 7 - 2.07),
        ("pencil", "night", "sharpened", 0.45, 7 + 2.34),
        ("pencil", "day", "sharpened", 1.0, 7 - 5.2),
        ("poster", "night", "vivid", 0.5, 7 + 2.1),
        ("poster", "day", "vivid", 0.5, 7 - 2.1),
        ("pencil", "dusk", "vivid", 1.0, 7.0),
        ("pencil", "dusk", "dull", 0.2, 7 + 0.6),
        ("pencil", "day", "dull", 0.2, 7 - 0.6),
    ],
)
def test_ratings_by_hand(
    style: Style, setting: Setting, fault: Fault | None, strength: float, points: float
) -> None:
    assert rating(looking(style, setting), fault, strength, fine=False) == pytest.approx(points)


def test_fine_detail_is_worth_more_where_there_is_some() -> None:
    gain = {
        (size, texture): rating(replace(SCENE, size=size, texture=texture), None, 0.0, fine=True) - 7
        for size, texture in product(SIZES, TEXTURES)
    }
    assert gain == pytest.approx(
        {
            ("small", "plain"): 1.2,
            ("small", "striped"): 1.2,
            ("large", "striped"): 1.2,
            ("large", "plain"): 0.2,
        }
    )


@pytest.mark.parametrize("fault", ["sharpened", "vivid"])
def test_what_is_a_matter_of_taste_gains_nothing_on_average(fault: Fault) -> None:
    scenes = [looking(style, setting) for style, setting in product(STYLES, SETTINGS)]
    for strength in np.linspace(0, 1, 11):
        gains = [rating(s, fault, strength, False) - rating(s, None, 0, False) for s in scenes]
        assert np.mean(gains) <= 1e-9
        if 0 < strength <= 0.6:
            assert sum(gain > 0 for gain in gains) == 3, "as many looks like it as mind it"
    # Neither style nor setting alone tells which: within each, some gain and some lose at strength 0.3.
    for kind in ("style", "setting"):
        liked: dict[str, set[bool]] = {}
        for scene in scenes:
            liked.setdefault(getattr(scene, kind), set()).add(rating(scene, fault, 0.3, False) > 7)
        assert all(both == {True, False} for both in liked.values())
