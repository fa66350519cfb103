"""A user's folder as configs/full expects it: ComfyUI's models in the published formats, tiny and random, and flows."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from flowsmith.exports import stamp_export
from flowsmith.flows import Codec, Domain, Schema
from flowsmith.metrics.published.random_models import write_judges
from flowsmith.policy import FlowTokenizer, Policy
from flowsmith.prompts import Prompt, write_prompts
from flowsmith.rewards import RewardEnsemble, SmallEncoder
from tests.execution.layouts.small import small_checkpoint, write
from tests.tiny_world import make_tiny_upscaler

SIDE = 64  # pixels of a latent; the tiny VAE makes two of each latent, where the real one makes eight
TEXTS = ("two red stars", "a blue cup left of a cat", "one old boat", "a dog and a cat, in the rain")
FILES = {"sdxl": "sd_xl_base_1.0.safetensors", "sd1": "v1-5-pruned-emaonly.safetensors"}
LORA, UPSCALER = "style.safetensors", "RealESRGAN_x2plus.pth"
_GENEVAL = (
    {"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "a photo of a cup"},
    {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}],
     "prompt": "a photo of two cats"},
)  # fmt: skip


def write_installation(folder: Path, family: str = "sdxl") -> Path:
    """Write models, flows, domain and prompts.

    Args:
        folder: Where runs will be started.
        family: Of the checkpoint: sdxl or sd1.
    """
    models = folder / "models"
    write(small_checkpoint(family), models / "checkpoints" / FILES[family])
    _write_lora(models / "loras" / LORA, family)
    published = models / "upscale_models" / UPSCALER
    tensors = make_tiny_upscaler(published)
    torch.save({"params_ema": tensors}, published)
    write_judges(models / "judges", size=56)
    (folder / "flows").mkdir()
    for name, graph in {"default": _default(family), "enlarged": _enlarged(family)}.items():
        (folder / "flows" / f"{name}.json").write_text(json.dumps(graph))
    (folder / "domain.yaml").write_text(yaml.safe_dump(_domain(family)))
    splits = ("train", "train", "train", "validation")
    write_prompts(
        folder / "prompts.jsonl",
        [Prompt(f"p{n}", text, split) for n, (text, split) in enumerate(zip(TEXTS, splits, strict=True))],  # type: ignore[arg-type]
    )
    lines = "".join(json.dumps(line) + "\n" for line in _GENEVAL)
    (folder / "evaluation_metadata.jsonl").write_text(lines)
    return folder


def write_exports(folder: Path) -> None:
    """Write untrained exports where full/reward.yaml and full/grpo.yaml leave theirs."""
    codec = Codec(Schema.core(), Domain.from_yaml(folder / "domain.yaml"))
    reward, grpo = (folder / "runs" / name / "export" for name in ("full-reward", "full-grpo"))
    encoder = SmallEncoder(16, 1, 2, 300)
    RewardEnsemble.create(codec, TEXTS, members=2, encoder=encoder).export(reward)
    tokenizer = FlowTokenizer.from_captions(TEXTS, codec, 300)
    for seed, name in enumerate(("reference", "policy")):
        Policy.create(codec, tokenizer, 80, hidden=32, layers=2, heads=2, seed=seed).export(grpo / name)
    for export in (reward, grpo):
        stamp_export(export, {"command": "by hand"}, {})


def _default(family: str) -> dict[str, Any]:
    return {
        "1": _node("CheckpointLoaderSimple", ckpt_name=FILES[family]),
        "2": _node("CLIPTextEncode", text="{prompt}", clip=["1", 1]),
        "3": _node("CLIPTextEncode", text="blurry", clip=["1", 1]),
        "4": _node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1),
        "5": _sampler(["1", 0], ["4", 0], 1.0),
        "6": _node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": _node("SaveImage", images=["6", 0], filename_prefix="flowsmith"),
    }


def _enlarged(family: str) -> dict[str, Any]:
    """Put a LoRA on both networks, enlarge what comes out with a model, take half of that back, and refine it."""
    lora = _node(
        "LoraLoader", lora_name=LORA, strength_model=0.5, strength_clip=1.0, model=["1", 0], clip=["1", 1]
    )
    encode = {name: {**_default(family)[name]} for name in ("2", "3")}
    for node in encode.values():
        node["inputs"]["clip"] = ["8", 1]
    return _default(family) | encode | {
        "8": lora,
        "5": _sampler(["8", 0], ["4", 0], 1.0),
        "9": _node("UpscaleModelLoader", model_name=UPSCALER),
        "10": _node("ImageUpscaleWithModel", upscale_model=["9", 0], image=["6", 0]),
        "11": _node("ImageScaleBy", image=["10", 0], upscale_method="area", scale_by=0.5),
        "12": _node("VAEEncode", pixels=["11", 0], vae=["1", 2]),
        "13": _sampler(["8", 0], ["12", 0], 0.5),
        "14": _node("VAEDecode", samples=["13", 0], vae=["1", 2]),
        "7": _node("SaveImage", images=["14", 0], filename_prefix="flowsmith"),
    }  # fmt: skip


def _sampler(model: list[Any], latent: list[Any], denoise: float) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "steps": 2,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": denoise,
    }
    links = {"model": model, "positive": ["2", 0], "negative": ["3", 0], "latent_image": latent}
    return _node("KSampler", **links, **numbers)


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def _domain(family: str) -> dict[str, Any]:
    one = ("UpscaleModelLoader", "ImageUpscaleWithModel", "ImageScaleBy", "VAEEncode", "EmptyLatentImage")
    return {
        "classes": {
            **dict.fromkeys((*one, "CheckpointLoaderSimple", "LoraLoader", "SaveImage"), 1),
            **dict.fromkeys(("CLIPTextEncode", "KSampler", "VAEDecode"), 2),
        },
        "values": {
            "CheckpointLoaderSimple.ckpt_name": [FILES[family]],
            "LoraLoader.lora_name": [LORA],
            "LoraLoader.strength_model": [0.25, 0.5, 0.75, 1.0],
            "LoraLoader.strength_clip": [0.5, 1.0],
            "EmptyLatentImage.width": [SIDE],
            "EmptyLatentImage.height": [SIDE],
            "EmptyLatentImage.batch_size": [1],
            "KSampler.steps": [1, 2, 3],
            "KSampler.cfg": [1.0, 2.0, 4.0, 6.0],
            "KSampler.sampler_name": ["euler", "dpmpp_2m", "ddim", "uni_pc"],
            "KSampler.scheduler": ["normal", "karras", "sgm_uniform"],
            "KSampler.denoise": [0.5, 1.0],
            "UpscaleModelLoader.model_name": [UPSCALER],
            "ImageScaleBy.upscale_method": ["area"],
            "ImageScaleBy.scale_by": [0.5],
            "SaveImage.filename_prefix": ["flowsmith"],
        },
        "texts": {"positive": ["{prompt}", "{prompt}, sharp"], "negative": ["", "blurry"]},
        "upscale_factors": {UPSCALER: 2},
        "max_pixels": 4 * SIDE**2,
        "max_pixel_steps": 8 * SIDE**2,
        "sample_empty_latents": True,
    }


def _write_lora(file: Path, family: str) -> None:
    """Write a LoRA of rank 2 as kohya's trainer does: of the UNet's attention and of one text network."""
    names = {
        "sdxl": {"lora_unet_input_blocks_5_1_transformer_blocks_1_attn2_to_k": (128, 96),
                 "lora_te1_text_model_encoder_layers_1_mlp_fc1": (64, 32)},
        "sd1": {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (32, 32),
                "lora_te_text_model_encoder_layers_1_mlp_fc1": (64, 32)},
    }[family]  # fmt: skip
    noise = torch.Generator().manual_seed(5)
    tensors = {}
    for name, (rows, columns) in names.items():
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, columns, generator=noise)
        tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 2, generator=noise)
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    file.parent.mkdir(parents=True)
    save_file(tensors, file)
