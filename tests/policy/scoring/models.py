"""Tiny causal LMs of several architectures, with random weights that have opinions."""

from typing import Any

import torch

from tests.policy.world import exact_norms

VOCABULARY = 61
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA = SMALL | {"intermediate_size": 40, "max_position_embeddings": 64, "num_key_value_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": LLAMA | {"tie_word_embeddings": True},
    "qwen3": LLAMA | {"head_dim": 8},
    "mistral": LLAMA | {"sliding_window": 5},
    "gpt_neox": SMALL | {"intermediate_size": 40, "max_position_embeddings": 64},
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 24, "n_layer": 2, "n_head": 4},
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 4},
}
SHARING = ("llama", "qwen2", "qwen3", "mistral", "gpt_neox", "gpt2")


def tiny_model(kind: str, dtype: torch.dtype = torch.double, **changes: Any) -> Any:
    """Return an untrained causal LM in training mode, without dropout."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from flowsmith.policy.build import without_dropout

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind] | changes))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.3)
    without_dropout(model)
    model.to(torch.float32 if kind == "mamba" else dtype).train()  # its state is float32 in any case
    if dtype is torch.double:
        exact_norms(model)
    return model


def ragged(seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Return 7 prompts, of which 3 are different, and completions of 1 to 9 tokens."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        numbers: list[int] = torch.randint(VOCABULARY, (count,), generator=generator).tolist()
        return numbers

    different = [ids(6), ids(1), ids(3)]
    prompts = [different[i] for i in (0, 1, 0, 2, 2, 0, 1)]
    return prompts, [ids(length) for length in (4, 9, 1, 7, 2, 5, 3)]
