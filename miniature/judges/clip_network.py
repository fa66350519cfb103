"""The network and the tokenizer of the miniature's CLIP, as open_clip builds them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from flowsmith.metrics.open_clip_loader import CONFIG
from miniature.captions import sample_pair
from miniature.degrade import PRAISE
from miniature.judges.contrast import WORDS
from miniature.judges.images import SIZE

WIDTH = 128  # of the embedding
_CONTEXT = 32
_START, _END = "<|start|>", "<|end|>"


def write_clip_config(folder: Path, seed: int) -> str:
    """Write tokenizer and configuration of an untrained CLIP into a folder; return open_clip's name for it."""
    config = {"model_cfg": _model_config(_make_tokenizer(folder, seed)), "preprocess_cfg": {"size": SIZE}}
    folder.joinpath(CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return f"local-dir:{folder}"


def _make_tokenizer(folder: Path, seed: int, captions: int = 4000) -> Any:
    """Learn a byte-level BPE of some hundred tokens on captions, so that no text is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(seed)
    texts = [sample_pair(rng)[1].text for _ in range(captions)]
    texts += 50 * [", ".join((*words, "")) for words in (*WORDS.values(), PRAISE)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=768, initial_alphabet=alphabet, special_tokens=[_START, _END], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (_START, _END)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=ends
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=_CONTEXT,
    )
    wrapped.save_pretrained(folder)
    return wrapped


def _model_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "embed_dim": WIDTH,
        # A list of layers is open_clip's residual network: it sees shapes in the few thousand pictures there are.
        "vision_cfg": {"image_size": SIZE, "width": 16, "layers": [1, 2, 2, 1], "head_width": 64},
        "text_cfg": {
            "context_length": _CONTEXT,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "the tokenizer of this folder",
            "width": 96,
            "heads": 3,
            "layers": 3,
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
        },
    }
