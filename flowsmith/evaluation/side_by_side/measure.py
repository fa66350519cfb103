"""All figures of one work: steps, sampling, flows, memory, agreement, and what the machine could do."""

import os
import platform
import statistics
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
        memory: Whether peak memory is measured, in processes of their own.
    """

    device: torch.device
    repetitions: int
    domain: Path
    prompts: Path
    memory: bool = True


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


def measure(work: Work, setting: Setting) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Measure a work.

    Returns:
        `FIGURES`, null where TRL is needed and not there; and everything that they were computed from.
    """
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    details: dict[str, Any] = {"work": asdict(work)}
    device, repetitions = setting.device, setting.repetitions
    with TemporaryDirectory() as name:
        scratch = Path(name)
        folder = write_model(work, scratch / "model")
        details["steps"] = training_turns(work, folder, scratch, device, repetitions)
        details["bfloat16_steps"] = training_turns(work, folder, scratch, device, repetitions, autocast=True)
        details["text"] = text_turns(work, folder, device, repetitions)
        if has_trl():
            equal = agreement(work, scratch, device)
            details["equal_work"] = asdict(equal) | {"norm_difference": equal.norm_difference}
            figures["loss_difference"] = equal.loss_difference
        if setting.memory:
            details["memory_mb"] = _memory(work, folder)
    writers = Writers(work, setting.domain, setting.prompts, device)
    details["flows"] = take_turns(
        {"hugging_face": writers.hugging_face, "ours": writers.ours, "guided": writers.guided},
        repetitions,
        device,
    )
    details["mask_shares"] = [writers.mask_share() for _ in range(repetitions)]
    details["floor"] = _floor(work, device, min(details["steps"]["ours"]))

    figures |= _ratios(details)
    figures["mask_share"] = statistics.median(details["mask_shares"])
    figures["floor_share"] = details["floor"]["share"]
    return figures, details


def _ratios(details: dict[str, Any]) -> dict[str, float | None]:
    """Turn times into ratios of minima; the others are kept beside them."""
    pairs = {
        "step": ("steps", "trl", "ours"),
        "bfloat16_step": ("bfloat16_steps", "trl", "ours"),
        "sampling": ("text", "hugging_face", "ours"),
        "flows": ("flows", "hugging_face", "ours"),
        "guided": ("flows", "guided", "ours"),
    }
    details["ratios"] = {
        name: ratio(details[turns][theirs], details[turns][ours])._asdict()
        for name, (turns, theirs, ours) in pairs.items()
        if theirs in details[turns]
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


def _memory(work: Work, folder: Path) -> dict[str, float]:
    """Return peaks in MB above the idle process; TRL also with its step cut into micro-batches."""
    peaks = {"ours": peak_memory(work, folder, "ours")}
    if has_trl():
        peaks["trl"] = peak_memory(work, folder, "trl")
        peaks["trl_accumulating"] = peak_memory(work, folder, "trl", accumulation=_TRL_MICRO_BATCHES)
    return peaks


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
