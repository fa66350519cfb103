"""Do the judges say what their weights say, and how many images a second do they judge?

    python benchmarks/judges.py [--weights DIR] [--images 16] [--size 512] [--device cuda] [--precision bfloat16]
        [--judges aesthetic,hps_v21] [--out runs/benchmarks/judges.json]

Without weights, random models of the authors' formats are written and judged: small ones, so their speed is none of
the real models'. A folder of real ones is laid out as docs/judges.md says; a judge whose files are not there is left
out. Each judge is compared with a computation from its files' tensors by hand, in double precision, on images that
are no squares; of CLIPScore and PickScore the cosine is compared, of GenEval the scores of what the detector finds.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.strict_json import dumps
from flowsmith.files import atomic_write
from flowsmith.metrics import ClipEncoder, GenEval, ImageBatch, Judge, JudgeError
from flowsmith.metrics.published.random_models import write_judges
from flowsmith.metrics.published.table import JUDGES
from flowsmith.prompts import Prompt

OUT = Path("runs/benchmarks/judges.json")
TEXTS = ("a red cat", "two photos of dogs, in the rain", "a cat's chair", "the 3rd zebra-crossing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; return 0, 1 if a judge is off its reference, 2 if nothing could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="folder of real weights; without it, random small ones")
    parser.add_argument("--images", type=int, default=16, help="images judged at once (16)")
    parser.add_argument("--size", type=int, default=512, help="shorter side of the images (512)")
    parser.add_argument("--checked", type=int, default=3, help="images compared with the reference (3)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--judges", default=",".join(JUDGES), help=f"some of {', '.join(JUDGES)} (all)")
    parser.add_argument(
        "--tolerance", type=float, help="most difference (1e-5; 1e-3 on CUDA; 0.2 for bfloat16)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"what is written ({OUT})")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.weights or Path(scratch)
            if options.weights is None:
                write_judges(folder)
            results = measure(folder, options)
    except FlowsmithError as error:
        print(error, file=sys.stderr)
        return 2
    with atomic_write(options.out) as temporary:
        temporary.write_text(dumps(results), encoding="utf-8")
    print(table(results))
    print(options.out)
    tolerance = options.tolerance
    if tolerance is None:
        tolerance = default_tolerance(options.device, options.precision)
    return int(results["together"]["reference_max_difference"] > tolerance)


def default_tolerance(device: str, precision: str) -> float:
    """Return how far single precision, a GPU's matrix products, or bfloat16 may be from the reference."""
    if precision == "bfloat16":
        return 0.2
    return 1e-5 if device == "cpu" else 1e-3


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return both figures of each judge, and of all of them together on one batch."""
    names = [name.strip() for name in options.judges.split(",")]
    if unknown := sorted(set(names) - JUDGES.keys()):
        raise JudgeError(
            f"judges={options.judges}: there is no {unknown[0]}; name some of {', '.join(JUDGES)}"
        )
    images, prompts = pictures(options.images, options.size), asked(options.images)
    results: dict[str, Any] = {}
    judges: dict[str, Judge] = {}
    for name in names:
        entry = JUDGES[name]
        if missing := [need for need in entry.needs if not (folder / need).exists()]:
            print(f"{name}: no {missing[0]} in {folder}, left out", file=sys.stderr)
            continue
        judge = entry.load(folder, options.precision).to(options.device)
        judges[name] = judge
        results[name] = {
            "images_per_second": speed(partial(judge.judge, images, prompts), len(images)),
            "reference_max_difference": entry.difference(
                judge, folder, images[: options.checked], prompts[: options.checked]
            ),
        }
    if not judges:
        raise JudgeError(f"weights={folder}: holds no judge's files; lay them out as docs/judges.md says")

    results["together"] = together(judges, results, images, prompts) | {
        "weights": "random, small" if options.weights is None else str(options.weights),
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device,
        "precision": options.precision,
        "images": len(images),
        "size": options.size,
    }
    return results


def together(
    judges: dict[str, Judge], results: dict[str, Any], images: list[Tensor], prompts: list[Prompt]
) -> dict[str, Any]:
    """Return the figures of all judges on one batch, but for GenEval, which looks at parts of images."""
    whole = {name: judge for name, judge in judges.items() if not isinstance(judge, GenEval)} or judges

    def judge_all() -> Tensor:
        batch = ImageBatch(images)
        return torch.stack([judge.judge(batch, prompts) for judge in whole.values()])

    held = [encoder for judge in judges.values() for encoder in encoders(judge)]
    return {
        "images_per_second": speed(judge_all, len(images)),
        "reference_max_difference": max(result["reference_max_difference"] for result in results.values()),
        "judges": list(whole),
        "images_per_second_one_by_one": 1 / sum(1 / results[name]["images_per_second"] for name in whole),
        "judges_with_a_clip": len(held),
        "clip_networks": len({id(encoder) for encoder in held}),
    }


def encoders(judge: Judge) -> list[ClipEncoder]:
    """Return the CLIPs that a judge holds."""
    held: list[torch.nn.Module] = [
        network for network in vars(judge).values() if isinstance(network, torch.nn.Module)
    ]
    return [module for network in held for module in network.modules() if isinstance(module, ClipEncoder)]


def pictures(number: int, side: int) -> list[Tensor]:
    """Return smooth random pictures: squares, portraits, landscapes, and one of an odd remainder."""
    noise = torch.Generator().manual_seed(0)
    shapes = [(side, side), (side, side * 3 // 2), (side * 3 // 2, side), (side, side * 59 // 56)]
    coarse = torch.randint(0, 256, (number, 1, 3, 9, 9), generator=noise).float()
    return [
        torch.nn.functional.interpolate(picture, shapes[i % 4], mode="bilinear")[0].round().byte()
        for i, picture in enumerate(coarse, 1)
    ]


def asked(number: int) -> list[Prompt]:
    """Return prompts that any judge can answer."""
    facts = {"include": [{"class": "cat", "count": 1, "color": "red"}]}
    return [Prompt(str(i), TEXTS[i % len(TEXTS)], task="colors", facts=facts) for i in range(number)]


def speed(judge: Callable[[], Tensor], number: int, repeats: int = 3) -> float:
    """Return images a second: the best of some runs after one that warms up."""
    judge().cpu()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        judge().cpu()
        best = min(best, time.perf_counter() - start)
    return number / best


def table(results: dict[str, Any]) -> str:
    """Lay the figures out, a judge a line."""
    lines = [f"{'judge':<16}{'images/s':>12}{'off reference':>16}"]
    lines += [
        f"{name:<16}{row['images_per_second']:>12.1f}{row['reference_max_difference']:>16.1e}"
        for name, row in results.items()
    ]
    shared = results["together"]
    lines += [
        f"together: {', '.join(shared['judges'])}; one by one {shared['images_per_second_one_by_one']:.1f} images/s",
        f"{shared['clip_networks']} CLIP networks for {shared['judges_with_a_clip']} judges; {shared['weights']} "
        f"weights, {shared['precision']}, {shared['device']}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
