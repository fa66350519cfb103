"""From a dense block to what ``fairness.json`` holds: every measure of how fair the world is that it samples."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from flowsmith.evaluation.category_tables import by_label, table_share
from flowsmith.evaluation.component_effects import component_effect, gain_of
from flowsmith.evaluation.cross_fitting import Scores, half_means
from flowsmith.evaluation.dense_block import DenseBlock
from flowsmith.evaluation.fairness import best_probabilities, looks_best, noise_ceiling, oracle_gap
from flowsmith.evaluation.one_component import one_component_pairs, schema_of
from flowsmith.evaluation.statistics import Interval
from flowsmith.evaluation.variance_components import VarianceComponents, variance_components
from flowsmith.flows import Flow


def fairness_results(
    block: DenseBlock, labels: Mapping[str, Mapping[str, Hashable]], *, resamples: int = 4000
) -> dict[str, Any]:
    """Return all measures, in standard deviations of single-image score; the keys are those of ``fairness.json``.

    Args:
        block: At least 4 seeds, an even number.
        labels: Prompt id -> label -> value, for every prompt of the block; each label is tried by itself.
        resamples: Bootstrap samples of prompts for the intervals.
    """
    scores = block.standardised
    variance = variance_components(scores)
    gap = oracle_gap(scores, variance, resamples=resamples)
    categories = {
        name: {"values": len(set(map(repr, values))), **asdict(table_share(scores, values, gap.gap.mean))}
        for name, values in by_label(block.prompts, labels).items()
    }
    shares = [category["share"] for category in categories.values() if not math.isnan(category["share"])]
    ceiling = noise_ceiling(scores)
    components = component_results(block, resamples=resamples)
    top = _top_flow(block, scores, variance)
    return {
        "block": {
            "prompts": len(block.prompts),
            "flows": len(block.flows),
            "seeds": scores.shape[2],
            "failed_images": int(block.failed.sum()),
            "score_sd": float(block.scores.std()),
        },
        "oracle_gap": {**_value(gap.gap), "shrunken": _value(gap.shrunken), "naive": gap.naive},
        "top_flow_share": top["share"],
        "top_flow": top,
        "category_share": max(shares, default=math.nan),
        "categories": categories,
        "variance": _variance(variance),
        "judge_noise_ceiling": ceiling.means,
        "judge_noise": asdict(ceiling),
        "component_effect": {kind: found["value"] for kind, found in components.items()},
        "components": components,
    }


def component_results(block: DenseBlock, *, resamples: int = 4000) -> dict[str, dict[str, Any]]:
    """Return the effect of every kind of component; NaN where no two flows of the block differ in it alone."""
    schema = schema_of(block.templates)
    flows = {key: Flow.from_template(block.templates[key], schema) for key in block.flows}
    scores, place = block.standardised, {key: i for i, key in enumerate(block.flows)}
    results: dict[str, dict[str, Any]] = {}
    for kind, pairs in one_component_pairs(flows, schema).items():
        if not pairs:
            nothing = {"value": math.nan, "ci95": [math.nan, math.nan], "pairs": []}
            results[kind] = {**nothing, "by": "no two flows differ in it alone"}
            continue
        changes = np.stack([scores[:, place[p.after]] - scores[:, place[p.before]] for p in pairs])
        effect = component_effect(changes, resamples=resamples)
        chosen = pairs[effect.change]
        results[kind] = {
            **_value(effect.gain),
            "varies": _value(effect.varies),
            "by": chosen.change if effect.forward else chosen.undone,
            "pairs": [
                {
                    **asdict(pair),
                    "names": [block.names[pair.before], block.names[pair.after]],
                    "mean": float(change.mean()),
                    "gain": gain_of(change),
                    "gain_of_undoing": gain_of(-change),
                }
                for pair, change in zip(pairs, changes, strict=True)
            ],
        }
    return results


def _top_flow(block: DenseBlock, scores: Scores, variance: VarianceComponents) -> dict[str, Any]:
    """Return the flow that is best on most prompts, by probability, and what less careful ways would say."""
    share = best_probabilities(scores, variance).mean(0)
    halves = [looks_best(half).mean(0) for half, _ in half_means(scores)]
    key = block.flows[int(share.argmax())]
    return {
        "share": float(share.max()),
        "flow": key,
        "name": block.names[key],
        "looks_best_on_all_seeds": float(looks_best(scores.mean(2)).mean(0).max()),
        "looks_best_on_half_of_the_seeds": float(np.mean(halves, axis=0).max()),
    }


def _variance(variance: VarianceComponents) -> dict[str, Any]:
    parts = {name: getattr(variance, name) for name in ("prompt", "flow", "interaction", "seed")}
    clipped = {name: max(0.0, value) for name, value in parts.items()}
    return {
        **parts,
        "seed_parts": {"main": variance.seed_main, "residual": variance.seed_residual},
        "shares": {name: value / sum(clipped.values()) for name, value in clipped.items()},
    }


def _value(interval: Interval) -> dict[str, Any]:
    return {"value": interval.mean, "ci95": [interval.low, interval.high]}
