"""Text encodings with ComfyUI's prompt weighting: one or several text networks behind one CLIP link."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from flowsmith.execution.conditioning import TextEncoding
from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.residency import Fetch, stay
from flowsmith.execution.text_chunks import Chunk, Framing, Tokenizer, chunks, empty_chunk
from flowsmith.execution.text_networks import layer_count, run_text_network

_ROWS = 64  # chunks encoded at once


Join = Callable[[Mapping[str, TextEncoding]], TextEncoding]
"""Makes one encoding of those of several towers, by their names."""


def alone(encodings: Mapping[str, TextEncoding]) -> TextEncoding:
    """Return the encoding of the only tower."""
    (encoding,) = encodings.values()
    return encoding


@dataclass(frozen=True, eq=False)
class Tower:
    """One text network with its tokenizer.

    Attributes:
        model: transformers' CLIPTextModel, with a projection or without, or a T5EncoderModel.
        tokenizer: Its tokenizer.
        framing: How texts are cut and padded for it.
        layer: Whose output is the encoding, counted from the last, -1; None is the network's own output, which
            is the last layer's after the final norm.
        normed: Whether the output of a ``layer`` passes the final norm.
        projected: Whether the pooled state passes the network's projection, if it has one.
        device: Where the network runs.
        fetch: Brings the network there.
    """

    model: nn.Module
    tokenizer: Tokenizer
    framing: Framing
    layer: int | None = None
    normed: bool = True
    projected: bool = True
    device: torch.device | str = "cpu"
    fetch: Fetch = stay

    def stopped_at(self, layer: int) -> "Tower":
        """Return the tower ending in another layer; one with fewer layers gives its own output, as in ComfyUI."""
        own = -layer > layer_count(self.model) or (layer == -1 and self.normed)
        return replace(self, layer=None if own else layer)

    def chunks(self, text: str) -> list[Chunk]:
        """Tokenise a weighted prompt; see `text_chunks.chunks`."""
        return chunks(self.tokenizer, self.framing, text)

    def encode(self, parts: Sequence[Sequence[Chunk]]) -> list[TextEncoding]:
        """Encode texts given as their chunks.

        A token of weight w stands at ``empty + w * (token - empty)``, with ``empty`` the encoding of the
        empty text at the same place in its chunk.
        """
        wanted = dict.fromkeys(chunk.ids for part in parts for chunk in part)
        for chunk in (chunk for part in parts for chunk in part if chunk.weighted):
            wanted[empty_chunk(self.framing, len(chunk.ids)).ids] = None
        outputs = self._run(list(wanted))
        return [
            TextEncoding(torch.cat([self._weighted(c, outputs) for c in part]), outputs[part[0].ids].pooled)
            for part in parts
        ]

    def _run(self, rows: list[tuple[int, ...]]) -> dict[tuple[int, ...], TextEncoding]:
        outputs: dict[tuple[int, ...], TextEncoding] = {}
        model = self.fetch(self.model)
        for length in dict.fromkeys(len(row) for row in rows):
            alike = [row for row in rows if len(row) == length]
            for start in range(0, len(alike), _ROWS):
                some = alike[start : start + _ROWS]
                ids = torch.tensor(some, device=self.device)
                states, pooled = run_text_network(
                    model, ids, self.framing.end, self.layer, self.normed, self.projected
                )
                for k, row in enumerate(some):
                    outputs[row] = TextEncoding(states[k], None if pooled is None else pooled[k])
        return outputs

    def _weighted(self, chunk: Chunk, outputs: Mapping[tuple[int, ...], TextEncoding]) -> Tensor:
        plain = outputs[chunk.ids].states
        if not chunk.weighted:
            return plain
        weights = torch.tensor(chunk.weights, device=plain.device).unsqueeze(-1)
        origin = outputs[empty_chunk(self.framing, len(chunk.ids)).ids].states
        return torch.where(weights == 1, plain, origin + (plain - origin) * weights)


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """What travels along a CLIP link.

    Attributes:
        key: Names the weights and the layer: equal keys, equal encodings.
        towers: Its networks by ComfyUI's names: "l" (CLIP-L), "h" (OpenCLIP-H), "g" (OpenCLIP-bigG), "t5xxl".
        join: Makes one encoding of theirs.
        source: The file or files that the weights came from, whatever was done to them since.
    """

    key: str
    towers: Mapping[str, Tower]
    join: Join = field(default=alone)
    source: str = ""

    def stopped_at(self, layer: int) -> "TextEncoder":
        """Return the encoder whose towers end in another layer ("clip skip 2" is layer -2).

        Raises:
            ExecutionError: The layer is not counted from the last.
        """
        if layer > -1:
            raise ExecutionError(
                f"stop_at_clip_layer={layer}: layers are counted from the last, -1; use -1 or less"
            )
        towers = {name: tower.stopped_at(layer) for name, tower in self.towers.items()}
        if all(tower.layer == self.towers[name].layer for name, tower in towers.items()):
            return self
        return replace(self, key=f"{self.key} @ {layer}", towers=towers)

    def encode(self, texts: Sequence[str | Mapping[str, str]]) -> list[TextEncoding]:
        """Return one encoding a text.

        Args:
            texts: Weighted prompts; or, of the towers by name, a prompt each (CLIPTextEncodeSDXL and its like).
                A tower that is not named encodes nothing.

        Raises:
            ExecutionError: A prompt is too long.
        """
        asked = [{name: t if isinstance(t, str) else t.get(name) for name in self.towers} for t in texts]
        parts = [
            {name: self.towers[name].chunks(text) for name, text in by_name.items() if text is not None}
            for by_name in asked
        ]
        for by_name in parts:  # CLIPs stand side by side: the shorter text gets empty chunks
            cut = {name: part for name, part in by_name.items() if not self.towers[name].framing.whole}
            for name, part in cut.items():
                missing = max(map(len, cut.values())) - len(part)
                part.extend([empty_chunk(self.towers[name].framing)] * missing)
        encoded: list[dict[str, TextEncoding]] = [{} for _ in texts]
        for name, tower in self.towers.items():
            rows = [k for k, by_name in enumerate(parts) if name in by_name]
            for k, encoding in zip(rows, tower.encode([parts[k][name] for k in rows]), strict=True):
                encoded[k][name] = encoding
        return [self.join(by_name) for by_name in encoded]
