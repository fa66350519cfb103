"""`python -m miniature.judges.agreement`: what the judges say of fresh generated pictures.

Two questions. Do they see what the exact checker sees (area under the ROC curve against its verdicts)? And does a flow
that does nothing but sharpen gain by it? It should not: whether sharpness is liked depends on the picture. The answers
are printed and written to `runs/miniature/agreement.json`.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu

from flowsmith.files import atomic_write
from flowsmith.metrics import AestheticScore, ClipScore, Judge, PreferenceScore
from flowsmith.metrics.aesthetic import HEAD
from flowsmith.metrics.score import Score
from miniature.captions import TASKS, sample_prompt
from miniature.checker import check
from miniature.judges.generated import FLOWS, flow_of, render_prompts

# The same as the default flow but for the last node; the domain offers the first three, ComfyUI proposes the last.
SHARPENED = {f"sharpened {alpha}": alpha for alpha in (0.05, 0.1, 0.2, 1.0)}
SCORE = {"clip_score": 1.0, "aesthetic": 1.0, "preference": 1.0}


def load_judges(folder: Path) -> dict[str, Judge]:
    """Load the miniature's judges by name from ``weights/judges``."""
    clip = ClipScore(folder / "clip")
    held_out = PreferenceScore(folder / "preference_held_out", name="preference_held_out")
    judges = [clip, AestheticScore(clip.encoder, folder / "aesthetic" / HEAD)]
    judges += [PreferenceScore(folder / "preference"), held_out]
    return {judge.name: judge for judge in judges}


def generated_auc(
    models: Path,
    judges: Mapping[str, Judge],
    *,
    seed: int,
    number: int = 120,
    weights: Mapping[str, float] = SCORE,
) -> dict[str, Any]:
    """Render validation prompts with several flows and compare the judges with the checker.

    Args:
        models: Root of the weights.
        judges: By name.
        seed: Of prompts and noise.
        number: Of prompts; the six tasks take turns.
        weights: Of the judges in the score.

    Returns:
        ``auc`` (judge or "score" -> value); ``sharpening`` (flow -> judge or "score" -> mean gain over the default
        flow, in standard deviations of single pictures by the flows that do not sharpen); ``pictures`` by these flows;
        ``right`` (share of the checker's verdicts) and ``abstained`` (share of pictures of which it would not say).
    """
    rng = np.random.default_rng(seed + 110_000)
    prompts = [sample_prompt(TASKS[i % len(TASKS)], i, "validation", rng) for i in range(number)]
    flows = {name: flow_of(**changes) for name, changes in FLOWS.items()}
    flows |= {name: flow_of(sharpen=alpha) for name, alpha in SHARPENED.items()}
    found = render_prompts(prompts, flows, models, seed + 11)
    pictures = [torch.from_numpy(one.picture).permute(2, 0, 1) for one in found]
    flow = np.array([one.flow for one in found])
    plain = np.isin(flow, list(FLOWS))
    values = {
        name: judge.judge(pictures, [one.prompt for one in found]).double().numpy()
        for name, judge in judges.items()
    }
    score = Score.fit({name: column[plain] for name, column in values.items()}, weights)
    values["score"] = score.column(values)
    verdicts = [check(one.picture, one.prompt.facts) for one in found]
    said = plain & np.array([verdict is not None for verdict in verdicts])
    right = np.array([verdict is True for verdict in verdicts])
    return {
        "auc": {name: auc(column[said], right[said]) for name, column in values.items()},
        "sharpening": {
            name: {
                judge: float((column[flow == name] - column[flow == "default"]).mean() / column[plain].std())
                for judge, column in values.items()
            }
            for name in SHARPENED
        },
        "pictures": int(plain.sum()),
        "right": float(right[said].mean()),
        "abstained": float(1 - said.sum() / plain.sum()),
    }


def auc(values: ArrayLike, right: Sequence[bool] | np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """Return how often a right picture has a higher value than a wrong one, ties as half; nan without both kinds."""
    values, right = np.asarray(values, float), np.asarray(right)
    if right.all() or not right.any():
        return float("nan")
    return float(mannwhitneyu(values[right], values[~right]).statistic / (right.sum() * (~right).sum()))


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("miniature/weights"), help="root of the weights")
    parser.add_argument("--out", type=Path, default=Path("runs/miniature/agreement.json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=120, help="prompts; ten pictures each")
    options = parser.parse_args()
    found = generated_auc(
        options.models, load_judges(options.models / "judges"), seed=options.seed, number=options.number
    )
    print(
        f"{found['pictures']} pictures, {found['right']:.0%} right by the checker, {found['abstained']:.0%} abstained"
    )
    print("AUC against the checker: " + ", ".join(f"{k} {v:.3f}" for k, v in found["auc"].items()))
    for name, gains in found["sharpening"].items():
        print(f"{name}: gain in sd: " + ", ".join(f"{k} {v:+.3f}" for k, v in gains.items()))
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
