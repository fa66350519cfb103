"""The miniature's text side, in CLIP's layouts: a byte-level BPE of some hundred words and a small CLIPTextModel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from miniature.captions import sample_pair
from miniature.degrade import FAULT_WORDS, PRAISE

MAX_TOKENS = 32
WIDTH = 96
_START, _END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(out: Path, seed: int = 0, captions: int = 4000) -> None:
    """Learn merges on captions and write vocab.json, merges.txt and the configuration, as CLIP has them."""
    rng = np.random.default_rng(seed)
    texts = [sample_pair(rng)[1].text for _ in range(captions)]
    texts += 50 * [", ".join(words) for words in (*FAULT_WORDS.values(), PRAISE, ("a picture of",))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=20,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    # CLIP's order: every byte, every byte at a word's end, the merges, the two control tokens.
    tokens = [
        *alphabet,
        *(c + "</w>" for c in alphabet),
        *dict.fromkeys(a + b for a, b in merges),
        _START,
        _END,
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False)
    )
    (out / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": _END,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def new_text_encoder(tokenizer: CLIPTokenizer) -> Any:
    """Return an untrained `transformers.CLIPTextModel` for the tokenizer."""
    end = tokenizer.convert_tokens_to_ids(_END)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
