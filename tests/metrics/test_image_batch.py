"""Judges that look at one batch share its pixels, and one network where their weights are the same."""

import gc
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowsmith.metrics import AestheticScore, ClipScore, ImageBatch, ImageReward, PreferenceScore
from flowsmith.metrics.preprocessing import Preprocessing
from flowsmith.metrics.published import random_models as models

WORDS = "open_clip_model.safetensors"


def count(monkeypatch: pytest.MonkeyPatch, holder: object, method: str) -> list[int]:
    """Record how many images each call of a method gets."""
    seen: list[int] = []
    original = getattr(holder, method)

    def listen(*arguments: Tensor) -> Tensor:
        seen.append(len(arguments[-1]))
        result: Tensor = original(*arguments)
        return result

    monkeypatch.setattr(holder, method, listen)
    return seen


def test_one_network_looks_once(
    judges_folder: Path, photos: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    rating, fit = AestheticScore(judges_folder / models.CLIP), ClipScore(judges_folder / models.CLIP)
    assert rating.encoder is fit.encoder
    seen = count(monkeypatch, fit.encoder.model, "encode_image")
    batch, texts = ImageBatch(photos), ["a cat"] * len(photos)
    together = [judge.judge(batch, texts) for judge in (rating, fit)]
    assert seen == [6]
    apart = [judge.judge(photos, texts) for judge in (rating, fit)]
    assert seen == [6, 6, 6]
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one, other)


def test_one_resize_for_networks_of_one_size(
    judges_folder: Path, photos: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = [
        ClipScore(judges_folder / models.CLIP),
        PreferenceScore(judges_folder / models.HPS2, architecture="ViT-H-14"),
        PreferenceScore(judges_folder / models.HPS21, architecture="ViT-H-14"),
        ImageReward(judges_folder / models.BLIP),  # 224 wide, the others 56
    ]
    assert (
        len({id(judge.encoder) for judge in judges[:3] if isinstance(judge, ClipScore | PreferenceScore)})
        == 3
    )
    resized: list[int] = []
    original = Preprocessing.__call__

    def listen(self: Preprocessing, images: ImageBatch) -> Tensor:
        resized.append(self.size[0])
        return original(self, images)

    monkeypatch.setattr(Preprocessing, "__call__", listen)
    batch = ImageBatch(photos)
    for judge in judges:
        judge.judge(batch, ["a cat"] * len(photos))
    assert resized == [56, 224]


def test_networks_that_differ_are_not_shared(judges_folder: Path, tmp_path: Path) -> None:
    first = ClipScore(judges_folder / models.CLIP)
    moved = shutil.copytree(judges_folder / models.CLIP, tmp_path / "moved")
    assert ClipScore(moved).encoder is first.encoder, "the content counts, not the place"
    assert ClipScore(moved, precision="bfloat16").encoder is not first.encoder
    config = moved / "open_clip_config.json"
    config.write_text(config.read_text().replace('"quick_gelu": true', '"quick_gelu": false'))
    assert ClipScore(moved).encoder is not first.encoder, "an activation is in no tensor"
    shutil.copy(judges_folder / models.CLIP / config.name, config)
    weights = load_file(moved / WORDS)
    weights["ln_final.bias"][3] = weights["ln_final.bias"][3].nextafter(torch.tensor(9.0))
    save_file(weights, moved / WORDS)
    assert ClipScore(moved).encoder is not first.encoder


def test_a_network_that_no_judge_holds_is_freed(judges_folder: Path) -> None:
    judge = ClipScore(judges_folder / models.CLIP)
    alive = weakref.ref(judge.encoder)
    del judge
    gc.collect()
    assert alive() is None


def test_a_batch_is_a_sequence_and_knows_until_it_dies() -> None:
    images = [torch.zeros(3, 2, 2, dtype=torch.uint8), torch.ones(3, 4, 4, dtype=torch.uint8)]
    batch = ImageBatch(images)
    assert ImageBatch.of(batch) is batch
    assert len(batch) == 2
    assert batch[1] is images[1]
    assert batch[:1] == (images[0],)
    made: list[int] = []
    for key in ("a", "b", "a"):
        batch.once(key, lambda: made.append(1))
    assert len(made) == 2
    assert ImageBatch.of(images) is not batch
