"""From a network's raw output to a guess of the clean latents, with classifier-free guidance."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from flowsmith.execution.sigmas import NoiseTable

Prediction = Literal["epsilon", "v_prediction"]

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scaled latents [n, c, h, w], timestep, text encodings [n, tokens, width]) -> output [n, c, h, w]."""

_MOST_REPEATS = 4  # beyond this, texts of unlike length go through the network one length at a time


class Denoiser:
    """A network under guidance, in the form that samplers want.

    Text encodings of unlike length are repeated to their least common multiple, which leaves attention over
    them as it was. Where every guidance is 1 the negative text has no influence and is not computed.

    Args:
        network: The noise-predicting network.
        table: Its noise levels.
        prediction: What it was trained to predict.
        positive: One encoding [tokens, width] a latent.
        negative: Likewise.
        guidance: Weight per latent; the guess is ``negative + guidance * (positive - negative)``.
        device: Where the network lives.
        dtype: Number type that the network takes.
        rescale: Share in which the guided guess gets back the contrast of the positive one, 0 to 1 (Lin et al.
            2023, arXiv 2305.08891, equations 15 and 16; there of a network that predicts v, which others are
            brought to).
    """

    def __init__(
        self,
        network: Network,
        table: NoiseTable,
        prediction: Prediction,
        positive: Sequence[Tensor],
        negative: Sequence[Tensor],
        guidance: Sequence[float],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        rescale: float = 0.0,
    ) -> None:
        self._network, self._table, self._prediction, self._dtype = network, table, prediction, dtype
        self._rescale = rescale
        self._guided = any(not unguided(g) for g in guidance)
        self._guidance = torch.tensor(list(guidance), dtype=torch.float32, device=device).view(-1, 1, 1, 1)
        texts = [*positive, *negative] if self._guided else list(positive)
        self._parts = [(rows, text.to(device, dtype)) for rows, text in _stack(texts)]
        self._device = device

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Guess the clean latents behind ``x`` [n, c, h, w] (float32) at noise level ``sigma`` > 0."""
        timestep = torch.tensor(self._table.timestep(sigma), device=self._device)
        scaled = (x / math.sqrt(sigma**2 + 1)).to(self._dtype)
        output = self._run(torch.cat([scaled, scaled]) if self._guided else scaled, timestep).float()
        if self._guided:
            positive, negative = output.chunk(2)
            output = negative + self._guidance * (positive - negative)
            if self._rescale:
                output = self._rescaled(output, positive, x, sigma)
        # Guidance mixes outputs, not guesses: the guess is affine in the output, so it is the same thing.
        if self._prediction == "epsilon":
            return x - sigma * output
        return x / (sigma**2 + 1) - output * (sigma / math.sqrt(sigma**2 + 1))

    def _rescaled(self, mixed: Tensor, positive: Tensor, x: Tensor, sigma: float) -> Tensor:
        """Give a guided output the spread of the positive one, row by row, both taken as v."""
        # v is a multiple of (noise - offset); of the ratio of two spreads the multiple is no part.
        offset = x * (sigma / (sigma**2 + 1)) if self._prediction == "epsilon" else torch.zeros_like(x)
        spreads = [(output - offset).std((1, 2, 3), keepdim=True) for output in (positive, mixed)]
        return offset + (mixed - offset) * (1 - self._rescale + self._rescale * spreads[0] / spreads[1])

    def _run(self, scaled: Tensor, timestep: Tensor) -> Tensor:
        if len(self._parts) == 1:
            return self._network(scaled, timestep, self._parts[0][1])
        output = torch.empty_like(scaled)
        for rows, text in self._parts:
            output[rows] = self._network(scaled[rows], timestep, text)
        return output


def unguided(guidance: float) -> bool:
    """Say whether a guidance weight leaves the negative text without influence."""
    return math.isclose(guidance, 1.0)


def _stack(texts: Sequence[Tensor]) -> list[tuple[list[int], Tensor]]:
    """Stack encodings into as few tensors as is cheap; give the rows that each one holds."""
    lengths = sorted({len(text) for text in texts})
    common = math.lcm(*lengths)
    if common <= _MOST_REPEATS * lengths[0]:
        return [(list(range(len(texts))), torch.stack([t.repeat(common // len(t), 1) for t in texts]))]
    parts = []
    for length in lengths:
        rows = [k for k, text in enumerate(texts) if len(text) == length]
        parts.append((rows, torch.stack([texts[k] for k in rows])))
    return parts
