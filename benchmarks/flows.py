"""Can Flowsmith read, write, check and write anew the workflows that people have? Measured on a folder of files.

    python benchmarks/flows.py [--folder DIR] [--schema FILE_OR_URL] [--walks N] [--records FILE]
        [--captions FILE] [--out runs/benchmarks/flows.json]

Every workflow file of the folder (JSON in either format, PNG, WebP) is imported. The flows of those whose classes
are the server's own go through the tokens of a domain made of them all; then the grammar of that domain writes flows
at random, and each is validated. What needs a file that is not there is null.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.grammar_walks import mask_growth, walk
from flowsmith.evaluation.imported_files import Measured, agreement, import_folder, validator_time
from flowsmith.evaluation.strict_json import dumps
from flowsmith.evaluation.token_ratios import captions_of, classes_of, round_trips
from flowsmith.files import atomic_write
from flowsmith.flows import Schema

RECORDS = Path("../shared/comfyui")
CAPTIONS = Path("miniature/data/prompts.jsonl")
OUT = Path("runs/benchmarks/flows.json")
FIGURES = (
    "files", "imported", "reported", "crashed", "roundtrip_ok", "roundtrip_total", "token_ratio_median",
    "walks", "walks_valid", "mask_us", "validator_us", "recorded_agree", "recorded_total",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 0, 1 if something crashed or failed, 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=RECORDS / "workflows", help="workflow files")
    parser.add_argument(
        "--schema",
        default=str(RECORDS / "object_info_0.33.0.json"),
        help="object_info dump, or a server's URL",
    )
    parser.add_argument(
        "--frequencies", type=Path, default=RECORDS / "t2i_node_frequency.json",
        help="list of node classes to walk over besides the folder's own",
    )  # fmt: skip
    parser.add_argument(
        "--records", type=Path, default=RECORDS / "server_errors.json", help="answers of a server"
    )
    parser.add_argument(
        "--captions", type=Path, default=CAPTIONS, help=f"what BPE learns besides JSON ({CAPTIONS})"
    )
    parser.add_argument("--walks", type=int, default=20_000, help="random flows (20000)")
    parser.add_argument("--budget", type=int, default=250, help="most tokens of one of them (250)")
    parser.add_argument("--pieces", type=int, default=1024, help="size of the text vocabulary (1024)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = dict.fromkeys(FIGURES)
    try:
        results |= measure(options)
    except FlowsmithError as error:
        print(error, file=sys.stderr)
        return 2
    with atomic_write(options.out) as temporary:
        temporary.write_text(dumps(results), encoding="utf-8")
    print(table(results))
    print(options.out)
    good = not results["crashed"] and all(
        results[part] == results[whole]
        for part, whole in (("roundtrip_ok", "roundtrip_total"), ("walks_valid", "walks"))
    )
    return 0 if good else 1


def measure(options: argparse.Namespace) -> Measured:
    """Return all figures that the files at hand allow."""
    is_url = options.schema.lower().startswith(("http://", "https://"))
    if not is_url and not Path(options.schema).is_file():
        print(f"schema={options.schema}: it is not there; nothing but nulls without it", file=sys.stderr)
        return {}
    schema = Schema.load(options.schema)
    found: Measured = agreement(options.records, schema)
    if not options.folder.is_dir():
        print(f"folder={options.folder}: it is not there; name a folder of workflow files", file=sys.stderr)
        return found
    flows, counts = import_folder(options.folder, schema)
    found |= counts
    if not flows:
        return found
    wide = round_trips(
        flows, schema, captions_of(options.captions), options.pieces, classes_of(options.frequencies)
    )
    found |= wide.figures
    found |= validator_time(flows, wide.schema)
    found |= walk(wide.codec, options.walks, options.budget)
    found["mask_growth"] = mask_growth(wide, options.budget)
    return found


def table(results: Measured) -> str:
    """Lay the figures out, one a line, and how the time of a mask grows."""
    rows = [(name, value) for name, value in results.items() if not isinstance(value, list)]
    lines = [f"{name:<34}{'-' if value is None else _shown(value):>12}" for name, value in rows]
    growth = results.get("mask_growth") or []
    if growth:
        lines += ["", "mask, cold, as the domain grows", f"{'classes':>10}{'tokens':>10}{'µs':>10}"]
        lines += [f"{row['classes']:>10}{row['tokens']:>10}{row['mask_us']:>10.1f}" for row in growth]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
