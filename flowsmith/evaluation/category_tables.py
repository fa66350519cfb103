"""How far a table gets that knows a single label of a prompt (its style, its count, ...) and the best flow per value.

A table is cross-fitted over seeds like the oracle, but that leaks nothing across seeds only: each prompt helps to
choose its own flow, so a label with a value for every prompt would be the oracle by another name, and any label with
few prompts a value seems to tell something. Leaving each prompt out of its own choice does not mend this: blocks are
balanced by design, so leaving one out tips near ties against its own kind, for the fixed flow above all (in a
simulated world where the style decides everything, style then seemed to gain 1.3 times the whole gap). Instead the
share is corrected for chance, as Cohen's kappa and the adjusted R squared are: it is 0 for labels dealt out at random
in equal numbers, and 1 where the table gains what the oracle gains.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowsmith.evaluation.cross_fitting import Scores, half_means, picked
from flowsmith.evaluation.fairness import best_fixed

_ROOM = 0.1  # of the gap


@dataclass(frozen=True)
class TableShare:
    """What one label tells.

    Attributes:
        gain: Of the label's table over the best fixed flow, cross-fitted over seeds.
        by_chance: The mean gain of tables whose labels were dealt out at random.
        share: (gain - by_chance) / (oracle gap - by_chance); NaN where chance leaves less than a tenth of the gap, as
            with nearly as many values as prompts, or where there is no gap.
    """

    gain: float
    by_chance: float
    share: float


def table_share(
    scores: Scores, values: Sequence[Hashable], gap: float, *, deals: int = 100, seed: int = 0
) -> TableShare:
    """Measure one label.

    Args:
        scores: Of the block, [prompts, flows, seeds].
        values: The label's value for each prompt; None (nothing said) is a value like any other.
        gap: The oracle's gain over the best fixed flow.
        deals: How often labels are dealt out at random.
        seed: Of the dealing.
    """
    group = np.unique([repr(value) for value in values], return_inverse=True)[1]
    fixed = float(best_fixed(scores, np.full((1, len(scores)), 1 / len(scores)))[0])
    rng = np.random.default_rng(seed)
    gain = _table_score(scores, group) - fixed
    by_chance = float(np.mean([_table_score(scores, rng.permutation(group)) for _ in range(deals)])) - fixed
    room = gap - by_chance
    return TableShare(
        gain, by_chance, (gain - by_chance) / room if room > max(0.0, _ROOM * gap) else math.nan
    )


def _table_score(scores: Scores, group: NDArray[np.intp]) -> float:
    """Return what the best flow of each prompt's group scores on the seeds that did not choose it."""
    member = (group == np.arange(group.max() + 1)[:, None]).astype(float)  # [groups, prompts]
    found = [picked(s, (member @ c).argmax(1)[group]).mean() for c, s in half_means(scores)]
    return float(np.mean(found))


def by_label(
    prompts: Sequence[str], labels: Mapping[str, Mapping[str, Hashable]]
) -> dict[str, list[Hashable]]:
    """Return each label's values in the order of the prompts; a label of one value tells nothing and is left out.

    Args:
        prompts: Prompt ids.
        labels: Prompt id -> label -> value; a label that a prompt lacks is None there.
    """
    names = sorted({name for prompt in prompts for name in labels[prompt]})
    columns = {name: [labels[prompt].get(name) for prompt in prompts] for name in names}
    return {name: values for name, values in columns.items() if len(set(map(repr, values))) > 1}
