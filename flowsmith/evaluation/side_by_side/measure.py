"""All figures of one work: steps, sampling, flows, memory, agreement, and what the machine could do."""

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from flowsmith.evaluation.side_by_side.equal_work import agreement
from flowsmith.evaluation.side_by_side.floor import multiplication_speed, operations
from flowsmith.evaluation.side_by_side.flows import Writers
from flowsmith.evaluation.side_by_side.memory import peak_memory
from flowsmith.evaluation.side_by_side.ratios import ratio
from flowsmith.evaluation.side_by_side.trl_trainer import has_trl
from flowsmith.evaluation.side_by_side.turns import take_turns, text_turns, training_turns
from flowsmith.evaluation.side_by_side.work import Work, write_model

FIGURES = (
    "step_ratio", "step_ratio_min", "step_ratio_max", "sampling_ratio", "flows_ratio", "mask_share", "guided_ratio",
    "memory_ratio", "loss_difference", "floor_share",
)  # fmt: skip
PARTS = ("steps", "bfloat16", "text", "flows", "equal", "memory")
_PEAK_OPERATIONS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}  # bfloat16, dense, as sold
_TRL_MICRO_BATCHES = 8


@dataclass(frozen=True)
class Setting:
    """What is measured with.

    Attributes:
        device: Where both compute.
        repetitions: Of whatever is timed.
        domain: YAML file of what a policy may choose.
        prompts: JSON lines of prompts for flows.
        scored_flows: Parquet file or folder of flows that those who write them learn from first.
    """

    device: torch.device
    repetitions: int
    domain: Path
    prompts: Path
    scored_flows: Path


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what is measured on."""
    processor = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        names = [x for x in about.read_text(encoding="utf-8").splitlines() if x.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def measure(
    work: Work, setting: Setting, parts: Sequence[str] = PARTS, earlier: Mapping[str, Any] | None = None
) -> Iterator[tuple[dict[str, float | None], dict[str, Any]]]:
    """Measure a work part by part.

    Args:
        work: What is done.
        setting: With what.
        parts: Some of `PARTS`, in any order.
        earlier: Everything that was measured of this work before, of other parts.

    Yields:
        After each part `FIGURES`, null where something is yet to be measured or TRL is needed and not there; and
        everything that they were computed from.
    """
    details: dict[str, Any] = {**(earlier or {}), "work": asdict(work)}
    for part in (part for part in PARTS if part in parts):
        details |= _MEASURED[part](work, setting)
        yield _figures(work, setting.device, details), details


def _steps(work: Work, setting: Setting) -> dict[str, Any]:
    with _model(work) as (folder, scratch):
        return {"steps": training_turns(work, folder, scratch, setting.device, setting.repetitions)}


def _bfloat16(work: Work, setting: Setting) -> dict[str, Any]:
    with _model(work) as (folder, scratch):
        turns = training_turns(work, folder, scratch, setting.device, setting.repetitions, autocast=True)
    return {"bfloat16_steps": turns}


def _text(work: Work, setting: Setting) -> dict[str, Any]:
    with _model(work) as (folder, _):
        return {"text": text_turns(work, folder, setting.device, setting.repetitions)}


def _flows(work: Work, setting: Setting) -> dict[str, Any]:
    writers = Writers(work, setting.domain, setting.prompts, setting.device)
    untrained = _written(writers, setting)
    writers.learn(setting.scored_flows)
    return _written(writers, setting) | {f"untrained_{name}": found for name, found in untrained.items()}


def _written(writers: Writers, setting: Setting) -> dict[str, Any]:
    calls = {"hugging_face": writers.hugging_face, "ours": writers.ours, "guided": writers.guided}
    turns = take_turns(calls, setting.repetitions, setting.device)
    return {"flows": turns, "mask_shares": [writers.mask_share() for _ in range(setting.repetitions)]}


def _equal_work(work: Work, setting: Setting) -> dict[str, Any]:
    if not has_trl():
        return {}
    with TemporaryDirectory() as scratch:
        equal = agreement(work, Path(scratch), setting.device)
    return {"equal_work": asdict(equal) | {"norm_difference": equal.norm_difference}}


def _memory(work: Work, setting: Setting) -> dict[str, Any]:
    """Measure peaks in MB above the idle process; TRL also with its step cut into micro-batches."""
    with _model(work) as (folder, _):
        peaks = {"ours": peak_memory(work, folder, "ours")}
        if has_trl():
            peaks["trl"] = peak_memory(work, folder, "trl")
            peaks["trl_accumulating"] = peak_memory(work, folder, "trl", accumulation=_TRL_MICRO_BATCHES)
    return {"memory_mb": peaks}


_MEASURED = {
    "steps": _steps, "bfloat16": _bfloat16, "text": _text, "flows": _flows, "equal": _equal_work, "memory": _memory,
}  # fmt: skip


@contextmanager
def _model(work: Work) -> Iterator[tuple[Path, Path]]:
    """Lend the model of a work on disk, and a folder for what is written on the way."""
    with TemporaryDirectory() as name:
        yield write_model(work, Path(name) / "model"), Path(name)


def _figures(work: Work, device: torch.device, details: dict[str, Any]) -> dict[str, float | None]:
    """Compute what follows from what was measured; ratios and floor are added to it."""
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    figures |= _ratios(details)
    if "equal_work" in details:
        pairs = zip(details["equal_work"]["our_losses"], details["equal_work"]["their_losses"], strict=True)
        figures["loss_difference"] = max(abs(ours - theirs) for ours, theirs in pairs)
    if "mask_shares" in details:
        figures["mask_share"] = statistics.median(details["mask_shares"])
    if "steps" in details:
        details["floor"] = _floor(work, device, min(details["steps"]["ours"]))
        figures["floor_share"] = details["floor"]["share"]
    return figures


def _ratios(details: dict[str, Any]) -> dict[str, float | None]:
    """Turn times into ratios of minima; the others are kept beside them."""
    pairs = {
        "step": ("steps", "trl", "ours"),
        "bfloat16_step": ("bfloat16_steps", "trl", "ours"),
        "sampling": ("text", "hugging_face", "ours"),
        "flows": ("flows", "hugging_face", "ours"),
        "guided": ("flows", "guided", "ours"),
        "untrained_flows": ("untrained_flows", "hugging_face", "ours"),
        "untrained_guided": ("untrained_flows", "guided", "ours"),
    }
    details["ratios"] = {
        name: ratio(details[turns][theirs], details[turns][ours])._asdict()
        for name, (turns, theirs, ours) in pairs.items()
        if theirs in details.get(turns, {})
    }
    found: dict[str, float | None] = {
        f"{name}_ratio": details["ratios"][name]["minima"]
        for name in ("step", "sampling", "flows", "guided")
        if name in details["ratios"]
    }
    if "step" in details["ratios"]:
        found["step_ratio_min"] = details["ratios"]["step"]["low"]
        found["step_ratio_max"] = details["ratios"]["step"]["high"]
    memory = details.get("memory_mb", {})
    if "trl" in memory:
        found["memory_ratio"] = memory["ours"] / memory["trl"]
    return found


def _floor(work: Work, device: torch.device, seconds: float) -> dict[str, float | None]:
    """Return the least time of a step, the share of it that was reached, and on a known GPU that of its peak."""
    count, speed = operations(work), multiplication_speed(work, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((speed for part, speed in _PEAK_OPERATIONS.items() if part in name), None)
    return {
        "operations": count.total,
        "operations_per_second": speed,
        "seconds": count.total / speed,
        "share": count.total / speed / seconds,
        "mfu": None if peak is None else count.total / peak / seconds,
    }
