"""Is the miniature a fair testbed? Measured on its dense block of scored flows.

    python benchmarks/fairness.py [--dense PATH] [--prompts PATH] [--column score] [--out runs/benchmarks/fairness.json]
        [--strict]

A world is fair if the right flow depends on the prompt: choosing per prompt gains over the best fixed flow, no single
label of a prompt tells what to choose, no flow is best on many prompts, and every kind of component matters
somewhere.
"""

import argparse
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.dense_block import DenseBlockError, dense_block
from flowsmith.evaluation.fairness_results import fairness_results
from flowsmith.evaluation.fairness_table import fairness_table, verdicts
from flowsmith.evaluation.strict_json import dumps
from flowsmith.files import atomic_write
from flowsmith.prompts import Prompt, read_prompts
from flowsmith.scored_flows import read_scored_flows

DENSE = Path("miniature/data/collection/dense.parquet")
PROMPTS = Path("miniature/data/prompts.jsonl")
OUT = Path("runs/benchmarks/fairness.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 0, with --strict 1 if a verdict is FAIL, 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dense", type=Path, default=DENSE, help=f"parquet of scored flows ({DENSE})")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help=f"facts of its prompts ({PROMPTS})")
    parser.add_argument(
        "--column", default="score", help="what is measured: score, or one judge, as judge_preference (score)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    parser.add_argument("--resamples", type=int, default=4000, help="bootstrap samples of prompts (4000)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a verdict is FAIL")
    options = parser.parse_args(arguments)
    try:
        if not options.dense.exists():
            raise DenseBlockError(
                f"dense={options.dense}: it is not there; make one: python evaluate.py --config dense.yaml, and give "
                "--dense runs/dense/export/scored_flows.parquet"
            )
        table = read_scored_flows(options.dense)
        if options.column not in table.column_names:
            judges = [name for name in table.column_names if name.startswith("judge_")]
            raise DenseBlockError(
                f"column={options.column}: {options.dense} has no such column; name score or one of "
                f"{', '.join(judges)}"
            )
        scored = table.set_column(table.column_names.index("score"), "score", table[options.column])
        block = dense_block(scored, str(options.dense))
        known = {prompt.id: prompt for prompt in read_prompts(options.prompts)}
        missing = [prompt for prompt in block.prompts if prompt not in known]
        if missing:
            raise DenseBlockError(
                f"prompts={options.prompts}: {len(missing)} prompts of the block are not in it, {missing[0]} "
                "the first; give the file that the block was rendered from"
            )
        labels = {prompt: labels_of(known[prompt]) for prompt in block.prompts}
        results = fairness_results(block, labels, resamples=options.resamples)
    except FlowsmithError as error:
        print(error, file=sys.stderr)
        return 2
    found = verdicts(results)
    results["verdicts"] = {v.name: {"passes": v.passes, "asked": v.asked} for v in found}
    with atomic_write(options.out) as temporary:
        temporary.write_text(dumps(results), encoding="utf-8")
    print(fairness_table(results))
    print(options.out)
    return int(options.strict and not all(verdict.passes for verdict in found))


def labels_of(prompt: Prompt) -> dict[str, Hashable]:
    """Return every label that a table of best flows could go by: the task and each fact by itself.

    Facts of the groups are joined over groups, in one order; counts are added up, and ``groups`` is how many there
    are.
    """
    groups = prompt.facts.get("groups") or []
    labels: dict[str, Hashable] = {"task": prompt.task}
    labels |= {name: str(value) for name, value in prompt.facts.items() if name != "groups"}
    for name in {name for group in groups for name in group}:
        values = [group.get(name) for group in groups]
        labels[name] = sum(values) if name == "count" else "+".join(sorted(map(str, values)))
    return labels | {"groups": len(groups)}


if __name__ == "__main__":
    sys.exit(main())
