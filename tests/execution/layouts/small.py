"""Random models of reduced width, one of each family, made by diffusers, transformers and open_clip."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.execution.layouts.originals import (
    Tensors,
    original_flux,
    original_mmdit,
    original_unet,
    original_vae,
)

WIDTH = 32  # of CLIP-L, OpenCLIP's networks are twice as wide
WORDS = 49408
T5_WIDTH = 96


@dataclass
class Small:
    """The parts of a checkpoint, as their libraries built them.

    Attributes:
        network: diffusers' denoising network.
        texts: Text networks by name: transformers' CLIP for "l" and, of Stable Diffusion 3, "g"; else open_clip's.
        vae: diffusers' autoencoder.
        tensors: The checkpoint in its authors' layout.
    """

    network: Any
    texts: dict[str, Any] = field(default_factory=dict)
    vae: Any = None
    tensors: Tensors = field(default_factory=dict)


def stirred(network: nn.Module, seed: int = 0) -> Any:
    """Give every parameter a random value, so that none is the one and none the zero it was made with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            norm = parameter.dim() == 1 and name.endswith("weight")
            fan = max(1, parameter[0].numel()) if parameter.dim() > 1 else 100
            parameter.copy_(1 + 0.1 * values if norm else values / fan**0.5)
    return network.requires_grad_(False).eval()


def unet(family: str, **changes: Any) -> Any:
    """Build a UNet of sd1, sd2, sdxl or sdxl_refiner with one block a level."""
    from diffusers import UNet2DConditionModel

    levels: dict[str, Any] = {
        "sd1": ((32, 64), (1, 0), 1, 32, 8),
        "sd2": ((64, 128), (1, 0), 1, 64, (1, 2)),
        "sdxl": ((32, 64, 128), (0, 1, 2), 2, 96, (1, 1, 2)),
        "sdxl_refiner": ((32, 64, 64, 64), (0, 2, 2, 0), 2, 64, (1, 1, 1, 1)),
    }
    channels, depths, middle, text, heads = levels[family]
    config: dict[str, Any] = {
        "block_out_channels": channels,
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [max(1, depth) for depth in depths[:-1]] + [middle],
        "cross_attention_dim": text,
        "attention_head_dim": heads,
        "use_linear_projection": family != "sd1",
    }
    if family.startswith("sdxl"):
        config["addition_embed_type"] = "text_time"
        config["addition_time_embed_dim"] = 256
        numbers = 5 if family == "sdxl_refiner" else 6
        config["projection_class_embeddings_input_dim"] = 64 + 256 * numbers
    return stirred(UNet2DConditionModel(**{**config, **changes}))


def mmdit(dual: tuple[int, ...] = (), norm: str | None = None) -> Any:
    """Build a transformer of Stable Diffusion 3, or, with both arguments, of 3.5 medium."""
    from diffusers import SD3Transformer2DModel

    network = SD3Transformer2DModel(
        sample_size=8,
        in_channels=16,
        num_layers=2,
        attention_head_dim=64,
        num_attention_heads=1,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=64,
        pooled_projection_dim=WIDTH + 64,
        out_channels=16,
        pos_embed_max_size=12,
        dual_attention_layers=dual,
        qk_norm=norm,
    )
    return stirred(network)


def flux(guidance: bool = True) -> Any:
    """Build a transformer of Flux.1 with two blocks of the one kind and two of the other."""
    from diffusers import FluxTransformer2DModel

    network = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 14, 14),
    )
    return stirred(network)


def vae(channels: int = 4) -> Any:
    """Build a KL autoencoder of two levels; with 16 channels without the 1x1 convolutions, as Flux has it."""
    from diffusers import AutoencoderKL

    network = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=channels,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
    )
    return stirred(network)


def clip(width: int = WIDTH, act: str = "quick_gelu", projected: bool = False, layers: int = 3) -> Any:
    """Build a CLIP text network of transformers."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        projection_dim=width,
        hidden_act=act,
    )
    return stirred((CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed=1)


def open_clip(width: int = 2 * WIDTH, layers: int = 3) -> Any:
    """Build a CLIP of open_clip; its text part has the layout that Stable Diffusion 2 and SDXL took over."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(layers=1, width=64, image_size=32, patch_size=16)
    text = CLIPTextCfg(vocab_size=WORDS, width=width, heads=max(1, width // 64), layers=layers)
    return stirred(CLIP(width, vision, text), seed=2)


def t5() -> Any:
    """Build a T5 1.1 encoder."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(T5_WORDS),
        d_model=T5_WIDTH,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return stirred(T5EncoderModel(config), seed=3)


T5_WORDS = ["<pad>", "</s>", "<unk>", "▁", *(chr(97 + k) for k in range(26)), "▁red", "▁cat"]


def write_t5_tokenizer(folder: Path) -> Path:
    """Write a tokenizer of T5's kind that knows the letters and two words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    scores = [(word, -float(len(word) == 1) - 1.0) for word in T5_WORDS]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    return folder


def text_part(model: Any) -> Tensors:
    """Return the tensors of open_clip's text part."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("visual.")}


def hugging_face(model: Any) -> Tensors:
    """Return a CLIP of transformers under the names that files have, whatever this version calls them."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
        for name, tensor in model.state_dict().items()
    }


def small_checkpoint(family: str, **network: Any) -> Small:
    """Build a checkpoint of a family, with the text encoders and VAE that are usual in its files."""
    made = Small(None)
    if family == "sd3":
        made.network = mmdit(**network)
        made.texts = {"l": clip(), "g": clip(64, "gelu", projected=True), "t5xxl": t5()}
        made.tensors |= original_mmdit(made.network.state_dict(), 2)
    elif family == "flux":
        made.network = flux(**network)
        made.texts = {"l": clip(), "t5xxl": t5()}
        made.tensors |= original_flux(made.network.state_dict(), 2, 2)
    else:
        made.network = unet(family, **network)
        made.texts = {
            "sd1": lambda: {"l": clip()},
            "sd2": lambda: {"h": open_clip()},
            "sdxl": lambda: {"l": clip(), "g": open_clip()},
            "sdxl_refiner": lambda: {"g": open_clip()},
        }[family]()
        made.tensors |= original_unet(made.network.state_dict(), 1)
    made.tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in made.tensors.items()}
    made.vae = vae(16 if family in ("sd3", "flux") else 4)
    made.tensors |= original_vae(made.vae.state_dict(), 2, "first_stage_model.")
    prefixes = {
        "sd1": {"l": "cond_stage_model.transformer."},
        "sd2": {"h": "cond_stage_model.model."},
        "sdxl": {"l": "conditioner.embedders.0.transformer.", "g": "conditioner.embedders.1.model."},
        "sdxl_refiner": {"g": "conditioner.embedders.0.model."},
    }.get(family) or {
        name: f"text_encoders.{'t5xxl' if name == 't5xxl' else f'clip_{name}'}.transformer."
        for name in made.texts
    }
    for name, model in made.texts.items():
        if name == "t5xxl":
            tensors = model.state_dict()
        else:
            tensors = text_part(model) if hasattr(model, "visual") else hugging_face(model)
        made.tensors |= {prefixes[name] + part: tensor for part, tensor in tensors.items()}
    return made


def write(made: Small, file: Path, **more: Tensor) -> Path:
    """Write a checkpoint to a safetensors file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone().contiguous() for name, tensor in {**made.tensors, **more}.items()}, file)
    return file
