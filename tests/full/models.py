"""Tiny random models in the layout of the real ones that configs/full names: files as the hub has them.

They are written to ``<folder>/<hub id>``, which a run that is started in the folder takes for the hub's.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

QWEN = "Qwen/Qwen2.5-7B-Instruct"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
MODERNBERT = "answerdotai/ModernBERT-base"
# What their tokenizers split text at before they merge bytes.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 112, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "initializer_range": 0.1,
}  # fmt: skip
_CONFIGS: dict[str, dict[str, Any]] = {
    QWEN: {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "attention_dropout": 0.0,
        "max_position_embeddings": 32768, "max_window_layers": 28, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "use_sliding_window": False, "tie_word_embeddings": False, "use_cache": True,
        "torch_dtype": "bfloat16", "vocab_size": 420,
    } | _SIZES,
    LLAMA: {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False,
        "attention_dropout": 0.0, "max_position_embeddings": 131072, "mlp_bias": False, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": False, "use_cache": True,
        "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "torch_dtype": "bfloat16", "vocab_size": 400,
    } | _SIZES,
    MODERNBERT: {
        "architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert", "attention_bias": False,
        "attention_dropout": 0.0, "embedding_dropout": 0.0, "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0, "hidden_activation": "gelu", "hidden_size": 32, "intermediate_size": 48,
        "local_attention": 128, "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False,
        "mlp_dropout": 0.0, "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 2, "num_hidden_layers": 4,
        "torch_dtype": "float32", "vocab_size": 384,
    },
}  # fmt: skip
_SPECIAL = {
    QWEN: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    LLAMA: ["<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|eot_id|>"],
    MODERNBERT: ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"],
}
_ROLES: dict[str, dict[str, Any]] = {
    QWEN: {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>",
           "pad_token": "<|endoftext|>", "add_bos_token": False, "model_max_length": 131072},
    LLAMA: {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>", "model_max_length": 131072},
    MODERNBERT: {"tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "[CLS]", "sep_token": "[SEP]",
                 "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "model_max_length": 8192},
}  # fmt: skip


def write_model(folder: Path, name: str, texts: Sequence[str], seed: int = 0) -> Path:
    """Write the tiny namesake of a real model.

    Args:
        folder: Where runs will be started.
        name: The hub id, one of those above.
        texts: What its tokenizer is trained on.
        seed: Of its weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    path = folder / name
    path.mkdir(parents=True)
    text = _write_tokenizer(path, name, texts)
    named = {
        role.removesuffix("_token"): token for role, token in _ROLES[name].items() if role.endswith("_token")
    }
    ids = {
        f"{role}_token_id": text.token_to_id(token) for role, token in named.items() if isinstance(token, str)
    }
    if name == MODERNBERT:
        ids |= {"bos_token_id": ids["cls_token_id"], "eos_token_id": ids["sep_token_id"]}
    config = _CONFIGS[name] | {
        role: number for role, number in ids.items() if role[:4] not in ("unk_", "mask")
    }
    (path / "config.json").write_text(json.dumps(config))
    auto: Any = AutoModelForMaskedLM if name == MODERNBERT else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = auto.from_config(AutoConfig.from_pretrained(path))
    network.to(getattr(torch, config["torch_dtype"])).save_pretrained(path)
    (path / "config.json").write_text(json.dumps(config))  # as the hub has it, not as this library writes it
    return path


def _write_tokenizer(path: Path, name: str, texts: Sequence[str]) -> Tokenizer:
    """Train a byte-level BPE whose special tokens come last, as in the real ones."""
    text = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    text.normalizer = normalizers.NFC() if name != LLAMA else None
    text.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    text.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    text.train_from_iterator(texts, trainer)
    text.add_special_tokens(_SPECIAL[name])
    roles = _ROLES[name]
    if name != QWEN:
        frame = f"{roles['bos_token']} $A" if name == LLAMA else "[CLS] $A [SEP]"
        ids = [(token, text.token_to_id(token)) for token in frame.split() if token != "$A"]
        text.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    text.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(roles))
    return text
