"""Denoisers over small functions in the place of networks."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from flowsmith.execution.condition_batch import NetworkForm
from flowsmith.execution.conditioning import Conditioning, NetworkConditions, TextEncoding
from flowsmith.execution.denoiser import Denoiser
from flowsmith.execution.prediction import Prediction
from flowsmith.execution.sigmas import NoiseTable, Table

TABLE = NoiseTable.from_betas()

TextNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(scaled latents, timestep, text encodings [n, tokens, width]) -> output."""


def said(text: Tensor, **told: Any) -> Conditioning:
    """The conditioning of one encoding [tokens, width]."""
    return Conditioning.of(TextEncoding(text), **told)


def denoiser(
    network: TextNetwork,
    prediction: Prediction,
    positive: Sequence[Tensor],
    negative: Sequence[Tensor],
    guidance: Sequence[float],
    size: tuple[int, int],
    table: Table = TABLE,
    **how: Any,
) -> Denoiser:
    """A denoiser of plain texts over a network that looks at texts alone."""

    def run(scaled: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        return network(scaled, timestep, told.states)

    towards, away = map(said, positive), map(said, negative)
    return Denoiser(run, NetworkForm(table), prediction, [*towards], [*away], guidance, size, **how)
