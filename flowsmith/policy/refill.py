"""Dynamic sampling: prompts whose samples are all worth the same teach nothing, and others step in for them.

Which ones, and with which random numbers, is a function of (seed, cycle, attempt, place in the cycle), and what
becomes of one place does not depend on the others: any number of processes comes to the same groups
(arXiv 2503.14476, there without a bound).
"""

from collections.abc import Callable, Sequence

from flowsmith.policy.groups import Group
from flowsmith.prompts import Prompt

Sampler = Callable[[Sequence[Prompt], int], list[Group]]
"""Samples one group a prompt, in a given attempt."""


def sampled_with_refills(
    sample: Sampler, prompts: Sequence[Prompt], spare: Callable[[int], Sequence[Prompt]], refills: int
) -> list[list[Group]]:
    """Sample a group for each prompt, and further ones where rewards do not vary.

    Args:
        sample: How.
        prompts: For what.
        spare: Who may step in in an attempt from 1, one for each of ``prompts``.
        refills: Attempts at most, >= 0.

    Returns:
        For each prompt its own group, followed by those that stepped in; only the last may vary.
    """
    tries = [[group] for group in sample(prompts, 0)]
    for attempt in range(1, refills + 1):
        flat = [place for place, groups in enumerate(tries) if not groups[-1].varied]
        if not flat:
            break
        stand_ins = spare(attempt)
        for place, group in zip(flat, sample([stand_ins[place] for place in flat], attempt), strict=True):
            tries[place].append(group)
    return tries


def chosen(tries: Sequence[Sequence[Group]]) -> list[Group]:
    """Return the group that is learned from at each place: the one that varies, or else the prompt's own."""
    return [groups[-1] if groups[-1].varied else groups[0] for groups in tries]
