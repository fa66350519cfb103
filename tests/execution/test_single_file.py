"""Single files in the original layout, made small by the script that made the recordings' checkpoint."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flowsmith.execution import ModelFileError, ModelLibrary
from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.layouts.taesd import rename_taesd
from flowsmith.execution.tokenizers import clip_tokenizer


@pytest.fixture(scope="module")
def layout(parity: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checkpoint", parity / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(states: Tensor) -> NetworkConditions:
    return NetworkConditions(states, None, torch.zeros(1, 7), torch.zeros(1))


@pytest.mark.parametrize("levels", [(1,), (1, 2), (1, 2, 2)])
def test_shapes_are_read_off_the_tensors(layout: ModuleType, tmp_path: Path, levels: tuple[int, ...]) -> None:
    depth = (1,) * (len(levels) - 1) + (0,) if len(levels) > 1 else (1,)
    spec = layout.unet(mc=32, mult=levels, nres=2, depth=depth, ctx=64)
    spec |= layout.clip_l(layers=2, c=64, vocab=49408)
    spec |= layout.kl_vae(ch=32, mult=levels, nres=1)
    (tmp_path / "checkpoints").mkdir()
    save_file(layout.fill(spec), tmp_path / "checkpoints" / "small.safetensors")
    checkpoint = ModelLibrary(tmp_path).checkpoint("small.safetensors")  # strict: each tensor found its place
    assert checkpoint.model.latent.factor == 2 ** (len(levels) - 1)
    text = checkpoint.text.encode(["a cat"])[0].states
    assert text.shape == (77, 64)
    with torch.inference_mode():
        noise = checkpoint.model(torch.randn(1, 4, 8, 8), torch.tensor(5), told(text[None]))
        image = checkpoint.vae.decode(torch.randn(1, 4, 4, 4))
    assert noise.isfinite().all()
    assert image.shape[-1] == 4 * checkpoint.model.latent.factor


def test_original_vae_layout_decodes_like_diffusers(layout: ModuleType, tmp_path: Path) -> None:
    """One convolution of each kind is followed by hand from the file to its place."""
    spec = layout.unet(mc=32, mult=(1,), nres=1, depth=(1,), ctx=64) | layout.clip_l(layers=1, c=64)
    spec |= layout.kl_vae(ch=32, mult=(1, 2), nres=1)
    tensors = layout.fill(spec)
    (tmp_path / "checkpoints").mkdir()
    save_file(tensors, tmp_path / "checkpoints" / "small.safetensors")
    checkpoint = ModelLibrary(tmp_path).checkpoint("small.safetensors")
    vae, unet = checkpoint.vae.model.state_dict(), checkpoint.model.network.state_dict()
    first = "first_stage_model."
    for place, name in (
        (
            "decoder.up_blocks.0.resnets.1.conv1.weight",
            "decoder.up.1.block.1.conv1.weight",
        ),  # counted from the end
        ("decoder.up_blocks.0.upsamplers.0.conv.weight", "decoder.up.1.upsample.conv.weight"),
        ("decoder.mid_block.resnets.1.conv2.weight", "decoder.mid.block_2.conv2.weight"),
    ):
        assert torch.equal(vae[place], tensors[first + name].float())
    query = tensors[f"{first}decoder.mid.attn_1.q.weight"][:, :, 0, 0].float()
    assert torch.equal(vae["decoder.mid_block.attentions.0.to_q.weight"], query)
    key = "output_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    place = "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(unet[place], tensors[f"model.diffusion_model.{key}"].float())


@pytest.mark.parametrize("missing", ["model.diffusion_model.", "cond_stage_model.", "first_stage_model."])
def test_incomplete_checkpoint_is_named(layout: ModuleType, tmp_path: Path, missing: str) -> None:
    spec = layout.unet(mc=32, mult=(1,), nres=1, depth=(1,), ctx=64) | layout.clip_l(layers=1, c=64, vocab=99)
    spec |= layout.kl_vae(ch=32, mult=(1,), nres=1)
    tensors = {name: t for name, t in layout.fill(spec).items() if not name.startswith(missing)}
    (tmp_path / "checkpoints").mkdir()
    save_file(tensors, tmp_path / "checkpoints" / "part.safetensors")
    with pytest.raises(ModelFileError, match=r"part\.safetensors"):
        ModelLibrary(tmp_path).checkpoint("part.safetensors")


def test_clip_tokens_by_their_published_numbers() -> None:
    tokenizer = clip_tokenizer()
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("A  DOG!").input_ids == [49406, 320, 1929, 256, 49407]
    assert tokenizer("").input_ids == [49406, 49407]
    assert len(json.loads(json.dumps(tokenizer.get_vocab()))) == 49408


def test_taesd_decoder_has_no_clamping_layer() -> None:
    tensors = {"taesd_encoder.0.weight": torch.zeros(1), "taesd_decoder.1.weight": torch.ones(1)}
    renamed = rename_taesd({**tensors, "vae_scale": torch.ones(())})
    assert sorted(renamed) == ["decoder.layers.0.weight", "encoder.layers.0.weight"]
