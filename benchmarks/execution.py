"""Is the executor as fast as it should be, and does it lose nothing? Measured in the miniature.

    python benchmarks/execution.py [--only PART ...] [--tasks N] [--precision float32] [--threads N]
        [--kill-samples N] [--kill-folder DIR] [--out runs/benchmarks/execution.json]

Parts: "plain" renders mixed tasks with the executor and node after node, one sample at a time; "pipelines" renders
those that a diffusers pipeline can do with one call each; "overhead" compares the executor with a loop written for one
flow; "kills" runs evaluate.py under kill -9 and compares what it leaves with an undisturbed run; "server" renders on
the ComfyUI server that FLOWSMITH_COMFYUI_URL names, with a random checkpoint in FLOWSMITH_COMFYUI_MODELS; "cuda"
renders 1024 x 1024 on a random checkpoint of SDXL's layout, where there is a CUDA device. A part that is not asked for
keeps the figures that the file has of it; what was never measured is null.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.strict_json import dumps
from flowsmith.evaluation.throughput.clocks import conditions, ratio, timed
from flowsmith.evaluation.throughput.kills import RunError, survive_kills
from flowsmith.evaluation.throughput.overhead import overhead
from flowsmith.evaluation.throughput.pipelines import pipeline_tasks, render_with_pipelines
from flowsmith.evaluation.throughput.plain_way import (
    against_the_plain_way,
    loaded_library,
    mixed_tasks,
    render_plainly,
)
from flowsmith.evaluation.throughput.sdxl import against_sdxl_pipeline
from flowsmith.evaluation.throughput.servers import against_a_server
from flowsmith.files import atomic_write
from flowsmith.prompts import read_prompts

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("runs/benchmarks/execution.json")
RECORDS = Path("../shared/comfyui/parity")
CHECKPOINT = "flowsmith_tiny_random.safetensors"
FIGURES = (
    "plain_ratio", "plain_ratio_without_reload", "plain_equal_pixel_share", "overhead_share", "comfyui_ratio",
    "kill_rows", "kill_rows_expected", "kill_images_equal",
)  # fmt: skip

Results = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 0, 1 if rows or pixels differ where they must not, 2 if nothing was measured."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    results: Results = dict.fromkeys(FIGURES)
    if options.out.is_file():
        results |= json.loads(options.out.read_text(encoding="utf-8"))
    try:
        for part in options.only or PARTS:
            print(f"{part} …", flush=True)
            results |= PARTS[part](options)
            results.setdefault("conditions", {})[part] = conditions(torch.get_num_threads())
            with atomic_write(options.out) as temporary:
                temporary.write_text(dumps(results), encoding="utf-8")
    except (FlowsmithError, RunError) as error:
        print(error, file=sys.stderr)
        return 2
    print(table(results))
    print(options.out)
    rows = results["kill_rows"] == results["kill_rows_expected"] and not results.get("kill_rows_repeated")
    pixels = results["plain_equal_pixel_share"] is None or results["plain_equal_pixel_share"] >= 0.999
    return 0 if rows and pixels and results["kill_images_equal"] in (None, True) else 1


def table(results: Results) -> str:
    """Lay the figures out, one a line, and what each part was measured under."""
    figures = {name: value for name, value in results.items() if name != "conditions"}
    lines = [f"{name:<46}{'-' if value is None else _shown(value):>12}" for name, value in figures.items()]
    lines += [""]
    for part, under in results.get("conditions", {}).items():
        lines.append(
            f"{part:<12}threads {under['threads']}, processors {under['processors']}, load {under['load']}"
        )
    return "\n".join(lines)


def _plain(options: argparse.Namespace) -> Results:
    return against_the_plain_way(_tasks(options), _models(options), options.batch_size, _dtype(options))


def _pipelines(options: argparse.Namespace) -> Results:
    tasks = pipeline_tasks(_tasks(options))
    seconds = render_with_pipelines(tasks, _models(options), _dtype(options))
    library = loaded_library(tasks, _models(options), _dtype(options))
    _, plain = timed(lambda: render_plainly(tasks, lambda: library))
    slower = ratio(seconds, plain)
    return {
        "pipeline_tasks": len(tasks),
        "pipeline_images_per_second": len(tasks) / seconds.wall,
        "pipeline_over_plain_seconds": slower["wall"],
        "pipeline_over_plain_cpu_seconds": slower["cpu"],
    }


def _overhead(options: argparse.Namespace) -> Results:
    return overhead(_models(options), "mini_base", repeats=options.repeats)


def _kills(options: argparse.Namespace) -> Results:
    miniature = options.miniature.resolve()
    prompts = read_prompts(miniature / "data" / "prompts.jsonl", "train")
    with tempfile.TemporaryDirectory(prefix="flowsmith-kills-") as scratch:
        folder = options.kill_folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        return survive_kills(
            folder.resolve(),
            ROOT / "evaluate.py",
            miniature,
            prompts,
            options.kill_samples,
            options.kill_every,
        )


def _server(options: argparse.Namespace) -> Results:
    url, models = (os.environ.get(f"FLOWSMITH_COMFYUI_{name}", "") for name in ("URL", "MODELS"))
    if not url or not models:
        print("no server: FLOWSMITH_COMFYUI_URL and FLOWSMITH_COMFYUI_MODELS name none", file=sys.stderr)
        return {"comfyui_ratio": None}
    file = Path(models) / "checkpoints" / CHECKPOINT
    if not file.exists():
        subprocess.run([sys.executable, RECORDS / "make_checkpoint.py", "tiny", file], check=True)
    return against_a_server(url, Path(models), CHECKPOINT)


def _cuda(options: argparse.Namespace) -> Results:
    if not torch.cuda.is_available():
        print("no CUDA device", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory(prefix="flowsmith-sdxl-") as folder:
        return against_sdxl_pipeline(Path(folder), "cuda")


PARTS: dict[str, Callable[[argparse.Namespace], Results]] = {
    "plain": _plain,
    "pipelines": _pipelines,
    "overhead": _overhead,
    "server": _server,
    "cuda": _cuda,
    "kills": _kills,
}


def _tasks(options: argparse.Namespace) -> Any:
    miniature = options.miniature
    prompts = read_prompts(miniature / "data" / "prompts.jsonl", "train")
    return mixed_tasks(miniature / "flows", miniature / "domain.yaml", prompts, options.tasks)


def _models(options: argparse.Namespace) -> Path:
    models: Path = options.miniature / "weights"
    return models


def _dtype(options: argparse.Namespace) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, options.precision)
    return dtype


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="what to measure (everything)")
    parser.add_argument("--miniature", type=Path, default=Path("miniature"), help="the embedded world")
    parser.add_argument("--tasks", type=int, default=200, help="mixed tasks (200)")
    parser.add_argument("--batch-size", type=int, default=32, help="most samples computed at once (32)")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"], help="of networks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (its own)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of the overhead (5)")
    parser.add_argument(
        "--kill-samples", type=int, default=10_000, help="samples of the killed run, a multiple of 20 (10000)"
    )
    parser.add_argument("--kill-every", type=int, default=500, help="rows between two kills (500)")
    parser.add_argument(
        "--kill-folder",
        type=Path,
        help="keep the runs here; a start that was stopped (Ctrl-C) goes on from them",
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
