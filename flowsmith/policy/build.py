"""Where a policy's network comes from: a small Llama from nothing, or a causal LM by folder or hub id."""

from typing import Any, Literal

import torch
from torch import nn

from flowsmith.flows import Codec
from flowsmith.policy.errors import PolicyError
from flowsmith.policy.vocabulary import FlowTokenizer

DType = Literal["float32", "bfloat16"]
_RESCALING = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def small_llama(
    tokenizer: FlowTokenizer, *, hidden: int, layers: int, heads: int, context: int, seed: int
) -> Any:
    """Return an untrained ``LlamaForCausalLM``; its weights are a function of the seed.

    Raises:
        PolicyError: A size is below 1, or ``hidden`` does not divide among the heads.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if min(hidden, layers, heads, context) < 1:
        raise PolicyError(
            f"hidden={hidden}, layers={layers}, heads={heads}, context={context}: set each to 1 or more"
        )
    if hidden % (2 * heads):
        raise PolicyError(
            f"hidden={hidden}, heads={heads}: rotary positions need an even width a head; "
            "make hidden a multiple of 2 x heads"
        )
    config = LlamaConfig(
        vocab_size=tokenizer.size,
        hidden_size=hidden,
        intermediate_size=-(-hidden * 8 // 3 // 16) * 16,  # SwiGLU's 8/3, rounded up to whole vectors
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos,
        pad_token_id=tokenizer.pad,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def text_model(base: str, dtype: DType) -> Any:
    """Load a causal LM by folder or hub id.

    Raises:
        PolicyError: It is not there, or it rescales its logits in a way that the restricted head leaves out.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"base={base}: no causal language model could be loaded ({error}); give a folder or hub id"
        ) from error
    refuse_rescaling(model.config, f"base={base}")
    return model


def refuse_rescaling(config: Any, name: str = "model") -> None:
    """Accept only models whose logits are what their language head returns.

    Raises:
        PolicyError: The model rescales them.
    """
    for setting in _RESCALING:
        if getattr(config, setting, None) not in (None, 1, 1.0):
            raise PolicyError(
                f"{name}: its {setting} rescales logits, which is not supported; use a Llama or Qwen"
            )


def text_tokenizer(base: str, rows: int, codec: Codec) -> FlowTokenizer:
    """Load a text model's tokenizer by folder or hub id and append the flow tokens after its ``rows``."""
    from transformers import AutoTokenizer

    try:
        fast = AutoTokenizer.from_pretrained(base, use_fast=True)
        return FlowTokenizer.from_text_model(fast.backend_tokenizer.to_str(), rows, codec, fast.bos_token_id)
    except (OSError, ValueError, AttributeError) as error:
        raise PolicyError(
            f"base={base}: it has no fast tokenizer ({error}); use one with tokenizer.json"
        ) from error


def enlarge(model: Any, tokenizer: FlowTokenizer) -> None:
    """Append rows for control and flow tokens to the embeddings, near the mean of the old ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # every process must start with the same rows
        model.resize_token_embeddings(tokenizer.size, mean_resizing=False)


def without_dropout(model: nn.Module) -> None:
    """Set every dropout to 0: the sampler (eval) and the trainer (train) must be one and the same policy."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
