"""The ceiling of an evaluation: what the best flow of a dense block, chosen for each prompt, scores."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowsmith.evaluation.cross_fitting import halves
from flowsmith.evaluation.dense_block import DenseBlock, DenseBlockError, dense_block
from flowsmith.evaluation.fairness import oracle_scores
from flowsmith.evaluation.statistics import Samples, mean_interval, paired_difference
from flowsmith.metrics.score import Score
from flowsmith.scored_flows import judge_values, read_scored_flows, replace_scores


def ceiling_block(
    path: Path | str, prompts: Collection[str], score: Score, renderer: str, weights: str
) -> DenseBlock:
    """Read the prompts of a dense block that are evaluated too, on the evaluation's scale.

    Args:
        path: The block's file or folder.
        prompts: Ids of the prompts that are evaluated.
        score: Weighs the block's judges.
        renderer: Version of the renderer that the block is compared with.
        weights: Hash of the weights of that renderer and its judges.

    Raises:
        DenseBlockError: It shares no prompt, is of other versions, or is no dense block.
        ScoreError: It lacks a judge that the score weighs.
        CrossFittingError: Its seeds cannot be halved.
    """
    table = read_scored_flows(path)
    there = [table[column][0].as_py() for column in ("renderer", "weights")]
    if there != [renderer, weights]:
        raise DenseBlockError(
            f"dense={path}: rendered by version {there[0]} with weights {there[1]}, this run renders by version "
            f"{renderer} with weights {weights} (judges' among them), so their scores cannot be compared; collect the "
            "block again, with the judges that are listed here, or leave dense out"
        )
    rows = table.filter(pc.is_in(table["prompt_id"], pa.array(sorted(prompts), pa.string())))
    if not len(rows):
        raise DenseBlockError(
            f"dense={path}: none of its prompts is evaluated, so it is no ceiling of this table; evaluate prompts that "
            "it has (data.path, data.splits), or leave dense out"
        )
    scored = replace_scores(rows, score.column(judge_values(rows)).tolist())
    block = dense_block(scored, f"dense={path}")
    halves(block.scores.shape[2])
    return block


def dense_oracle(block: DenseBlock, scores: Mapping[str, Samples]) -> dict[str, Any]:
    """Return what the oracle scores, and by how much it beats each designer, over the prompts that both have.

    Each prompt's flow is chosen on half of the seeds and scored on the other half, over all halves, so that luck is
    not counted as merit; a choice by more seeds would find better flows, so the true ceiling is no lower.

    Args:
        block: On the designers' scale of score.
        scores: Designer -> prompt -> values.
    """
    shared = block.only(set.intersection(*(set(samples) for samples in scores.values())))
    seeds = shared.scores.shape[2]
    own = {p: [float(v)] for p, v in zip(shared.prompts, oracle_scores(shared.scores), strict=True)}
    return {
        "score": mean_interval(own).to_json(),
        "paired": {
            name: paired_difference(own, {p: samples[p] for p in own}).to_json()
            for name, samples in scores.items()
        },
        "prompts": len(own),
        "flows": len(shared.flows),
        "seeds": seeds,
        "chosen_on": len(halves(seeds)[0][0]),
    }
