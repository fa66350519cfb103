"""Plain text through the same engine that writes flows: token ids in, sampled token ids out."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from flowsmith.policy.noise import Name


@dataclass(frozen=True)
class Completion:
    """What was sampled after a prompt.

    Attributes:
        tokens: Ids, ``eos`` included where it came.
        logprobs: Of each token when it was sampled, at temperature.
        finished: Whether ``eos`` came before the limit.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


def sample_text(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    *,
    seed: int,
    temperature: float = 1.0,
    eos: int | None = None,
    sample_ids: Sequence[Name] | None = None,
    batch_size: int = 256,
) -> list[list[Completion]]:
    """Sample from a Hugging Face causal LM without a grammar.

    Args:
        model: A transformers causal LM, or a ``PeftModel`` around one (its active adapter speaks).
        prompts: Ids, at least one each; prompts of different length cost no padding.
        samples: How many for each.
        max_new_tokens: A completion ends here if ``eos`` does not come first.
        seed: Of the random numbers.
        temperature: Divides the logits, > 0.
        eos: Ends a completion; None samples exactly ``max_new_tokens``.
        sample_ids: A name per prompt that its random numbers derive from; its place if not given.
        batch_size: Sequences computed at once; changes memory and speed, not the result.

    Returns:
        Per prompt, its samples in order.

    Raises:
        PolicyError: A setting that cannot work, or a prompt that is empty or too long.
    """
    raise NotImplementedError
