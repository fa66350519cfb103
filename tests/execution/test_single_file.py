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
from flowsmith.execution.models import Checkpoint
from flowsmith.execution.tokenizers import clip_tokenizer
from tests.execution.running import whole


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
    # Strict: each tensor found its place.
    model, encoder, vae = whole(ModelLibrary(tmp_path).checkpoint("small.safetensors"))
    assert model.latent.factor == 2 ** (len(levels) - 1)
    text = encoder.encode(["a cat"])[0].states
    assert text.shape == (77, 64)
    with torch.inference_mode():
        noise = model(torch.randn(1, 4, 8, 8), torch.tensor(5), told(text[None]))
        image = vae.decode(torch.randn(1, 4, 4, 4))
    assert noise.isfinite().all()
    assert image.shape[-1] == 4 * model.latent.factor


def test_original_vae_layout_decodes_like_diffusers(layout: ModuleType, tmp_path: Path) -> None:
    """One convolution of each kind is followed by hand from the file to its place."""
    spec = layout.unet(mc=32, mult=(1,), nres=1, depth=(1,), ctx=64) | layout.clip_l(layers=1, c=64)
    spec |= layout.kl_vae(ch=32, mult=(1, 2), nres=1)
    tensors = layout.fill(spec)
    (tmp_path / "checkpoints").mkdir()
    save_file(tensors, tmp_path / "checkpoints" / "small.safetensors")
    model, _, autoencoder = whole(ModelLibrary(tmp_path).checkpoint("small.safetensors"))
    vae, unet = autoencoder.model.state_dict(), model.network.state_dict()
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


@pytest.fixture(scope="module")
def tensors(layout: ModuleType) -> dict[str, Tensor]:
    """A whole checkpoint."""
    spec = layout.unet(mc=32, mult=(1,), nres=1, depth=(1,), ctx=64) | layout.clip_l(layers=1, c=64)
    filled: dict[str, Tensor] = layout.fill(spec | layout.kl_vae(ch=32, mult=(1,), nres=1))
    return filled


def load(root: Path, tensors: dict[str, Tensor]) -> Checkpoint:
    (root / "checkpoints").mkdir(exist_ok=True)
    save_file(tensors, root / "checkpoints" / "part.safetensors")
    return ModelLibrary(root).checkpoint("part.safetensors")


def test_what_a_file_does_not_hold_is_none(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    def without(start: str) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}

    bare = load(tmp_path, without("first_stage_model."))
    assert bare.vae is None
    assert bare.text is not None
    mute = load(tmp_path, without("cond_stage_model."))
    assert mute.text is None
    assert mute.vae is not None
    with pytest.raises(ModelFileError, match=r"part\.safetensors: holds no diffusion model"):
        load(tmp_path, without("model.diffusion_model."))


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
            "text encoder lacks encoder.l",
        ),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.weight",
            "fit a CLIPTextModel .*final_layer_norm",
        ),
        ("first_stage_model.decoder.conv_out.weight", "the VAE lacks decoder.conv_out.weight"),
        ("first_stage_model.decoder.norm_out.weight", "tensors do not fit a AutoencoderKL .*conv_norm_out"),
        (
            "model.diffusion_model.time_embed.0.weight",
            "tensors do not fit a UNet2DConditionModel .*time_embedding",
        ),
    ],
)
def test_a_part_that_is_not_whole_is_named(
    tensors: dict[str, Tensor], tmp_path: Path, lost: str, says: str
) -> None:
    with pytest.raises(ModelFileError, match=rf"part\.safetensors: .*{says}"):
        load(tmp_path, {name: tensor for name, tensor in tensors.items() if name != lost})


def test_a_text_encoder_without_clips_words(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    with pytest.raises(ModelFileError, match="its text encoder knows 99 words; use one with CLIP's 49408"):
        load(tmp_path, {**tensors, name: tensors[name][:99].clone()})


def test_old_names_without_text_model(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    renamed = {name.replace("transformer.text_model.", "transformer."): t for name, t in tensors.items()}
    with torch.inference_mode():
        texts = [load(tmp_path, some).text for some in (tensors, renamed)]
        old, new = (text.encode(["a cat"])[0].states for text in texts if text)
    assert torch.equal(old, new)


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
