import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flowsmith.metrics import (
    AestheticHead,
    AestheticScore,
    ClipEncoder,
    ClipScore,
    GenEval,
    Judge,
    JudgeError,
    PreferenceScore,
    clip_score,
)
from flowsmith.prompts import Prompt

TEXTS = ["a red star", "two blue stars", "a red star", "left of a circle", "a"]


def test_clip_score_by_hand() -> None:
    image = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    text = torch.tensor([[0.6, 0.8], [0.6, 0.8], [-0.6, 0.8]])
    torch.testing.assert_close(clip_score(image, text), torch.tensor([60.0, 100.0, 0.0]))


def test_clip_and_preference_scores(clip_folder: Path, images: list[Tensor]) -> None:
    """Against numpy over the encoder's vectors; the two judges differ in scale and sign alone."""
    encoder = ClipEncoder.load(clip_folder)
    image, text = encoder.encode_images(images).numpy(), encoder.encode_texts(TEXTS).numpy()
    cosines = np.array([np.dot(i, t) for i, t in zip(image, text, strict=True)])
    assert cosines.min() < 0 < cosines.max(), "both signs, or the cut at zero is not seen"
    np.testing.assert_allclose(PreferenceScore(clip_folder).judge(images, TEXTS), cosines, atol=1e-6)
    np.testing.assert_allclose(
        ClipScore(encoder).judge(images, TEXTS), np.maximum(100 * cosines, 0), atol=1e-4
    )


@pytest.mark.parametrize("layout", ["safetensors", "authors"])
def test_aesthetic_is_the_affine_map_of_its_layers(
    layout: str, clip_folder: Path, head_file: Path, images: list[Tensor], tmp_path: Path
) -> None:
    weights = load_file(head_file)
    if layout == "authors":
        head_file = tmp_path / "sac+logos+ava1-l14-linearMSE.pth"
        torch.save({k: torch.from_numpy(v) for k, v in weights.items()}, head_file)
    rated = ClipEncoder.load(clip_folder).encode_images(images).numpy().astype(np.float64)
    for layer in (0, 2, 4, 6, 7):
        rated = rated @ weights[f"layers.{layer}.weight"].T + weights[f"layers.{layer}.bias"]
    ours = AestheticScore(clip_folder, head_file).judge(images, TEXTS)
    np.testing.assert_allclose(ours, rated[:, 0], atol=1e-5)


def test_weight_hash_follows_the_tensors_alone(clip_folder: Path, head_file: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(clip_folder, tmp_path / "elsewhere")
    assert ClipScore(moved).weight_hash == ClipScore(clip_folder).weight_hash != ""
    weights = load_torch(moved / "open_clip_model.safetensors")
    weights["logit_scale"] = weights["logit_scale"].nextafter(torch.tensor(9.0))  # one bit of one number
    save_file(weights, moved / "open_clip_model.safetensors")
    assert ClipScore(moved).weight_hash != ClipScore(clip_folder).weight_hash
    assert AestheticScore(clip_folder, head_file).weight_hash != ClipScore(clip_folder).weight_hash
    assert GenEval(lambda image, prompt: True).weight_hash == ""


def test_weight_hash_by_hand() -> None:
    class Held(Judge):
        def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
            return torch.zeros(len(images))

    network = nn.Linear(2, 1)
    network.load_state_dict({"weight": torch.tensor([[1.0, -2.0]]), "bias": torch.tensor([0.5])})
    told = b"net.bias torch.float32 [1]\0" + np.array([0.5], "<f4").tobytes()
    told += b"net.weight torch.float32 [1, 2]\0" + np.array([1, -2], "<f4").tobytes()
    assert Held("held", net=network).weight_hash == hashlib.sha256(told).hexdigest()[:16]


def test_aesthetic_layout_is_laions() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in AestheticHead().state_dict().items()}
    assert shapes == {
        "layers.0.weight": (1024, 768),
        "layers.0.bias": (1024,),
        "layers.2.weight": (128, 1024),
        "layers.2.bias": (128,),
        "layers.4.weight": (64, 128),
        "layers.4.bias": (64,),
        "layers.6.weight": (16, 64),
        "layers.6.bias": (16,),
        "layers.7.weight": (1, 16),
        "layers.7.bias": (1,),
    }


def test_aesthetic_head_beside_the_clip_is_found(
    clip_folder: Path, head_file: Path, images: list[Tensor]
) -> None:
    beside = clip_folder / "aesthetic.safetensors"
    try:
        beside.write_bytes(head_file.read_bytes())
        found = AestheticScore(clip_folder).judge(images, TEXTS)
    finally:
        beside.unlink()
    assert torch.equal(found, AestheticScore(clip_folder, head_file).judge(images, TEXTS))


def test_mean_over_uneven_batches(clip_folder: Path, images: list[Tensor]) -> None:
    """A mean of batch means would be another number."""
    judge = ClipScore(clip_folder)
    each = judge.judge(images, TEXTS)
    assert judge.count == 0, "judging alone must not count"
    judge.update(images[:4], [Prompt("x", text) for text in TEXTS[:4]])
    judge.update(images[4:], TEXTS[4:])
    torch.testing.assert_close(judge.compute(), each.mean())
    assert (each[:4].mean() + each[4]) / 2 != pytest.approx(float(each.mean()), abs=1e-3)
    judge.reset()
    judge.update(images[:1], TEXTS[:1])
    torch.testing.assert_close(judge.compute(), each[0])


class Fixed(Judge):
    """Says what it is given."""

    def __init__(self, values: list[float]) -> None:
        super().__init__("fixed")
        self.values = values

    def judge(self, images: object, prompts: object) -> Tensor:
        return torch.tensor(self.values)


def test_abstentions_enter_no_mean() -> None:
    judge = Fixed([1.0, float("nan"), 4.0])
    judge.update([], [])
    assert judge.compute() == 2.5
    assert (int(judge.count), int(judge.abstained)) == (2, 1)


def test_sums_keep_small_values_beside_large_ones() -> None:
    """In single precision the thousand ones would vanish beside 1e8."""
    judge = Fixed([1e8] + [1.0] * 1000)
    judge.update([], [])
    assert judge.total.item() == 1e8 + 1000


def test_a_judge_leaves_no_trace_in_the_module_that_holds_it(clip_folder: Path, head_file: Path) -> None:
    holder = nn.ModuleDict({"judge": AestheticScore(clip_folder, head_file)})
    assert not holder.state_dict()
    assert not list(holder.parameters())
    judge = holder["judge"]
    assert isinstance(judge, AestheticScore)
    assert not any(p.requires_grad for p in (*judge.encoder.parameters(), *judge.head.parameters()))


def test_networks_follow_the_device_but_not_the_precision(clip_folder: Path) -> None:
    holder = nn.ModuleList([ClipScore(clip_folder)])
    judge = holder[0]
    assert isinstance(judge, ClipScore)
    holder.half()
    assert judge.encoder.model.visual.proj.dtype == torch.float32
    holder.to("meta")
    assert judge.encoder.device.type == "meta"


def test_bad_samples(clip_folder: Path, images: list[Tensor]) -> None:
    judge = ClipScore(clip_folder)
    with pytest.raises(JudgeError, match="5 images with 1 prompts"):
        judge.update(images, ["a"])
    with pytest.raises(JudgeError, match=r"image 1 is torch.float32 of shape \(3, 32, 32\).*uint8"):
        judge.judge([images[0], images[1] / 255], ["a", "a"])
    with pytest.raises(JudgeError, match=r"shape \(32, 32, 3\)"):
        judge.judge([images[1].permute(1, 2, 0)], ["a"])


def test_bad_heads(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"nowhere\.pth.*is no file"):
        AestheticScore(clip_folder, tmp_path / "nowhere.pth")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(JudgeError, match=r"torn\.safetensors: no readable file of weights"):
        AestheticScore(clip_folder, tmp_path / "torn.safetensors")
    save_file({"weight": torch.zeros(1, 12)}, tmp_path / "other.safetensors")
    with pytest.raises(JudgeError, match=r"keys layers\.0, 2, 4, 6, 7"):
        AestheticScore(clip_folder, tmp_path / "other.safetensors")
    save_file(AestheticHead(16).state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(JudgeError, match="reads embeddings of length 16, this CLIP gives 12"):
        AestheticScore(clip_folder, tmp_path / "wide.safetensors")
    with pytest.raises(JudgeError, match="head=None"):
        AestheticScore(ClipEncoder.load(clip_folder))
