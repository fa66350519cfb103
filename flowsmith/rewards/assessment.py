"""What is known of an ensemble from rows that it was not trained on, as one flat table for the logger."""

from collections.abc import Sequence

from torch import Tensor

from flowsmith.rewards.calibration import held_out_coverage
from flowsmith.rewards.ranking import rank_within_prompts
from flowsmith.rewards.splits import PARTS, Part


def assess(
    scores: Tensor, truth: Tensor, prompt_ids: Sequence[str], parts: Sequence[Part]
) -> dict[str, float]:
    """Measure order, size and doubt, by what is new in a row.

    Args:
        scores: Each member's standardised scores [members, n].
        truth: Standardised scores [n].
        prompt_ids: Prompt of each row.
        parts: Part of each row; parts without rows are left out.

    Returns:
        For each part ``spearman/<part>`` (rank correlation within prompts of the ensemble's mean),
        ``pairwise/<part>`` (share of pairs ordered right), ``ensemble_gain/<part>`` (spearman of the mean less the mean
        spearman of the members), ``rmse/<part>``, ``disagreement/<part>`` (before scaling), and ``coverage``: how many
        rows lie within calibrated mean ± std, each half of the prompts calibrated on the other; 0.68 is right.
        What cannot be measured is nan.
    """
    mean, disagreement = scores.mean(0), scores.std(0)
    measured = {"coverage": held_out_coverage(mean, disagreement, truth, prompt_ids)}
    for part in PARTS:
        rows = [index for index, name in enumerate(parts) if name == part]
        if not rows:
            continue
        ids = [prompt_ids[index] for index in rows]
        ranking = rank_within_prompts(mean[rows], truth[rows], ids)
        members = [rank_within_prompts(member[rows], truth[rows], ids).spearman for member in scores]
        measured |= {
            f"spearman/{part}": ranking.spearman,
            f"pairwise/{part}": ranking.pairwise,
            f"ensemble_gain/{part}": ranking.spearman - sum(members) / len(members),
            f"rmse/{part}": float((mean[rows] - truth[rows]).square().mean().sqrt()),
            f"disagreement/{part}": float(disagreement[rows].mean()),
        }
    return measured
