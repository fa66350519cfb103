"""Model files of the smallest size that is still real: random weights, diffusers layout, made in a second.

Import as ``from tests.tiny_world import make_tiny_checkpoint``.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch

LENGTH = 32
WIDTH = 32


def make_tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write a random checkpoint as a diffusers folder (unet, vae, text_encoder, tokenizer, scheduler).

    Latents have 4 channels at a quarter of the pixels' resolution; prompts have chunks of 32 tokens.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=4,
            scaling_factor=0.5,
            mid_block_add_attention=False,
        )
        vocabulary = _vocabulary()
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=LENGTH,
                bos_token_id=vocabulary["<|startoftext|>"],
                eos_token_id=vocabulary["<|endoftext|>"],
                pad_token_id=vocabulary["<|endoftext|>"],
            )
        )
        for parameter in text.embeddings.parameters() if hasattr(text, "embeddings") else []:
            torch.nn.init.normal_(parameter)  # the usual 0.02 would make all texts alike
    folder.mkdir(parents=True, exist_ok=True)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text.save_pretrained(folder / "text_encoder")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    _save_tokenizer(folder / "tokenizer", vocabulary)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def make_tiny_lora(
    file: Path, style: Literal["kohya", "peft"] = "kohya", seed: int = 0, alpha: float | None = 2.0
) -> Path:
    """Write a random LoRA of rank 4 for the tiny checkpoint's attention and feed-forward layers.

    Both styles hold the same changes for the same seed; ``alpha=None`` leaves the alphas out.
    """
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    stem = "mid_block.attentions.0.transformer_blocks.0."
    layers = [
        ("unet", stem + "attn2.to_k", 16, WIDTH),
        ("unet", stem + "attn1.to_out.0", 16, 16),
        ("text", "encoder.layers.0.self_attn.q_proj", WIDTH, WIDTH),
        ("text", "encoder.layers.1.mlp.fc1", 2 * WIDTH, WIDTH),
    ]
    tensors: dict[str, torch.Tensor] = {}
    for part, name, rows, columns in layers:
        down = torch.randn(4, columns, generator=generator) * 0.3
        up = torch.randn(rows, 4, generator=generator) * 0.3
        if style == "kohya":
            prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
            place, endings = prefix + name.replace(".", "_"), (".lora_down.weight", ".lora_up.weight")
        else:
            prefix = "unet." if part == "unet" else "text_encoder.text_model."
            place, endings = prefix + name, (".lora_A.weight", ".lora_B.weight")
        tensors[place + endings[0]], tensors[place + endings[1]] = down, up
        if alpha is not None:
            tensors[place + ".alpha"] = torch.tensor(alpha)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file


def make_tiny_vae(folder: Path, seed: int = 3, **changes: Any) -> Path:
    """Write a random AutoencoderKL of its own as a diffusers folder; latents at half the pixels' resolution."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        settings = {
            "block_out_channels": (8, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 4,
        }
        AutoencoderKL(**{**settings, **changes}).save_pretrained(folder)
    return folder


def make_tiny_upscaler(
    file: Path, seed: int = 0, channels: int = 3, factor: int = 2
) -> dict[str, torch.Tensor]:
    """Write a random Real-ESRGAN Compact (SRVGGNetCompact) of 8 features and 2 inner convolutions.

    Returns:
        Its tensors.
    """
    from safetensors.torch import save_file
    from spandrel.architectures.Compact import Compact

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Compact(
            num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=factor, act_type="prelu"
        )
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    tensors: dict[str, torch.Tensor] = network.state_dict()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return tensors


def make_tiny_models(root: Path) -> Path:
    """Write checkpoints "tiny_a" and "tiny_b" and the LoRA "tiny.safetensors" in ComfyUI's folder names."""
    make_tiny_checkpoint(root / "checkpoints" / "tiny_a", 0)
    make_tiny_checkpoint(root / "checkpoints" / "tiny_b", 1)
    make_tiny_lora(root / "loras" / "tiny.safetensors")
    return root


def tiny_graph(**changes: Any) -> dict[str, Any]:
    """Return the default text-to-image graph in API format; ``changes`` go to the KSampler ("seed", ...).

    ``positive`` and ``negative`` are the texts, ``ckpt_name``, ``width`` and ``height`` what they say.
    """
    sampler: dict[str, Any] = {
        "seed": 5,
        "steps": 4,
        "cfg": 3.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    }
    sampler |= {"denoise": 1.0, "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]}
    sampler |= {"latent_image": ["4", 0]}
    sampler |= {name: value for name, value in changes.items() if name in sampler and name not in _TEXTS}
    size = {"width": changes.get("width", 64), "height": changes.get("height", 64), "batch_size": 1}
    texts = [changes.get("positive", "two red stars"), changes.get("negative", "")]
    return {
        "1": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": changes.get("ckpt_name", "tiny_a")},
        },
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": texts[0], "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": texts[1], "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": size},
        "5": {"class_type": "KSampler", "inputs": sampler},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
    }


_TEXTS = ("positive", "negative")


def _vocabulary() -> dict[str, int]:
    """Give every byte a token, inside and at the end of a word, and a few merges their results."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]
    words = [*letters, *(letter + "</w>" for letter in letters), "re", "red</w>", "st", "<|startoftext|>"]
    return {word: index for index, word in enumerate([*words, "<|endoftext|>"])}


def _save_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\ns t\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
