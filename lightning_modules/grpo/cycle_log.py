"""Bringing together what all processes measured in a cycle; `docs/metrics.md` explains every name."""

from collections.abc import Sequence

import torch
from lightning import LightningModule

from flowsmith.objectives.extremes import Extremes, merge_extremes
from flowsmith.objectives.metrics import Metrics, divided, packed
from flowsmith.policy.cycle_metrics import sampled_values
from flowsmith.policy.groups import Group
from flowsmith.policy.phases import PhaseClock
from lightning_modules.collective import gathered, summed
from lightning_modules.grpo.policy_update import Measured


def cycle_values(
    module: LightningModule,
    tries: Sequence[Sequence[Group]],
    measured: Measured,
    clock: PhaseClock,
    budget: int,
) -> dict[str, float]:
    """Return what is logged of every cycle, the same on each process.

    Args:
        module: Of which process.
        tries: For each prompt of all processes its own group, then those that stepped in for it.
        measured: In this process's updates.
        clock: Of this process; times are averaged over processes.
        budget: Most tokens of a flow.
    """
    times = {name: (torch.tensor(value), torch.ones(())) for name, value in clock.values().items()}
    values = _averages(module, {**measured.metrics, **times}) | _extremes(module, measured.extremes)
    values |= sampled_values(tries, budget)
    tokens = sum(group.length for groups in tries for group in groups)
    return values | {"tokens_per_second": tokens / values["step_time"]}


def _averages(module: LightningModule, metrics: Metrics) -> dict[str, float]:
    """Add (sum, count) pairs up over processes, then divide; the same names must be there on each."""
    values = divided(metrics, summed(module, packed(metrics)))
    return {name: value.item() for name, value in values.items()}


def _extremes(module: LightningModule, found: Extremes) -> dict[str, float]:
    """Merge over processes; the same names must be there on each."""
    names = sorted(found)
    mine = torch.stack([found[name].detach().double().cpu() for name in names])
    merged: Extremes = {}
    for values in gathered(module, mine).view(-1, len(names)):
        merge_extremes(merged, dict(zip(names, values, strict=True)))
    return {name: value.item() for name, value in merged.items()}
