"""A small domain of real ComfyUI nodes, a small policy over it, and a tiny hub-like model on disk.

Import as ``from tests.policy.world import small_policy``.
"""

from functools import cache
from pathlib import Path
from typing import Any, cast

import torch

from flowsmith.flows import Codec, Domain, Schema
from flowsmith.policy import FlowTokenizer, Policy

PROMPTS = (
    "two red stars left of a blue circle, at night",
    "a green square",
    "one yellow triangle above a red circle, in the snow, pencil drawing",
    "three blue stars",
)
DOMAIN: dict[str, Any] = {
    "classes": {
        "CheckpointLoaderSimple": 1,
        "LoraLoader": 1,
        "CLIPTextEncode": 2,
        "EmptyLatentImage": 1,
        "KSampler": 2,
        "LatentUpscaleBy": 1,
        "VAEDecode": 1,
        "SaveImage": 1,
    },
    "values": {
        "CheckpointLoaderSimple.ckpt_name": ["mini_base", "mini_pencil"],
        "LoraLoader.lora_name": ["mini_poster.safetensors"],
        "LoraLoader.strength_model": [0.5, 1.0],
        "LoraLoader.strength_clip": [1.0],
        "EmptyLatentImage.width": [64],
        "EmptyLatentImage.height": [64],
        "EmptyLatentImage.batch_size": [1],
        "KSampler.steps": [4, 8, 12, 20],
        "KSampler.cfg": [1.0, 3.0, 6.0],
        "KSampler.sampler_name": ["euler", "dpmpp_2m"],
        "KSampler.scheduler": ["normal", "karras"],
        "KSampler.denoise": [0.5, 1.0],
        "LatentUpscaleBy.upscale_method": ["bilinear"],
        "LatentUpscaleBy.scale_by": [1.5],
        "SaveImage.filename_prefix": ["flowsmith"],
    },
    "texts": {"positive": ["{prompt}", "{prompt}, sharp"], "negative": ["", "blurry"]},
    "max_pixels": 128 * 128,
    "max_pixel_steps": 64 * 64 * 60,
}
BUDGET = 64


@cache
def small_codec() -> Codec:
    return Codec(Schema.core(), Domain.from_json(DOMAIN))


@cache
def small_tokenizer() -> FlowTokenizer:
    return FlowTokenizer.from_captions(PROMPTS, small_codec(), 320)


def small_policy(
    seed: int = 0, spread: float = 4.0, dtype: torch.dtype = torch.float32, **size: Any
) -> Policy:
    """Return an untrained policy with opinions: weights ``spread`` times wider than usual."""
    shape = {"hidden": 32, "layers": 2, "heads": 2} | size
    policy = Policy.create(small_codec(), small_tokenizer(), BUDGET, seed=seed, **shape)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.ndim > 1:
                parameter.mul_(spread)
    policy.to(dtype)
    if dtype is torch.double:
        exact_norms(policy)
    return policy


def exact_norms(model: torch.nn.Module) -> None:
    """Let norms compute in the numbers that they are given: transformers computes them in float32 even of doubles.

    A gradient that is summed before such a norm differs by 1e-7 from one that is summed behind it.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            epsilon = getattr(child, "variance_epsilon", None)
            if epsilon is not None and type(child).__name__.endswith("RMSNorm"):
                weight = cast(torch.nn.Parameter, child.weight)
                norm = torch.nn.RMSNorm(tuple(weight.shape), eps=float(epsilon))
                norm.weight = weight
                setattr(parent, name, norm)


def write_text_model(folder: Path, tied: bool = False, dropout: float = 0.0, seed: int = 0) -> Path:
    """Write a tiny random Llama with a byte-level tokenizer of its own, as a hub repository lays them out."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    text = Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text.train_from_iterator(PROMPTS, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=text, bos_token="<|begin|>", eos_token="<|end|>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=320,  # padded, as hub models' often are
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
        initializer_range=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
