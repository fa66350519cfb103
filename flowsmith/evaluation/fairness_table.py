"""Verdicts on a measured world, and the measures as a table for a terminal."""

import math
from dataclasses import dataclass
from typing import Any

GAP, CATEGORY_SHARE, TOP_FLOW_SHARE = 0.3, 0.7, 0.25  # standard deviations of score; shares


@dataclass(frozen=True)
class Verdict:
    """Whether a world is fair in one respect.

    Attributes:
        name: Of the measure.
        measured: Its value, in words.
        asked: What it must be, in words.
        passes: Whether it is; a value that could not be measured never passes.
        by: What it comes from: a label, a flow, a change.
    """

    name: str
    measured: str
    asked: str
    passes: bool
    by: str = ""


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Judge what `fairness_results` measured."""
    gap, share, top = results["oracle_gap"], results["category_share"], results["top_flow_share"]
    flow = results["top_flow"]["name"] or results["top_flow"]["flow"]
    largest = [name for name, table in results["categories"].items() if table["share"] == share]
    found = [
        Verdict(
            "oracle gap",
            _interval(gap),
            f">= {GAP}, interval above 0",
            gap["value"] >= GAP and gap["ci95"][0] > 0,
        ),
        Verdict(
            "category share",
            f"{share:.2f}",
            f"< {CATEGORY_SHARE}",
            share < CATEGORY_SHARE,
            ", ".join(largest) or "no label can be judged",
        ),
        Verdict("top flow share", f"{top:.2f}", f"<= {TOP_FLOW_SHARE}", top <= TOP_FLOW_SHARE, flow),
    ]
    for kind, effect in results["components"].items():
        passes = effect["ci95"][0] > 0
        found.append(
            Verdict(f"effect of {kind}", _interval(effect), "interval above 0", passes, effect["by"])
        )
    return found


def fairness_table(results: dict[str, Any]) -> str:
    """Return the verdicts and, below, what has none."""
    block = results["block"]
    lines = [
        f"{block['prompts']} prompts x {block['flows']} flows x {block['seeds']} seeds, {block['failed_images']} "
        f"images failed; in standard deviations of single-image score, which is {block['score_sd']:.3f}"
    ]
    rows = [(v.name, v.measured, v.asked, "pass" if v.passes else "FAIL", v.by) for v in verdicts(results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    gap, noise, variance = results["oracle_gap"], results["judge_noise"], results["variance"]
    tables = [
        f"{name} {table['gain']:+.2f} (chance {table['by_chance']:+.2f}; {table['share']:.0%})"
        for name, table in results["categories"].items()
    ]
    shares = [f"{name} {variance[name]:+.3f} ({share:.0%})" for name, share in variance["shares"].items()]
    return "\n".join(
        [
            *lines,
            f"gap by a shrunken choice: {_interval(gap['shrunken'])}; naive, only to compare: {gap['naive']:+.2f}",
            "best flow per label, gain (by chance; share of the gap beyond chance): "
            + (", ".join(tables) or "no label differs"),
            f"variance: {', '.join(shares)}",
            f"rank correlation that a surrogate can reach within prompts: {noise['means']:.2f} on means over all "
            f"seeds, {noise['single']:.2f} on single images",
        ]
    )


def _interval(measure: dict[str, Any]) -> str:
    low, high = (math.nan if end is None else end for end in measure["ci95"])
    if math.isnan(measure["value"]):
        return "-"
    return f"{measure['value']:+.2f} ({low:+.2f} to {high:+.2f})"
