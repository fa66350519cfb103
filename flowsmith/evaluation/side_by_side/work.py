"""The work that both do: a random causal LM on disk, prompts of equal length, a reward that costs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Work:
    """One cycle of GRPO: a model's shape, and how much it reads and writes.

    Attributes:
        name: What the figures go by.
        hidden: Width.
        intermediate: Width of the gated layers.
        layers: Depth.
        heads: Attention heads.
        key_heads: Key-value heads; divide ``heads``.
        vocabulary: Rows of embedding and head, which are not tied.
        prompts: Prompts in a cycle.
        prompt_tokens: Of each.
        samples: Completions of each prompt.
        new_tokens: Of each completion, exactly.
        learning_rate: Of AdamW.
        beta: Weight of the KL to the reference.
        micro_batch_tokens: Ours, in one forward pass of training.
        dtype: Of the weights.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int = 1500
    prompts: int = 8
    prompt_tokens: int = 24
    samples: int = 8
    new_tokens: int = 80
    learning_rate: float = 1e-4
    beta: float = 0.04
    micro_batch_tokens: int = 1400
    dtype: str = "float32"

    @property
    def sequences(self) -> int:
        """Completions in a cycle."""
        return self.prompts * self.samples

    @property
    def new(self) -> int:
        """Tokens that are sampled and trained on in a cycle."""
        return self.sequences * self.new_tokens

    def prompt_ids(self, cycle: int = 0) -> list[list[int]]:
        """Return the prompts of a cycle, all different."""
        generator = torch.Generator().manual_seed(1000 + cycle)
        ids = torch.randint(1, self.vocabulary, (self.prompts, self.prompt_tokens), generator=generator)
        rows: list[list[int]] = ids.tolist()
        return rows

    def reward(self, completion: Sequence[int]) -> float:
        """Return the share of tokens from the lower half of the vocabulary."""
        return sum(token < self.vocabulary // 2 for token in completion) / max(1, len(completion))


SMALL = Work("small", hidden=192, intermediate=512, layers=4, heads=6, key_heads=6)
LARGE = Work("large", hidden=512, intermediate=1280, layers=8, heads=8, key_heads=8)
HALF_BILLION = Work(
    "half_billion", hidden=896, intermediate=4864, layers=24, heads=14, key_heads=2, vocabulary=151_936,
    prompts=16, prompt_tokens=128, samples=16, new_tokens=256, learning_rate=1e-6, micro_batch_tokens=16_384,
    dtype="bfloat16",
)  # fmt: skip


def write_model(work: Work, folder: Path, seed: int = 0, spread: float = 1.0) -> Path:
    """Write a random Llama of the work's shape and a tokenizer that has one word a token: ``t0 t1 t2`` ...

    Its end of sequence is an id that the model has no row for, so every completion has its full length.

    Args:
        work: Which shape.
        folder: Where to.
        seed: Of the weights.
        spread: How much wider than usual its matrices are drawn.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {f"t{number}": number for number in range(work.vocabulary)}
    end = "<never>"
    text = Tokenizer(models.WordLevel(words | {end: work.vocabulary}, unk_token=end))
    text.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=text, eos_token=end, pad_token=end).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=work.vocabulary,
        hidden_size=work.hidden,
        intermediate_size=work.intermediate,
        num_hidden_layers=work.layers,
        num_attention_heads=work.heads,
        num_key_value_heads=work.key_heads,
        max_position_embeddings=work.prompt_tokens + work.new_tokens,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=work.vocabulary,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(spread)
    model.to(getattr(torch, work.dtype)).save_pretrained(folder)
    return folder


def load_model(folder: Path, work: Work, device: torch.device) -> Any:
    """Read a model that `write_model` wrote."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, work.dtype)).to(device)


def as_text(ids: Sequence[int]) -> str:
    """Spell ids as the tokenizer reads them."""
    return " ".join(f"t{token}" for token in ids)
