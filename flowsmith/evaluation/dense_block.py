"""A dense block: every one of P prompts rendered with every one of F flows and S seeds, as one array of scores.

Only such a block tells what depends on prompt and flow together: with seeds common to all flows of a prompt, luck of
the noise is separated from merit of the flow.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowsmith.errors import FlowsmithError

_NAMED = 3  # cells that an error names


class DenseBlockError(FlowsmithError):
    """Rows that are no dense block."""


@dataclass(frozen=True)
class DenseBlock:
    """Scores of all combinations; prompts, flows and a prompt's seeds are sorted, whatever order the rows had.

    Attributes:
        prompts: Prompt ids [P].
        flows: Flow keys [F].
        scores: float64 [P, F, S]; an image that failed has the worst score of the block.
        failed: Which images failed [P, F, S].
        tasks: Prompt id -> GenEval's task.
        templates: Flow key -> templated API JSON.
        names: Flow key -> name of the hand-written flow that it descends from, or "".
    """

    prompts: tuple[str, ...]
    flows: tuple[str, ...]
    scores: NDArray[np.float64]
    failed: NDArray[np.bool_]
    tasks: Mapping[str, str]
    templates: Mapping[str, str]
    names: Mapping[str, str]

    @property
    def standardised(self) -> NDArray[np.float64]:
        """The scores in standard deviations of single-image score, taken over all images of the block.

        Raises:
            DenseBlockError: All scores are equal.
        """
        if np.ptp(self.scores) == 0:
            raise DenseBlockError(
                f"all {self.scores.size} images score {self.scores.flat[0]}: there is no standard deviation to "
                "measure in; see what the judges gave, or why every image failed"
            )
        return np.asarray(self.scores / self.scores.std())

    def only(self, prompts: Collection[str]) -> "DenseBlock":
        """Return the block of some of its prompts; others that are named are left out."""
        kept = [place for place, prompt in enumerate(self.prompts) if prompt in prompts]
        return replace(
            self,
            prompts=tuple(self.prompts[place] for place in kept),
            scores=self.scores[kept],
            failed=self.failed[kept],
        )


def dense_block(table: pa.Table, source: str = "dense block") -> DenseBlock:
    """Arrange scored rows.

    Args:
        table: Scored flows of one version, in any order; who proposed a flow is not looked at.
        source: What errors call the table.

    Raises:
        DenseBlockError: A combination is missing or stands twice, a rendered row has no score, or nothing was
            rendered at all.
    """
    rows: list[dict[str, Any]] = table.to_pylist()
    unscored = sum(row["status"] == "ok" and row["score"] is None for row in rows)
    if unscored:
        raise DenseBlockError(
            f"{source}: {unscored} rendered rows have no score; fit one, or give the score's file"
        )
    scored = [float(row["score"]) for row in rows if row["status"] == "ok"]
    if not scored:
        raise DenseBlockError(f"{source}: none of its {len(rows)} rows was rendered; see their errors")
    prompts, flows = sorted({r["prompt_id"] for r in rows}), sorted({r["flow_key"] for r in rows})
    seeds: dict[str, list[int]] = {
        prompt: sorted(found) for prompt, found in _grouped(rows).items()
    }  # by prompt: noise derives from the prompt's id
    _check_cells(rows, prompts, flows, seeds, source)
    shape = (len(prompts), len(flows), len(next(iter(seeds.values()))))
    scores, failed = np.full(shape, min(scored)), np.zeros(shape, bool)
    place_of = [{name: place for place, name in enumerate(names)} for names in (prompts, flows)]
    for row in rows:
        prompt = row["prompt_id"]
        cell = place_of[0][prompt], place_of[1][row["flow_key"]], seeds[prompt].index(row["seed"])
        failed[cell] = row["status"] != "ok"
        if not failed[cell]:
            scores[cell] = row["score"]
    return DenseBlock(
        tuple(prompts),
        tuple(flows),
        scores,
        failed,
        tasks={row["prompt_id"]: row["task"] for row in rows},
        templates={row["flow_key"]: row["flow"] for row in rows},
        names={row["flow_key"]: row["base_flow"] for row in rows},
    )


def _grouped(rows: list[dict[str, Any]]) -> dict[str, set[int]]:
    seeds: dict[str, set[int]] = {}
    for row in rows:
        seeds.setdefault(row["prompt_id"], set()).add(row["seed"])
    return seeds


def _check_cells(
    rows: list[dict[str, Any]], prompts: list[str], flows: list[str], seeds: dict[str, list[int]], source: str
) -> None:
    """Check that every combination is there once."""
    there = Counter((row["prompt_id"], row["flow_key"], row["seed"]) for row in rows)
    missing = [(p, f, s) for p in prompts for f in flows for s in seeds[p] if (p, f, s) not in there]
    if missing:
        raise DenseBlockError(
            f"{source}: {len(missing)} of {len(missing) + len(there)} combinations are missing: {_told(missing)}. "
            "Every prompt needs every flow with the same seeds; start its collection again, it goes on where it "
            "stopped"
        )
    twice = [cell for cell, times in there.items() if times > 1]
    if twice:
        raise DenseBlockError(
            f"{source}: {len(twice)} combinations stand twice: {_told(twice)}. Keep the rows of one designer"
        )
    numbers = {prompt: len(found) for prompt, found in seeds.items()}
    usual = Counter(numbers.values()).most_common(1)[0][0]
    odd = [prompt for prompt, number in numbers.items() if number != usual]
    if odd:
        raise DenseBlockError(
            f"{source}: {len(odd)} prompts have another number of seeds than the {usual} of the others: "
            f"{', '.join(odd[:_NAMED])}. Render all with equally many"
        )


def _told(cells: list[tuple[str, str, int]]) -> str:
    told = "; ".join(f"prompt {p}, flow {f}, seed {s}" for p, f, s in sorted(cells)[:_NAMED])
    return told + ("; ..." if len(cells) > _NAMED else "")
