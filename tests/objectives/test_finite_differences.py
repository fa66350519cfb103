"""Gradients of whole objectives against differences of their losses."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from flowsmith.objectives.aggregation import Aggregation, Totals
from flowsmith.objectives.objective import Objective
from flowsmith.objectives.presets import PRESETS
from tests.objectives.batch import random_batch

OBJECTIVES = {name: replace(preset, beta=0.1, entropy_bonus=0.2) for name, preset in PRESETS.items()}
VARIANTS = {
    "dual_clip": Objective(surrogate="dual_clip", dual_clip=1.5),
    "sequence_sapo": Objective(ratio="sequence", surrogate="sapo"),
    "k2": Objective(kl="k2", beta=0.1),
    "corrected_k1": Objective(kl="k1", kl_correction=True, beta=0.1),
    "corrected_k3": Objective(ratio="sequence", kl_correction=True, beta=0.1),
    **{f"sapo_{kind}": Objective(surrogate="sapo", aggregation=kind) for kind in get_args(Aggregation)},
}
# The weight of cispo is held constant, so that its gradient is of no loss.
CASES = {str(name): value for name, value in OBJECTIVES.items() if name != "cispo"} | VARIANTS


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    batch, objective = random_batch(size=4), CASES[name]

    def loss(logprobs: Tensor, entropy: Tensor) -> Tensor:
        return objective(
            logprobs,
            batch.old,
            batch.advantages,
            batch.mask,
            Totals.of(batch.mask, 6),
            batch.reference,
            entropy,
        )[0]

    logprobs = (batch.old + 0.5 * torch.sin(torch.arange(24.0)).view(4, 6)).requires_grad_()
    assert torch.autograd.gradcheck(loss, (logprobs, batch.reference.exp().requires_grad_()))
