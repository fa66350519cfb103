"""Random judges in their authors' own formats, at reduced width: what to test with where no weights can be had.

Names of files and keys, shapes' proportions, activations and heads are the real ones; numbers are random, and lively
enough that a wrong activation, crop or word moves every score.
"""

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from flowsmith.metrics import AestheticHead
from flowsmith.metrics.aesthetic import LAION
from flowsmith.metrics.image_reward import WEIGHTS as IMAGE_REWARD

CLIP, HPS2, HPS21 = "clip-vit-large-patch14", "HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt"
PICK_SCORE, BLIP, DETECTOR = "PickScore_v1", "ImageReward", "mask2former-swin-small-coco-instance"
WORDS = 49408  # of CLIP
_PATCH = 14


def write_judges(folder: Path, size: int = 224) -> None:
    """Write all of them below a folder, as `docs/judges.md` lays them out.

    Args:
        folder: May exist.
        size: Side of what the CLIPs see; a multiple of 14.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder / CLIP, size)
    torch.save(lively(AestheticHead(64).state_dict(), 1), folder / CLIP / LAION)
    for seed, name in ((2, HPS2), (3, HPS21)):
        write_hps(folder / name, seed, size)
    write_pick_score(folder / PICK_SCORE, size)
    write_image_reward(folder / BLIP)
    write_detector(folder / DETECTOR)


def lively(weights: dict[str, Tensor], seed: int, gain: float = 1.5) -> dict[str, Tensor]:
    """Return random tensors of the same names, shapes and types; a temperature stays.

    Args:
        weights: Whose names, shapes and types.
        seed: Of the numbers.
        gain: By how much a matrix stretches what goes through it.
    """
    noise = torch.Generator().manual_seed(seed)
    made = {}
    for name, weight in weights.items():
        made[name] = weight.clone()
        if not weight.is_floating_point() or name.endswith("logit_scale"):
            continue
        values = torch.randn(weight.shape, generator=noise)
        if weight.ndim > 1:
            fan = weight[0].numel() if "embed" not in name else weight.shape[-1]
            made[name] = gain * values * fan**-0.5
        else:  # norms and biases
            made[name] = (1.0 if name.endswith("weight") else 0.0) + 0.1 * values
    return made


def write_clip(folder: Path, size: int = 224, seed: int = 0) -> None:
    """Write OpenAI's ViT-L/14 as an open_clip folder, 128 wide: QuickGELU, heads of 64."""
    from open_clip.model import CLIP as Network

    config = {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": size, "layers": 3, "width": 128, "patch_size": _PATCH},
        "text_cfg": {"context_length": 77, "vocab_size": WORDS, "width": 64, "heads": 1, "layers": 2},
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model_cfg": config, "preprocess_cfg": {"size": size}})
    (folder / "open_clip_config.json").write_text(text)
    weights = lively(Network(**config).state_dict(), seed)
    save_file(weights, folder / "open_clip_model.safetensors")


def write_hps(file: Path, seed: int, size: int = 224) -> None:
    """Write a checkpoint of HPS v2: ViT-H-14 of open_clip, 160 wide, under ``state_dict``."""
    from open_clip.model import CLIP as Network

    network = Network(
        embed_dim=64,
        vision_cfg={"image_size": size, "layers": 2, "width": 160, "head_width": 80, "patch_size": _PATCH},
        text_cfg={"context_length": 77, "vocab_size": WORDS, "width": 128, "heads": 2, "layers": 2},
    )
    torch.save({"epoch": 1, "name": "train", "state_dict": lively(network.state_dict(), seed)}, file)


def write_pick_score(folder: Path, size: int = 224, seed: int = 4) -> None:
    """Write PickScore: ViT-H/14 as a CLIPModel of transformers, 160 wide; neither tokenizer nor processor."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        projection_dim=64,
        text_config={
            "hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "num_hidden_layers": 2,
            "hidden_act": "gelu", "vocab_size": WORDS, "projection_dim": 64, "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": 160, "intermediate_size": 640, "num_attention_heads": 2, "num_hidden_layers": 2,
            "hidden_act": "gelu", "image_size": size, "patch_size": _PATCH, "projection_dim": 64,
        },
    )  # fmt: skip
    _save(CLIPModel(config), folder, seed)


def write_image_reward(folder: Path, seed: int = 5, size: int = 224) -> None:
    """Write ``ImageReward.pt`` under the authors' keys, image half 128 and text half 64 wide, and a vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(string.ascii_lowercase + string.digits + ",.'-")
    known = ["a", "an", "the", "of", "red", "cat", "two", "photo", "dog", "##s", "##ing"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(known + letters)]
    words += [f"##{letter}" for letter in letters if f"##{letter}" not in words]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    # Two more ids than words, as BLIP has: its decoder's and encoder's starts.
    shapes = _blip_shapes(words=len(words) + 2, image=128, text=64, layers=2, patch=16, size=size)
    weights = lively({name: torch.zeros(shape) for name, shape in shapes.items()}, seed, gain=1.0)
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(weights, folder / IMAGE_REWARD)


def write_detector(folder: Path, seed: int = 6) -> None:
    """Write a Mask2Former of COCO's instances over a Swin transformer, 16 wide, that is sure of something."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    swin = SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64,
        dim_feedforward=64, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=12, num_labels=80,
    )  # fmt: skip
    torch.manual_seed(seed)
    network = Mask2FormerForUniversalSegmentation(config)
    network.class_predictor.weight.data.normal_(std=0.8)
    network.save_pretrained(folder)


def _save(network: Any, folder: Path, seed: int) -> None:
    network.load_state_dict(lively(network.state_dict(), seed))
    network.save_pretrained(folder)


def _blip_shapes(
    words: int, image: int, text: int, layers: int, patch: int, size: int
) -> dict[str, tuple[int, ...]]:
    seen, read = "blip.visual_encoder", "blip.text_encoder"
    shapes: dict[str, tuple[int, ...]] = {
        f"{seen}.cls_token": (1, 1, image),
        f"{seen}.pos_embed": (1, (size // patch) ** 2 + 1, image),
        f"{seen}.patch_embed.proj.weight": (image, 3, patch, patch),
        f"{seen}.patch_embed.proj.bias": (image,),
        f"{read}.embeddings.word_embeddings.weight": (words, text),
        f"{read}.embeddings.position_embeddings.weight": (64, text),
        # Of a training that the reward does not use:
        "blip.vision_proj.weight": (32, image),
        "blip.text_proj.weight": (32, text),
    }

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    norm(f"{seen}.norm", image)
    norm(f"{read}.embeddings.LayerNorm", text)
    for i in range(layers):
        block, layer = f"{seen}.blocks.{i}", f"{read}.encoder.layer.{i}"
        norm(f"{block}.norm1", image)
        linear(f"{block}.attn.qkv", 3 * image, image)
        linear(f"{block}.attn.proj", image, image)
        norm(f"{block}.norm2", image)
        linear(f"{block}.mlp.fc1", 4 * image, image)
        linear(f"{block}.mlp.fc2", image, 4 * image)
        for kind, source in (("attention", text), ("crossattention", image)):
            linear(f"{layer}.{kind}.self.query", text, text)
            linear(f"{layer}.{kind}.self.key", text, source)
            linear(f"{layer}.{kind}.self.value", text, source)
            linear(f"{layer}.{kind}.output.dense", text, text)
            norm(f"{layer}.{kind}.output.LayerNorm", text)
        linear(f"{layer}.intermediate.dense", 4 * text, text)
        linear(f"{layer}.output.dense", text, 4 * text)
        norm(f"{layer}.output.LayerNorm", text)
    head = AestheticHead(text).state_dict()
    return shapes | {f"mlp.{name}": tuple(weight.shape) for name, weight in head.items()}
