"""The configurations read off tensors of the published sizes are the ones that were published with diffusers.

The tensors are on the device "meta": shapes without values.
"""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowsmith.execution.layouts.clip import clip_config
from flowsmith.execution.layouts.family import detect_family
from flowsmith.execution.layouts.flux import flux_config, rename_flux
from flowsmith.execution.layouts.kl_vae import kl_config, rename_kl
from flowsmith.execution.layouts.mmdit import mmdit_config, rename_mmdit
from flowsmith.execution.layouts.t5 import t5_config
from flowsmith.execution.layouts.unet import rename_unet, unet_config
from tests.execution.layouts.originals import original_flux, original_mmdit, original_unet, original_vae

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (CROSS, CROSS, CROSS, PLAIN),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "sd2": {
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (CROSS, CROSS, CROSS, PLAIN),
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (PLAIN, CROSS, CROSS),
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "projection_class_embeddings_input_dim": 2816,
    },
    "sdxl_refiner": {
        "block_out_channels": (384, 768, 1536, 1536),
        "down_block_types": (PLAIN, CROSS, CROSS, PLAIN),
        "transformer_layers_per_block": 4,
        "cross_attention_dim": 1280,
        "attention_head_dim": [6, 12, 24, 24],
        "projection_class_embeddings_input_dim": 2560,
    },
}
SOURCE = Path("x")


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def on_meta(kind: type, **config: Any) -> Any:
    with torch.device("meta"):
        return kind(**config)


@pytest.mark.parametrize("family", sorted(UNETS))
def test_unets(family: str) -> None:
    from diffusers import UNet2DConditionModel

    said = UNETS[family]
    rest: dict[str, Any] = {"layers_per_block": 2}
    if family.startswith("sdxl"):
        rest |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "use_linear_projection": True,
        }
    ups = tuple(kind.replace("Down", "Up") for kind in reversed(said["down_block_types"]))
    published = on_meta(UNet2DConditionModel, **said, **rest, up_block_types=ups)
    tensors = original_unet(published.state_dict(), 2)
    assert detect_family(tensors, SOURCE) == family
    config = unet_config(tensors, SOURCE)
    read = on_meta(UNet2DConditionModel, **config)
    assert shapes(read) == shapes(published)
    assert {name: tuple(t.shape) for name, t in rename_unet(tensors, config).items()} == shapes(published)
    heads = [[m.heads for m in network.modules() if hasattr(m, "to_q")] for network in (read, published)]
    assert heads[0] == heads[1]
    assert read.config.addition_time_embed_dim == published.config.addition_time_embed_dim


def test_names_and_shapes_of_a_real_checkpoint(parity: Path) -> None:
    """The script that made the recordings' checkpoint lists Stable Diffusion 1.5 as ComfyUI reads it."""
    from diffusers import UNet2DConditionModel

    script = runpy.run_path(str(parity / "make_checkpoint.py"))
    published = on_meta(UNet2DConditionModel, **UNETS["sd1"])
    listed = {name.removeprefix("model.diffusion_model."): shape for name, shape in script["unet"]().items()}
    assert set(listed) == set(original_unet(published.state_dict(), 2))
    tensors = {name: torch.empty([n for n in s if n != "ones"], device="meta") for name, s in listed.items()}
    assert shapes(on_meta(UNet2DConditionModel, **unet_config(tensors, SOURCE))) == shapes(published)


@pytest.mark.parametrize(
    ("layers", "heads", "places", "dual", "norm"),
    [(24, 24, 192, (), None), (38, 38, 192, (), "rms_norm"), (24, 24, 384, tuple(range(13)), "rms_norm")],
    ids=["3 medium", "3.5 large", "3.5 medium"],
)
def test_stable_diffusion_3(
    layers: int, heads: int, places: int, dual: tuple[int, ...], norm: str | None
) -> None:
    from diffusers import SD3Transformer2DModel

    said: dict[str, Any] = {
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": 64,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 64 * heads,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": places,
        "dual_attention_layers": dual,
        "qk_norm": norm,
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
    }
    published = on_meta(SD3Transformer2DModel, **said)
    tensors = original_mmdit(published.state_dict(), layers)
    assert detect_family(tensors, SOURCE) == "sd3"
    config = mmdit_config(tensors)
    assert {**config, "dual_attention_layers": tuple(config["dual_attention_layers"])} == said
    assert {name: tuple(t.shape) for name, t in rename_mmdit(tensors).items()} == shapes(published)


@pytest.mark.parametrize("guidance", [True, False], ids=["dev", "schnell"])
def test_flux(guidance: bool) -> None:
    from diffusers import FluxTransformer2DModel

    published = on_meta(
        FluxTransformer2DModel, guidance_embeds=guidance
    )  # the defaults are the published sizes
    tensors = original_flux(published.state_dict(), 19, 38)
    assert detect_family(tensors, SOURCE) == "flux"
    config = flux_config(tensors, SOURCE)
    read = on_meta(FluxTransformer2DModel, **config)
    kept = (
        "num_attention_heads",
        "attention_head_dim",
        "guidance_embeds",
        "num_single_layers",
        "in_channels",
    )
    assert all(read.config[name] == published.config[name] for name in kept)
    assert tuple(read.config.axes_dims_rope) == tuple(published.config.axes_dims_rope)
    assert {name: tuple(t.shape) for name, t in rename_flux(tensors).items()} == shapes(published)


@pytest.mark.parametrize("channels", [4, 16])
def test_autoencoders(channels: int) -> None:
    from diffusers import AutoencoderKL

    published = on_meta(
        AutoencoderKL,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
    )
    tensors = original_vae(published.state_dict(), 4)
    config = kl_config(tensors, SOURCE)
    assert shapes(on_meta(AutoencoderKL, **config)) == shapes(published)
    assert {name: tuple(t.shape) for name, t in rename_kl(tensors, config).items()} == shapes(published)


@pytest.mark.parametrize(
    ("name", "width", "layers", "heads"), [("l", 768, 12, 12), ("h", 1024, 24, 16), ("g", 1280, 32, 20)]
)
def test_clips(name: Any, width: int, layers: int, heads: int) -> None:
    meta = {"device": "meta"}
    tensors: dict[str, Tensor] = {
        "embeddings.token_embedding.weight": torch.empty(49408, width, **meta),
        "embeddings.position_embedding.weight": torch.empty(77, width, **meta),
    }
    tensors |= {
        f"encoder.layers.{k}.mlp.fc1.weight": torch.empty(4 * width, width, **meta) for k in range(layers)
    }
    config = clip_config(tensors, name)
    assert (config["num_hidden_layers"], config["num_attention_heads"]) == (layers, heads)
    assert (config["intermediate_size"], config["hidden_act"]) == (
        4 * width,
        "quick_gelu" if name == "l" else "gelu",
    )


def test_t5_xxl() -> None:
    from transformers import T5Config, T5EncoderModel

    said = {
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
    }
    with torch.device("meta"):
        published = T5EncoderModel(T5Config(**said, feed_forward_proj="gated-gelu"))
    config = t5_config(published.state_dict())
    assert {name: config[name] for name in said} == said
    assert config["feed_forward_proj"] == "gated-gelu"
