"""The figures as a table to read."""

import statistics
from collections.abc import Mapping
from typing import Any

GOALS = {
    "small": {"step_ratio": 1.5, "sampling_ratio": 1.3, "flows_ratio": 2.0},
    "large": {"step_ratio": 1.25, "sampling_ratio": 1.3, "flows_ratio": 2.0},
    "half_billion": {"step_ratio": 2.0, "sampling_ratio": 1.3, "flows_ratio": 2.0},
}
LIMITS = {"mask_share": 0.10, "guided_ratio": 1.9, "memory_ratio": 0.7, "loss_difference": 1e-3}


def table(results: Mapping[str, Any]) -> str:
    """Lay out what `measure` found of every work, with what was aimed at."""
    where = results["machine"]
    lines = [
        f"{where['processor']}, {where['cores']} cores, {where['threads']} threads, {where['device']}, "
        f"torch {where['torch']}"
    ]
    for name, details in results["details"].items():
        if name in results:
            lines += ["", *_of_one(name, results[name], details)]
    return "\n".join(lines)


def _of_one(name: str, figures: Mapping[str, float | None], details: Mapping[str, Any]) -> list[str]:
    work = details["work"]
    lines = [
        f"{name}: hidden {work['hidden']}, {work['layers']} layers, vocabulary {work['vocabulary']}; "
        f"{work['prompts']} x {work['prompt_tokens']} prompt tokens, {work['samples']} samples of "
        f"{work['new_tokens']} tokens",
        "",
        f"{'seconds':<34}{'least':>9}{'median':>9}{'most':>9}",
    ]
    rows = {
        "step, TRL": ("steps", "trl"),
        "step, ours": ("steps", "ours"),
        "  sampling": ("steps", "sampling"),
        "  learning": ("steps", "learning"),
        "step in bfloat16 autocast, TRL": ("bfloat16_steps", "trl"),
        "step in bfloat16 autocast, ours": ("bfloat16_steps", "ours"),
        "text, generate": ("text", "hugging_face"),
        "text, ours": ("text", "ours"),
        "flows, generate": ("flows", "hugging_face"),
        "flows, ours": ("flows", "ours"),
        "flows, ours guided": ("flows", "guided"),
        "flows, untrained, generate": ("untrained_flows", "hugging_face"),
        "flows, untrained, ours": ("untrained_flows", "ours"),
        "flows, untrained, ours guided": ("untrained_flows", "guided"),
    }
    measured = {row: details.get(part, {}).get(who) for row, (part, who) in rows.items()}
    lines += [
        f"{row:<34}{min(times):>9.3f}{statistics.median(times):>9.3f}{max(times):>9.3f}"
        for row, times in measured.items()
        if times
    ]
    lines += ["", f"{'ratio':<34}{'minima':>9}{'medians':>9}{'low':>9}{'high':>9}"]
    lines += [
        f"{row:<34}{r['minima']:>9.2f}{r['medians']:>9.2f}{r['low']:>9.2f}{r['high']:>9.2f}"
        for row, r in details["ratios"].items()
    ]
    lines.append("")
    if floor := details.get("floor"):
        billions = floor["operations"] / 1e9, floor["operations_per_second"] / 1e9
        told = f"floor: {billions[0]:.0f} billion operations at {billions[1]:.0f} billion a second, "
        mfu = "" if floor["mfu"] is None else f"; MFU {floor['mfu']:.1%}"
        lines.append(f"{told}{floor['seconds']:.2f} s{mfu}")
    if shares := details.get("untrained_mask_shares"):
        lines.append(f"mask share of the untrained: {statistics.median(shares):.3f}")
    memory = details.get("memory_mb")
    if memory:
        lines.append("peak MB above idle: " + ", ".join(f"{who} {mb:.0f}" for who, mb in memory.items()))
    equal = details.get("equal_work")
    if equal:
        lines.append("losses on the same rollouts, ours: " + _numbers(equal["our_losses"]))
        lines.append("                           theirs: " + _numbers(equal["their_losses"]))
        lines.append(f"greatest difference of gradient norms: {equal['norm_difference']:.1e}")
    lines.append("")
    for figure, value in figures.items():
        lines.append(f"{figure:<34}{_shown(value):>9}  {_aim(name, figure, value)}".rstrip())
    return lines


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"


def _aim(name: str, figure: str, value: float | None) -> str:
    goal, limit = GOALS.get(name, {}).get(figure), LIMITS.get(figure)
    if value is None or (goal is None and limit is None):
        return ""
    if goal is not None:
        return f"at least {goal:g}: {'reached' if value >= goal else 'MISSED'}"
    return f"at most {limit:g}: {'kept' if value <= (limit or 0) else 'MISSED'}"
