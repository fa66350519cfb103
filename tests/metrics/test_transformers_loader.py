"""Models of transformers come whole or not at all, with their own words and pixels where they have them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from flowsmith.metrics import ClipEncoder, JudgeError, PickScore
from flowsmith.metrics.preprocessing import Preprocessing
from flowsmith.metrics.published import random_models as models
from flowsmith.metrics.transformers_loader import load_clip, load_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(judges_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(judges_folder / models.PICK_SCORE, tmp_path / "clip"))


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["visual_projection.weight"]
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(
        JudgeError, match=r"lacks 1 weights of a CLIPModel, visual_projection\.weight the first"
    ):
        PickScore(folder)


def test_weights_of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["projection_dim"] = 32
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeError, match="CLIPModel"):
        PickScore(folder)


def test_places(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(JudgeError, match="is no folder: name one, or a hub model as 'hf-hub:owner/name'"):
        PickScore(tmp_path / "nowhere")
    with pytest.raises(JudgeError, match="cannot be loaded as CLIPModel"):
        PickScore(tmp_path)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(JudgeError, match="cannot be loaded as CLIPModel"):
        load_model("clip", folder, CLIPModel)


def test_own_tokenizer_and_processor_are_used(folder: Path) -> None:
    words = {"<|startoftext|>": 3, "<|endoftext|>": 9, "c": 4, "a": 5, "t</w>": 6, "ca": 7, "cat</w>": 8}
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"], config["text_config"]["eos_token_id"] = 10, 9
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / WEIGHTS)
    name = "text_model.embeddings.token_embedding.weight"
    weights[name] = weights[name][:10].clone()
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(JudgeError, match="holds no tokenizer of its 10 words"):
        PickScore(folder)
    vocabulary = {**words, "!": 0, '"': 1, "#": 2}
    CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>")]).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_mean=[0.5, 0.4, 0.3],
        resample=2,
    ).save_pretrained(folder)
    encoder = ClipEncoder.load(folder)
    assert encoder.tokenizer(["cat"]).tolist() == [[3, 8, 9]]
    assert encoder.tokenizer(["<|endoftext|>"]).tolist() != [[3, 9, 9]], "a user's text is no control token"
    assert encoder.preprocessing == Preprocessing(
        (56, 56), mean=(0.5, 0.4, 0.3), interpolation="bilinear", crop="transformers"
    )


def test_a_processor_that_is_none_of_clips(folder: Path) -> None:
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}).save_pretrained(
        folder
    )
    with pytest.raises(JudgeError, match="crops a square of the shorter side"):
        PickScore(folder)


def test_any_judge_of_a_clip_takes_the_folder(folder: Path, photos: list[Tensor]) -> None:
    one, other = ClipEncoder.load(folder), load_clip(folder)
    assert torch.equal(one.encode_images(photos), other.encode_images(photos))
    assert one.dim == 64
