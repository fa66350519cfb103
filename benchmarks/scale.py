"""What GRPO with LoRA on 80 GB GPUs needs and gives: computed from shapes and data sheets, nothing is measured.

    python benchmarks/scale.py [--prompts 32] [--flow 100] [--micro_tokens 8192] [--operations 0.35] [--bandwidth 0.6]
        [--out runs/benchmarks/scale.json]

Prints the tables of docs/scale.md. Every setting of a cycle is an option.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from flowsmith.evaluation.scale import FP32, GPU, Shape, Share, Work, cycle, memory
from flowsmith.files import atomic_write

OUT = Path("runs/benchmarks/scale.json")
# As in the config.json of each.
SHAPES = (
    Shape("Qwen/Qwen2.5-7B-Instruct", 3584, 28, 28, 4, 128, 18944, 152064, bias=True),
    Shape("meta-llama/Llama-3.1-8B-Instruct", 4096, 32, 32, 8, 128, 14336, 128256, bias=False),
)
# NVIDIA's data sheets, SXM, without sparsity.
GPUS = (GPU("A100 80 GB", 80e9, 312e12, 2.039e12, 300e9), GPU("H100 80 GB", 80e9, 989e12, 3.35e12, 450e9))
SIZES = ((1, 1), (1, 8), (4, 8))  # nodes, GPUs on each


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute, write and print; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work, share = Work(), Share()
    for field in fields(Work):
        default = getattr(work, field.name)
        parser.add_argument(f"--{field.name}", type=type(default), default=default, help=f"({default})")
    parser.add_argument("--operations", type=float, default=share.operations, help=f"({share.operations})")
    parser.add_argument("--bandwidth", type=float, default=share.bandwidth, help=f"({share.bandwidth})")
    parser.add_argument("--launches", type=float, default=share.launches, help=f"seconds ({share.launches})")
    parser.add_argument("--network", type=float, default=share.network, help=f"bytes/s ({share.network})")
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    options = parser.parse_args(arguments)
    work = Work(**{field.name: getattr(options, field.name) for field in fields(Work)})
    share = Share(options.operations, options.bandwidth, options.launches, options.network)
    held = {shape.name: memory(shape, work) for shape in SHAPES}
    print(memory_table(held))
    print()
    print(alternatives(work))
    print()
    times = [
        {
            "model": shape.name, "gpu": gpu.name, "decoding": decoding, "gpus": nodes * each, "nodes": nodes,
            **asdict(one := cycle(shape, gpu, work, shares, nodes * each, nodes)),
            "sampled_per_second": one.sampled / one.rollout,
            "trained_per_second": one.trained / one.update,
            "flows_per_hour": nodes * each * work.prompts * work.samples * 3600 / one.seconds,
        }
        for shape in SHAPES
        for gpu in GPUS
        for decoding, shares in (("kernel by kernel", share), ("graphs", replace(share, launches=0.0)))
        for nodes, each in SIZES
    ]  # fmt: skip
    print(time_table(times))
    with atomic_write(options.out) as temporary:
        temporary.write_text(
            json.dumps({"work": asdict(work), "memory": held, "times": times}, indent=1) + "\n"
        )
    print()
    print(options.out)
    return 0


def memory_table(held: dict[str, dict[str, float]]) -> str:
    """Return gigabytes (1e9 bytes) a GPU, a model a column."""
    lines = [f"| GB on each GPU | {' | '.join(held)} |", "|---" * (1 + len(held)) + "|"]
    for row in next(iter(held.values())):
        name = "**peak**" if row == "total" else row
        lines.append(f"| {name} | {' | '.join(f'{column[row] / 1e9:.2f}' for column in held.values())} |")
    return "\n".join(lines)


def alternatives(work: Work) -> str:
    """Return what two other ways would take, GB for each model."""
    kept = [shape.layers * shape.kept_of_a_layer(work.rank) * work.micro_tokens / 1e9 for shape in SHAPES]
    full = [4 * FP32 * shape.parameters() / 1e9 for shape in SHAPES]
    return (
        f"Without gradient checkpointing the layers would keep {' and '.join(f'{each:.0f}' for each in kept)} GB. "
        f"All numbers trained in fp32, with gradients and moments: {' and '.join(f'{each:.0f}' for each in full)} GB."
    )


def time_table(times: Sequence[dict[str, Any]]) -> str:
    """Return a row a model, card and way of decoding; seconds and tokens of one GPU, flows of all."""
    phases = ("rollout", "reward", "reference", "update", "reduce")
    lines = [
        f"| model | GPU | decoding | s a cycle: {' + '.join(phases)} | tokens/s a GPU: sampled, trained "
        "| flows an hour on 1, 8, 4 x 8 GPUs |",
        "|---" * 6 + "|",
    ]
    for start in range(0, len(times), len(SIZES)):
        rows = times[start : start + len(SIZES)]
        last = rows[-1]
        seconds = " + ".join(f"{last[name]:.2f}" for name in phases)
        flows = ", ".join(f"{row['flows_per_hour']:,.0f}" for row in rows)
        rates = f"{last['sampled_per_second']:,.0f}, {last['trained_per_second']:,.0f}"
        name = last["model"].partition("/")[2]
        lines.append(f"| {name} | {last['gpu']} | {last['decoding']} | {seconds} | {rates} | {flows} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
