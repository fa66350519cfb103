"""How fast is a cycle of GRPO here, beside TRL's GRPOTrainer on the same work? Measured in turns, in one process.

    python benchmarks/grpo_vs_trl.py [--model small|large|both] [--repetitions N] [--parts steps memory ...]
        [--out runs/benchmarks/grpo_vs_trl.json]

Both train the same random Llama from the same weights on as many tokens, with the same loss (checked: the losses on
the same rollouts are printed). The grammar is off in that comparison; writing flows under it is measured beside it.
With a CUDA device there is also a model of half a billion parameters in bfloat16. What was measured earlier, of other
models or other parts, stays in the file, which is written after each part. TRL comes with the extra ``bench``; without
it, what needs it is null.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.side_by_side.measure import PARTS, Setting, machine, measure
from flowsmith.evaluation.side_by_side.table import table
from flowsmith.evaluation.side_by_side.work import HALF_BILLION, LARGE, SMALL
from flowsmith.evaluation.strict_json import dumps
from flowsmith.files import atomic_write

DOMAIN = Path("miniature/domain.yaml")
PROMPTS = Path("miniature/data/prompts.jsonl")
SCORED_FLOWS = Path("miniature/data/collection/scored_flows.parquet")
OUT = Path("runs/benchmarks/grpo_vs_trl.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 0, or 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("small", "large", "both"), default="both", help="which (both)")
    parser.add_argument("--repetitions", type=int, default=6, help="of whatever is timed (6)")
    parser.add_argument(
        "--domain", type=Path, default=DOMAIN, help=f"of the flows that are written ({DOMAIN})"
    )
    parser.add_argument(
        "--prompts", type=Path, default=PROMPTS, help=f"for which they are written ({PROMPTS})"
    )
    parser.add_argument(
        "--scored-flows",
        type=Path,
        default=SCORED_FLOWS,
        help=f"from which those who write them learn first ({SCORED_FLOWS})",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help=f"what is measured ({' '.join(PARTS)})"
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    options = parser.parse_args(arguments)
    if options.repetitions < 1:
        parser.error(f"repetitions={options.repetitions}: use 1 or more")
    _quiet()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(device, options.repetitions, options.domain, options.prompts, options.scored_flows)
    works = {"small": [SMALL], "large": [LARGE], "both": [SMALL, LARGE]}[options.model]
    results: dict[str, Any] = {"details": {}}
    if options.out.exists():
        results |= json.loads(options.out.read_text(encoding="utf-8"))
    results["machine"] = machine(device)
    try:
        for work in [*works, *([HALF_BILLION] if device.type == "cuda" else [])]:
            for figures, details in measure(work, setting, options.parts, results["details"].get(work.name)):
                results[work.name], results["details"][work.name] = figures, details
                with atomic_write(options.out) as temporary:
                    temporary.write_text(dumps(results), encoding="utf-8")
    except FlowsmithError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(results))
    print(options.out)
    return 0


def _quiet() -> None:
    """Keep what the libraries say of themselves out of the table; nothing is looked up in the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.simplefilter("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
