"""Text encodings with ComfyUI's prompt weighting, in chunks of the encoder's length."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowsmith.execution.conditioning import TextEncoding
from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.prompt_weights import weighted_segments

MAX_CHUNKS = 64
"""Longest prompt, in chunks: 4800 tokens for CLIP, far beyond use, and a bound on memory."""

_SHORT = 8  # a segment of fewer tokens is not cut by a chunk's end but moved over
_ROWS = 64  # chunks encoded at once


class Tokenizer(Protocol):
    """What is needed of a CLIP tokenizer."""

    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text."""
        ...


@dataclass(frozen=True)
class Chunk:
    """As many tokens as the encoder takes, with start, end and padding.

    Attributes:
        ids: Token ids, as many as the encoder is long.
        weights: One per id; 1 on start, end and padding.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A CLIP text model with its tokenizer.

    Attributes:
        key: Names the weights and the layer: equal keys, equal encodings.
        model: Maps ids [n, length] to an output with ``last_hidden_state`` [n, length, width] after the
            final norm, and, if asked, ``hidden_states``: of each layer before it.
        tokenizer: Its tokenizer.
        length: Tokens a chunk, start and end included.
        device: Where the model lives.
        layer: Whose output is the encoding, counted from the last, -1; the final norm is applied to it.
    """

    key: str
    model: nn.Module
    tokenizer: Tokenizer
    length: int
    device: torch.device | str = "cpu"
    layer: int = -1

    def stopped_at(self, layer: int) -> "TextEncoder":
        """Return the encoder that ends in another layer ("clip skip 2" is layer -2).

        Raises:
            ExecutionError: It has fewer layers.
        """
        layers = len(self._named("encoder").layers)
        if not -layers <= layer <= -1:
            raise ExecutionError(
                f"stop_at_clip_layer={layer}: this text encoder has {layers} layers; use {-layers} to -1"
            )
        return self if layer == self.layer else replace(self, key=f"{self.key} @ {layer}", layer=layer)

    def chunks(self, text: str) -> list[Chunk]:
        """Tokenise a weighted prompt; an empty one gives one chunk of padding.

        Raises:
            ExecutionError: The prompt is longer than ``MAX_CHUNKS`` chunks.
        """
        room = self.length - 2
        done: list[list[tuple[int, float]]] = []
        current: list[tuple[int, float]] = []
        for segment, weight in weighted_segments(text):
            tokens = [(i, weight) for i in self.tokenizer.encode(segment, add_special_tokens=False)]
            # Even a short one is cut where a whole chunk would not hold it.
            cut = len(tokens) >= _SHORT or len(tokens) > room
            while len(current) + len(tokens) > room:
                fitting = room - len(current) if cut else 0
                done.append(current + tokens[:fitting])
                current, tokens = [], tokens[fitting:]
                if len(done) >= MAX_CHUNKS:
                    raise ExecutionError(
                        f"a prompt of {len(text)} characters is too long; use up to "
                        f"{MAX_CHUNKS * room} tokens"
                    )
            current = current + tokens
        return [self._framed(tokens) for tokens in [*done, current]]

    def encode(self, texts: Sequence[str]) -> list[TextEncoding]:
        """Return one float32 encoding [chunks * length, width] a text.

        A token of weight w stands at ``empty + w * (token - empty)``, with ``empty`` the encoding of the
        empty text at the same place in its chunk.
        """
        parts = [self.chunks(text) for text in texts]
        empty = self._framed([])
        wanted = dict.fromkeys(chunk.ids for chunks in parts for chunk in chunks)
        if any(w != 1.0 for chunks in parts for chunk in chunks for w in chunk.weights):
            wanted[empty.ids] = None
        outputs = self._run(list(wanted))
        return [
            TextEncoding(torch.cat([self._weighted(chunk, outputs, empty) for chunk in chunks]))
            for chunks in parts
        ]

    def _framed(self, tokens: Sequence[tuple[int, float]]) -> Chunk:
        pad = [self.tokenizer.pad_token_id] * (self.length - 2 - len(tokens))
        ids = (self.tokenizer.bos_token_id, *(i for i, _ in tokens), self.tokenizer.eos_token_id, *pad)
        return Chunk(ids, (1.0, *(w for _, w in tokens), 1.0, *(1.0 for _ in pad)))

    def _run(self, rows: list[tuple[int, ...]]) -> dict[tuple[int, ...], Tensor]:
        outputs: dict[tuple[int, ...], Tensor] = {}
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            outputs.update(zip(some, self._states(torch.tensor(some, device=self.device)), strict=True))
        return outputs

    def _states(self, ids: Tensor) -> Tensor:
        if self.layer == -1:
            states: Tensor = self.model(ids).last_hidden_state
        else:
            hidden = self.model(ids, output_hidden_states=True).hidden_states
            states = self._named("final_layer_norm")(hidden[self.layer])
        return states.float()

    def _named(self, name: str) -> Any:
        """Return a part of the model; older transformers keep it under "text_model.", newer ones do not."""
        return getattr(getattr(self.model, "text_model", self.model), name)

    def _weighted(self, chunk: Chunk, outputs: dict[tuple[int, ...], Tensor], empty: Chunk) -> Tensor:
        plain = outputs[chunk.ids]
        if all(w == 1.0 for w in chunk.weights):
            return plain
        weights = torch.tensor(chunk.weights, device=plain.device).unsqueeze(-1)
        origin = outputs[empty.ids]
        return torch.where(weights == 1, plain, origin + (plain - origin) * weights)
