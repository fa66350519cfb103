"""One member of the ensemble: a Hugging Face encoder over a (prompt, flow) pair with a head for its score.

The small encoder of the default configs and a pretrained one from the hub run through the same code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.rewards.pairs import PairTokenizer, RewardsError, SpecialIds
from flowsmith.rewards.prior import FlowPrior
from flowsmith.rewards.values import ordered_table


@dataclass(frozen=True)
class SmallEncoder:
    """A BERT from scratch that trains in minutes on a laptop.

    Attributes:
        width: Size of a hidden vector.
        layers: Number of transformer layers.
        heads: Attention heads per layer.
        text_vocabulary: Most tokens of the tokenizer that is trained on the training prompts, >= 256.

    Raises:
        RewardsError: No network has these sizes.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    text_vocabulary: int = 2000

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise RewardsError(
                f"width={self.width}, layers={self.layers}, heads={self.heads}: heads share the width equally; "
                "set each to 1 or more, and width to a multiple of heads"
            )
        if self.text_vocabulary < 256:
            raise RewardsError(
                f"text_vocabulary={self.text_vocabulary}: every byte is a token; use 256 or more"
            )


def small_config(encoder: SmallEncoder, vocabulary: int, max_tokens: int) -> Any:
    """Return the Hugging Face configuration of a small encoder."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=encoder.width,
        num_hidden_layers=encoder.layers,
        num_attention_heads=encoder.heads,
        intermediate_size=4 * encoder.width,
        max_position_embeddings=max_tokens,
        # A few passes over noisy scores end before a small network overfits; dropout only slowed it.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


class Surrogate(nn.Module):
    """Score of a pair in standard deviations: head([p, f, p * f]) + prior(flow).

    p and f are the means of the encoder's outputs over prompt and flow tokens. Their product hands the head the
    interaction of prompt and flow, which is all that choosing a flow for a prompt is about.

    Args:
        encoder: A Hugging Face encoder whose embedding covers the flow tokens.
        ids: Ids with a role.
        vocabulary: The codec's tokens.
        prior_scale: Size of the fixed random prior, in standard deviations of score; 0 for none.
        generator: Source of the prior's random numbers.
    """

    def __init__(
        self,
        encoder: Any,
        ids: SpecialIds,
        vocabulary: tuple[str, ...],
        prior_scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.head = nn.Sequential(
            nn.LayerNorm(3 * width), nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 1)
        )
        self.prior = FlowPrior(vocabulary, generator)
        self.prior_scale = prior_scale
        self._ids = ids

    def forward(self, ids: Tensor) -> Tensor:
        """Return the standardised scores [n] of padded pairs, ids [n, tokens]."""
        present = ids != self._ids.padding
        flow = ids >= self._ids.flow
        prompt = present & ~flow  # start and separators among them, so that an empty prompt has a mean too
        hidden = self.encoder(input_ids=ids, attention_mask=present.long()).last_hidden_state
        p, f = _mean(hidden, prompt), _mean(hidden, flow)
        score: Tensor = self.head(torch.cat([p, f, p * f], -1)).squeeze(-1)
        prior: Tensor = self.prior(ids - self._ids.flow, flow)
        return score + self.prior_scale * prior


def build_member(
    encoder: SmallEncoder | str, tokenizer: PairTokenizer, *, prior_scale: float, seed: int
) -> Surrogate:
    """Return a new member; equal seeds give equal members, and the global random state is left alone.

    Args:
        encoder: Sizes of an encoder from scratch, or a folder or hub id of a pretrained one.
        tokenizer: What the pairs will be encoded with.
        prior_scale: Size of the fixed random prior, in standard deviations of score.
        seed: Seed of every initial value.
    """
    from transformers import AutoModel

    vocabulary = tuple(tokenizer.codec.vocabulary)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(encoder, SmallEncoder):
            network = AutoModel.from_config(small_config(encoder, tokenizer.size, tokenizer.max_tokens))
        else:
            with loading(encoder):
                network = AutoModel.from_pretrained(encoder, dtype=torch.float32)
            network.resize_token_embeddings(tokenizer.size, mean_resizing=False)
        drop_pooler(network)
        _place_flow_tokens(network.get_input_embeddings(), tokenizer, generator)
        return Surrogate(network, tokenizer.ids, vocabulary, prior_scale, generator)


@contextmanager
def loading(encoder: str) -> Iterator[None]:
    """Say which encoder it is that cannot be loaded.

    Raises:
        RewardsError: Hugging Face found none, or none that it knows.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise RewardsError(
            f"encoder={encoder}: cannot be loaded ({str(error).splitlines()[0]}); name a folder that holds a "
            "pretrained encoder, or the id of one on a hub that can be reached"
        ) from error


def drop_pooler(network: Any) -> None:
    """Take away BERT's pooler: nothing reads it, and parameters without gradients stall distributed training."""
    if getattr(network, "pooler", None) is not None:
        network.pooler = None


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


@torch.no_grad()
def _place_flow_tokens(embedding: nn.Embedding, tokenizer: PairTokenizer, generator: torch.Generator) -> None:
    """Start each flow token at the mean of its words plus an ordered random vector of the usual size."""
    text = embedding.weight[: tokenizer.ids.flow]
    vocabulary = tokenizer.codec.vocabulary
    words = [tokenizer.text.encode(token, add_special_tokens=False).ids for token in vocabulary]
    means = torch.stack([text[ids].mean(0) if ids else text.mean(0) for ids in words])
    table = ordered_table(vocabulary, embedding.embedding_dim, generator)
    embedding.weight[tokenizer.ids.flow :] = means + text.std() * table.to(text)
