"""Single-file checkpoints in the layout of Stable Diffusion 1.5, as ComfyUI and most model sites keep them.

The shapes of the networks are read off the tensors, so no configuration is fetched from anywhere. diffusers'
own functions rename the tensors.
"""

import gzip
import importlib.util
import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from flowsmith.execution.assemble import diffusers_network, text_network
from flowsmith.execution.errors import ModelFileError
from flowsmith.execution.model_files import count_indices, read_tensors, under
from flowsmith.execution.models import Checkpoint, DiffusionModel
from flowsmith.execution.sigmas import NoiseTable
from flowsmith.execution.text import TextEncoder
from flowsmith.execution.vae_files import VAE_PREFIX, tensors_vae

_UNET = "model.diffusion_model."
_TEXT = "cond_stage_model.transformer."
_HEADS = 8


def read_single_file(path: Path, key: str) -> Checkpoint:
    """Load a Stable Diffusion 1.5 checkpoint from one safetensors file.

    Its VAE may be the usual one or a TAESD.

    Raises:
        ModelFileError: The file is broken or of another family of models.
    """
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    tensors = read_tensors(path)
    needed = [f"{_UNET}input_blocks.0.0.weight", f"{_TEXT}text_model.embeddings.token_embedding.weight"]
    if missing := [name for name in needed if name not in tensors]:
        raise ModelFileError(
            f"{path}: holds no {missing[0]}; use a checkpoint in Stable Diffusion 1.5's layout"
        )
    config = unet_config(under(_UNET, tensors))
    renamed = convert_ldm_unet_checkpoint(dict(tensors), config)
    unet = diffusers_network(diffusers.UNet2DConditionModel, config, renamed, path)
    text_tensors = under(_TEXT, tensors)
    text_settings = text_config(text_tensors)
    text = text_network(text_settings, text_tensors, path)

    vae = tensors_vae(under(VAE_PREFIX, tensors), key, path)
    return Checkpoint(
        DiffusionModel(key, unet, NoiseTable.from_betas(), "epsilon", vae.latent),
        TextEncoder(key, text, clip_tokenizer(), text_settings["max_position_embeddings"]),
        vae,
    )


def unet_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the UNet's shape off its tensors: channels, blocks and attention of every level."""
    levels: list[dict[str, int]] = [{"blocks": 0, "channels": 0, "attention": 0}]
    for block in range(1, 1 + count_indices(tensors, "input_blocks.", start=1)):
        stem = f"input_blocks.{block}"
        if f"{stem}.0.op.weight" in tensors:
            levels.append({"blocks": 0, "channels": 0, "attention": 0})
            continue
        levels[-1]["blocks"] += 1
        levels[-1]["channels"] = tensors[f"{stem}.0.out_layers.3.weight"].shape[0]
        levels[-1]["attention"] = max(
            levels[-1]["attention"], count_indices(tensors, f"{stem}.1.transformer_blocks.")
        )
    key = next(name for name in tensors if name.endswith("attn2.to_k.weight"))
    return {
        "in_channels": tensors["input_blocks.0.0.weight"].shape[1],
        "out_channels": tensors["out.2.weight"].shape[0],
        "block_out_channels": [level["channels"] for level in levels],
        "layers_per_block": levels[0]["blocks"],
        "down_block_types": ["CrossAttnDownBlock2D" if x["attention"] else "DownBlock2D" for x in levels],
        "up_block_types": ["CrossAttnUpBlock2D" if x["attention"] else "UpBlock2D" for x in reversed(levels)],
        "transformer_layers_per_block": [max(1, level["attention"]) for level in levels],
        "cross_attention_dim": tensors[key].shape[1],
        "attention_head_dim": _HEADS,  # diffusers means the number of heads by it in this family
    }


def text_config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the text encoder's shape off its tensors; heads are 64 wide as in every CLIP of this family."""
    words = tensors["text_model.embeddings.token_embedding.weight"]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "intermediate_size": tensors["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": count_indices(tensors, "text_model.encoder.layers."),
        "num_attention_heads": max(1, words.shape[1] // 64),
        "max_position_embeddings": tensors["text_model.embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu",
    }


@cache
def clip_tokenizer() -> Any:
    """Return the tokenizer of OpenAI's CLIP from the word list that open_clip carries."""
    from transformers import CLIPTokenizer

    spec = importlib.util.find_spec("open_clip")  # found, not imported: that would take seconds
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError("a single-file checkpoint needs CLIP's word list; install open_clip_torch")
    file = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    # The 256 bytes as printable characters: those that are printable first, the rest moved beyond 255.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(merge.replace(" ", "") for merge in merges),
    ]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
