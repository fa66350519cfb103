"""Judges of each published format against what their files' tensors say by hand, to 1e-5."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowsmith.metrics import ImageReward, Judge
from flowsmith.metrics.image_reward import MEAN, STD
from flowsmith.metrics.open_clip_loader import Precision
from flowsmith.metrics.preprocessing import Preprocessing
from flowsmith.metrics.published import random_models as models
from flowsmith.metrics.published.by_hand import clip_cosine, gelu, pixels, quick_gelu
from flowsmith.metrics.published.table import JUDGES, Scored
from flowsmith.metrics.weight_files import read_weights

TEXTS = [
    "a red cat",
    "Two photos of dogs, in the rain",
    "",
    "zebra-crossing of the 3rd kind, ÄÖ " + "very " * 90,
    "a photo of a dog's cat",
    "the the the",
]
Column = NDArray[np.float64]
SCORED = {name: entry.difference for name, entry in JUDGES.items() if isinstance(entry.difference, Scored)}


def reference(name: str, folder: Path, photos: list[Tensor]) -> Column:
    """Return what the judge must say; of PickScore the cosine, of CLIPScore the cosine above zero."""
    return np.array([SCORED[name].reference(folder, i, t) for i, t in zip(photos, TEXTS, strict=True)])


@cache
def loaded(name: str, folder: Path, precision: Precision) -> Judge:
    return JUDGES[name].load(folder, precision)


@pytest.fixture(scope="module", autouse=True)
def forget() -> Iterator[None]:
    yield
    loaded.cache_clear()


def said(
    name: str,
    folder: Path,
    photos: list[Tensor],
    texts: list[str] = TEXTS,
    precision: Precision = "float32",
) -> Column:
    """Return what a judge says, in the unit of `reference`."""
    judge = loaded(name, folder, precision)
    values: Column = judge.judge(photos, texts).double().numpy() / SCORED[name].unit(judge)
    return values


def cosines(
    weights: dict[str, Tensor],
    photos: list[Tensor],
    heads: tuple[int, int],
    activation: Callable[[Tensor], Tensor],
    round_down: bool = False,
) -> Column:
    return np.array(
        [
            clip_cosine(weights, i, t, heads=heads, activation=activation, round_down=round_down)
            for i, t in zip(photos, TEXTS, strict=True)
        ]
    )


@pytest.mark.parametrize("name", SCORED)
def test_as_the_tensors_say_by_hand(name: str, judges_folder: Path, photos: list[Tensor]) -> None:
    expected = reference(name, judges_folder, photos)
    np.testing.assert_allclose(said(name, judges_folder, photos), expected, atol=1e-5, rtol=0)
    assert np.ptp(expected) > 0.05, "the samples must differ by more than the tolerance"


@pytest.mark.parametrize("name", SCORED)
def test_batched_and_alone(name: str, judges_folder: Path, photos: list[Tensor]) -> None:
    together = said(name, judges_folder, photos)
    alone = [said(name, judges_folder, photos[i : i + 1], TEXTS[i : i + 1])[0] for i in (0, 3, 5)]
    np.testing.assert_allclose(together[[0, 3, 5]], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SCORED)
def test_bfloat16_is_near(name: str, judges_folder: Path, photos: list[Tensor]) -> None:
    """Eight bits leave 0.03 of a cosine, and 6 % of the spread of what is no cosine."""
    exact = said(name, judges_folder, photos)
    rough = said(name, judges_folder, photos, precision="bfloat16")
    bound = 0.06 * exact.std() if name in ("aesthetic", "image_reward") else 0.03
    assert 1e-6 < np.abs(exact - rough).max() < bound


def test_activation_crop_and_version_tell(judges_folder: Path, photos: list[Tensor]) -> None:
    """What a wrong configuration would do is far beyond the tolerance, so the comparison sees it."""
    clip = read_weights(judges_folder / models.CLIP / "open_clip_model.safetensors")
    right = cosines(clip, photos, (2, 1), quick_gelu)
    assert np.abs(cosines(clip, photos, (2, 1), gelu) - right).max() > 1e-3
    assert np.abs(cosines(clip, photos, (1, 1), quick_gelu) - right).max() > 1e-3
    down = cosines(clip, photos, (2, 1), quick_gelu, round_down=True)
    moved = np.abs(down - right)
    assert moved[3] > 1e-4
    assert moved[[1, 4]].max() == 0, "nothing is cropped of a square"
    old, new = (reference(name, judges_folder, photos) for name in ("hps_v2", "hps_v21"))
    assert np.abs(old - new).max() > 0.01


def test_heads_without_the_mean_are_other_numbers(judges_folder: Path, photos: list[Tensor]) -> None:
    assert pytest.approx((0.16717, 1.03334), abs=1e-5) == (MEAN, STD)
    judge = ImageReward(judges_folder / models.BLIP)
    again = judge.judge(photos, TEXTS) * STD + MEAN
    assert (again - judge.judge(photos, TEXTS)).abs().max() > 0.1


@pytest.mark.parametrize("crop", ["torchvision", "transformers"])
def test_pixels_as_pil_has_them(crop: str, photos: list[Tensor]) -> None:
    prepare = Preprocessing((56, 56), crop="transformers" if crop == "transformers" else "torchvision")
    theirs = torch.stack([pixels(photo, 56, crop == "transformers") for photo in photos])
    torch.testing.assert_close(prepare(photos).double(), theirs, atol=1e-6, rtol=0)


def test_transformers_own_processor_crops_so(photos: list[Tensor]) -> None:
    """The rule of PickScore's processor, from transformers itself (its form that resizes by PIL)."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    theirs = [processor(photo.numpy(), return_tensors="pt")["pixel_values"][0] for photo in photos]
    ours = Preprocessing((56, 56), crop="transformers")(photos)
    torch.testing.assert_close(ours, torch.stack(theirs).to(ours), atol=1e-5, rtol=0)
