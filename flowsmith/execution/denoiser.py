"""From a network's raw output to a guess of the clean latents, with classifier-free guidance."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowsmith.execution.condition_areas import placed, with_opposites
from flowsmith.execution.condition_batch import ConditionBatch, Network, NetworkForm
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.prediction import Prediction, reading, unmoved


class Denoiser:
    """A network under guidance, in the form that samplers want.

    Where every guidance is 1 the negative conditioning has no influence and is not computed.

    Args:
        network: What is run.
        form: What it takes.
        prediction: What it was trained to predict.
        positive: One conditioning a latent.
        negative: Likewise.
        guidance: Weight per latent; the guess is ``negative + guidance * (positive - negative)``.
        size: Height and width of the latents.
        rescale: Share in which the guided guess gets back the contrast of the positive one, 0 to 1 (Lin et al.
            2023, arXiv 2305.08891, equations 15 and 16; there of a network that predicts v, which others are
            brought to).
        perturbed: Weight by which the guess is pushed away from that of ``blunted``.
        blunted: The same network with its attention perturbed.
    """

    def __init__(
        self,
        network: Network,
        form: NetworkForm,
        prediction: Prediction,
        positive: Sequence[Conditioning],
        negative: Sequence[Conditioning],
        guidance: Sequence[float],
        size: tuple[int, int],
        rescale: float = 0.0,
        perturbed: float = 0.0,
        blunted: Network | None = None,
    ) -> None:
        self._network, self._form, self._prediction = network, form, prediction
        self._rescale, self._perturbed, self._blunted = rescale, perturbed, blunted
        self._guided = any(not unguided(g) for g in guidance)
        self._guidance = torch.tensor(list(guidance), dtype=torch.float32, device=form.device).view(
            -1, 1, 1, 1
        )
        sides = [[placed(one, size, form.factor) for one in side] for side in (positive, negative)]
        towards = [with_opposites(*pair) for pair in zip(*sides, strict=True)]
        away = [with_opposites(mine, other) for other, mine in zip(*sides, strict=True)]
        rows, signs = towards, [False] * len(towards)
        if perturbed:
            self._towards = ConditionBatch(rows, signs, size, form)
        if self._guided:
            rows, signs = [*rows, *away], [*signs, *([True] * len(away))]
        self._conditions = ConditionBatch(rows, signs, size, form)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Guess the clean latents behind ``x`` [n, c, h, w] (float32) at noise level ``sigma`` > 0."""
        table = self._form.table
        read = reading(self._prediction, table, sigma)
        timestep = torch.tensor(table.timestep(sigma), device=self._form.device)
        scaled = table.scaled(x, sigma).to(self._form.dtype)
        seen = (scaled, timestep, sigma, lambda: read.nothing(x))
        output = self._conditions(self._network, *seen)
        positive = output[: len(x)]
        if self._guided:
            negative = output[len(x) :]
            output = negative + self._guidance * (positive - negative)
            if self._rescale:
                output = self._rescaled(output, positive, x * unmoved(self._prediction, sigma, read))
        if self._perturbed and self._blunted is not None:
            output = output + self._perturbed * (positive - self._towards(self._blunted, *seen))
        # Guidance mixes outputs, not guesses: the guess is affine in the output, so it is the same thing.
        return read.guess(x, output)

    def _rescaled(self, mixed: Tensor, positive: Tensor, offset: Tensor) -> Tensor:
        """Give a guided output the spread of the positive one, row by row, both taken as v."""
        spreads = [(output - offset).std((1, 2, 3), keepdim=True) for output in (positive, mixed)]
        return offset + (mixed - offset) * (1 - self._rescale + self._rescale * spreads[0] / spreads[1])


def unguided(guidance: float) -> bool:
    """Say whether a guidance weight leaves the negative text without influence."""
    return math.isclose(guidance, 1.0)
