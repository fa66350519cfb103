"""Checkpoints of every family as diffusers folders, against the pipelines' own parts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ModelFileError, ModelLibrary
from flowsmith.execution.conditioning import TextEncoding
from flowsmith.execution.models import Checkpoint
from flowsmith.execution.tokenizers import clip_tokenizer
from tests.execution.layouts import small
from tests.execution.layouts.references import transformers_clip, transformers_t5

WORDS = "red cat"


def save(folder: Path, scheduler: dict[str, Any], **parts: Any) -> Path:
    """Write parts of a pipeline, with the tokenizers that belong to its text encoders."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    for name, model in parts.items():
        model.save_pretrained(folder / name)
        if name.startswith("text_encoder"):
            words = folder / name.replace("text_encoder", "tokenizer")
            if "T5" in type(model).__name__:
                small.write_t5_tokenizer(words)
                continue
            clip_tokenizer().save_pretrained(words)
            settings = json.loads((words / "tokenizer_config.json").read_text())
            pad = "!" if model.config.hidden_act == "gelu" else "<|endoftext|>"
            (words / "tokenizer_config.json").write_text(
                json.dumps({**settings, "pad_token": pad, "model_max_length": 77})
            )
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def load(root: Path) -> Checkpoint:
    return ModelLibrary(root).checkpoint("model")


def encoded(checkpoint: Checkpoint, words: str = WORDS) -> TextEncoding:
    assert checkpoint.text is not None
    with torch.inference_mode():
        (encoding,) = checkpoint.text.encode([words])
    return encoding


def close(got: Tensor | None, expected: Tensor) -> None:
    assert got is not None
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def same(got: torch.nn.Module, expected: torch.nn.Module) -> bool:
    tensors = got.state_dict()
    return all(torch.equal(tensors[name], tensor) for name, tensor in expected.state_dict().items())


def test_stable_diffusion_2(tmp_path: Path) -> None:
    """diffusers leaves out the layer that the encoding does not use: the network's own output is what is wanted."""
    text, network = small.clip(64, "gelu"), small.unet("sd2")
    scheduler = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    save(tmp_path / "checkpoints" / "model", scheduler, unet=network, vae=small.vae(), text_encoder=text)
    checkpoint = load(tmp_path)
    close(encoded(checkpoint).states, transformers_clip(text, WORDS, 0)["last"])
    model = checkpoint.model
    assert (model.family, model.prediction) == ("sd2", "v_prediction")
    assert model.table.maximum > 1000
    assert same(model.network, network)


def test_sdxl_and_its_refiner(tmp_path: Path) -> None:
    clip_l, clip_g = small.clip(), small.clip(64, "gelu", projected=True)
    base, refiner = small.unet("sdxl"), small.unet("sdxl_refiner")
    save(
        tmp_path / "a" / "checkpoints" / "model",
        {},
        unet=base,
        vae=small.vae(),
        text_encoder=clip_l,
        text_encoder_2=clip_g,
    )
    save(tmp_path / "b" / "checkpoints" / "model", {}, unet=refiner, vae=small.vae(), text_encoder_2=clip_g)
    first, second = transformers_clip(clip_l, WORDS), transformers_clip(clip_g, WORDS, 0)
    checkpoint = load(tmp_path / "a")
    close(encoded(checkpoint).states, torch.cat([first["penultimate"], second["penultimate"]], -1))
    close(encoded(checkpoint).pooled, second["projected"])
    assert checkpoint.model.family == "sdxl"
    assert same(checkpoint.model.network, base)
    checkpoint = load(tmp_path / "b")
    close(encoded(checkpoint).states, second["penultimate"])
    assert checkpoint.model.family == "sdxl_refiner"
    assert same(checkpoint.model.network, refiner)


def test_stable_diffusion_3_with_and_without_t5(tmp_path: Path) -> None:
    clip_l, clip_g, t5 = small.clip(projected=True), small.clip(64, "gelu", projected=True), small.t5()
    parts = {
        "transformer": small.mmdit(),
        "vae": small.vae(16),
        "text_encoder": clip_l,
        "text_encoder_2": clip_g,
    }
    save(tmp_path / "a" / "checkpoints" / "model", {"shift": 2.0}, **parts, text_encoder_3=t5)
    save(tmp_path / "b" / "checkpoints" / "model", {}, **parts)
    first, second = transformers_clip(clip_l, WORDS), transformers_clip(clip_g, WORDS, 0)
    beside = torch.cat([first["penultimate"], second["penultimate"]], -1)
    checkpoint = load(tmp_path / "a")
    assert checkpoint.text is not None
    ids = checkpoint.text.towers["t5xxl"].tokenizer.encode(WORDS, add_special_tokens=False)
    close(encoded(checkpoint).states, torch.cat([beside, transformers_t5(t5, ids, 77)]))
    close(encoded(checkpoint).pooled, torch.cat([first["projected"], second["projected"]]))
    assert checkpoint.model.table.sigma(500) == pytest.approx(2 * 0.5 / (1 + 0.5))
    assert same(checkpoint.model.network, parts["transformer"])
    close(encoded(load(tmp_path / "b")).states, beside)


def test_flux(tmp_path: Path) -> None:
    clip_l, t5, network = small.clip(), small.t5(), small.flux()
    parts = {"transformer": network, "vae": small.vae(16), "text_encoder": clip_l, "text_encoder_2": t5}
    folder = save(tmp_path / "checkpoints" / "model", {"shift": 3.0, "use_dynamic_shifting": True}, **parts)
    checkpoint = load(tmp_path)
    assert checkpoint.text is not None
    ids = checkpoint.text.towers["t5xxl"].tokenizer.encode(WORDS, add_special_tokens=False)
    close(encoded(checkpoint).states, transformers_t5(t5, ids, 256))
    close(encoded(checkpoint).pooled, transformers_clip(clip_l, WORDS)["pooled"])
    assert checkpoint.model.table.sigma(500) == pytest.approx(0.7595, abs=1e-4)  # e^1.15, as ComfyUI has it
    assert same(checkpoint.model.network, network)
    other = folder.rename(tmp_path / "checkpoints" / "other")
    (other / "tokenizer_2" / "tokenizer.json").unlink()
    says = r"T5's tokenizer is not at .*tokenizer_2 .*hf download google-t5/t5-base"
    with pytest.raises(ModelFileError, match=says):
        ModelLibrary(tmp_path).checkpoint("other")


def test_other_transformers_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "model"
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "transformer" / "config.json").write_text('{"_class_name": "PixArtTransformer2DModel"}')
    with pytest.raises(ModelFileError, match="is a PixArtTransformer2DModel, which cannot be run here"):
        load(tmp_path)
