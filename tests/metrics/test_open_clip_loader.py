import json
import os
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowsmith.metrics import ClipEncoder, JudgeError

TEXTS = ["a red star", "two blue stars", "a red star", "left of a circle"]


def test_images_as_open_clip_sees_them_through_pil(clip_folder: Path, images: list[Tensor]) -> None:
    """The independent path: PIL resizes, one image at a time, by open_clip's own transform."""
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    with torch.no_grad():
        theirs = torch.cat(
            [
                model.eval().encode_image(transform(Image.fromarray(i.permute(1, 2, 0).numpy()))[None])
                for i in images
            ]
        )
    theirs = theirs / theirs.norm(dim=1, keepdim=True)
    ours = ClipEncoder.load(clip_folder).encode_images(images)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (ours[0] - ours[2]).abs().max() > 0.1, "the pictures must differ by more than the tolerance"


def test_texts_by_hand(clip_folder: Path) -> None:
    model = open_clip.create_model(f"local-dir:{clip_folder}").eval()
    tokens = [  # <start> words <end>, padded to eight
        [1, 4, 6, 8, 2, 0, 0, 0],
        [1, 5, 7, 10, 2, 0, 0, 0],
        [1, 4, 6, 8, 2, 0, 0, 0],
        [1, 12, 11, 4, 9, 2, 0, 0],
    ]
    with torch.no_grad():
        theirs = model.encode_text(torch.tensor(tokens), normalize=True)
    torch.testing.assert_close(ClipEncoder.load(clip_folder).encode_texts(TEXTS), theirs, atol=1e-6, rtol=0)


def test_batches_and_mixed_sizes_change_nothing(clip_folder: Path, images: list[Tensor]) -> None:
    one, many = (ClipEncoder.load(clip_folder, batch_size=size) for size in (1, 3))
    alone = torch.cat([one.encode_images([image]) for image in images])
    torch.testing.assert_close(many.encode_images(images), alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(many.encode_texts(TEXTS), one.encode_texts(TEXTS), atol=1e-6, rtol=1e-5)


def test_equal_texts_are_encoded_once(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, seen = ClipEncoder.load(clip_folder), []
    tokenizer = encoder.tokenizer

    def listen(texts: list[str]) -> Tensor:
        seen.extend(texts)
        return tokenizer(texts)

    monkeypatch.setattr(encoder, "tokenizer", listen)
    features = encoder.encode_texts(TEXTS)
    assert sorted(seen) == sorted(set(TEXTS))
    assert torch.equal(features[0], features[2])


@pytest.mark.parametrize("layout", ["authors", "plain", "safetensors"])
def test_file_of_weights(layout: str, bare_architecture: str, tmp_path: Path, images: list[Tensor]) -> None:
    """HPS v2 ships ``{"state_dict": ...}`` with things beside it; others ship the weights themselves."""
    torch.manual_seed(4)
    model = open_clip.create_model(bare_architecture).eval()
    weights = model.state_dict()
    file = tmp_path / ("hps.safetensors" if layout == "safetensors" else "hps.pt")
    if layout == "safetensors":
        save_file(weights, file)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if layout == "authors" else weights, file)
    encoder = ClipEncoder.load(file, bare_architecture)
    native = [image for image in images if image.shape[1:] == (32, 32)]
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.no_grad():
        theirs = model.encode_image((torch.stack(native) / 255 - mean) / std, normalize=True)
        words = model.encode_text(open_clip.tokenize(TEXTS[:1], context_length=16), normalize=True)
    torch.testing.assert_close(encoder.encode_images(native), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode_texts(TEXTS[:1]), words, atol=1e-5, rtol=0)


def test_half_precision_weights_compute_in_single(
    clip_folder: Path, tmp_path: Path, images: list[Tensor]
) -> None:
    folder = _copy(clip_folder, tmp_path)
    weights = {k: v.half() for k, v in load_file(folder / "open_clip_model.safetensors").items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    ours = ClipEncoder.load(folder).encode_images(images)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, ClipEncoder.load(clip_folder).encode_images(images), atol=5e-3, rtol=0)


def test_no_code_of_a_checkpoint_runs(bare_architecture: str, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"state_dict": {"logit_scale": Trap()}}, tmp_path / "trap.pt")
    with pytest.raises(JudgeError, match=r"trap\.pt holds more than tensors"):
        ClipEncoder.load(tmp_path / "trap.pt", bare_architecture)
    assert not (tmp_path / "sprung").exists()


def test_missing_sources(tmp_path: Path, clip_folder: Path) -> None:
    with pytest.raises(JudgeError, match="no folder or file: name one, or a hub model"):
        ClipEncoder.load(tmp_path / "nowhere")
    with pytest.raises(JudgeError, match=r"holds no open_clip_config\.json"):
        ClipEncoder.load(tmp_path)
    with pytest.raises(JudgeError, match="bare file of weights: say of what, by architecture"):
        ClipEncoder.load(clip_folder / "open_clip_model.safetensors")
    folder = _copy(clip_folder, tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(JudgeError, match=r"holds no open_clip_model\.safetensors"):
        ClipEncoder.load(folder)


def test_damaged_weights(
    clip_folder: Path, tmp_path: Path, bare_architecture: str, images: list[Tensor]
) -> None:
    folder = _copy(clip_folder, tmp_path)
    file = folder / "open_clip_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JudgeError, match="cannot be loaded as its config says"):
        ClipEncoder.load(folder)
    with pytest.raises(
        JudgeError, match=f"cannot be loaded as {bare_architecture}"
    ):  # another network's weights
        ClipEncoder.load(clip_folder / "open_clip_model.safetensors", bare_architecture)
    weights = load_file(clip_folder / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] = float("nan")
    save_file(weights, file)
    with pytest.raises(JudgeError, match="not finite"):
        ClipEncoder.load(folder).encode_images(images)


def test_malformed_config(clip_folder: Path, tmp_path: Path) -> None:
    folder = _copy(clip_folder, tmp_path)
    for content in ("{", json.dumps({"preprocess_cfg": {}})):
        (folder / "open_clip_config.json").write_text(content)
        with pytest.raises(JudgeError, match="name a complete open_clip folder"):
            ClipEncoder.load(folder)


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))
