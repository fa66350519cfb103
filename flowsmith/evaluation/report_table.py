"""The comparison as a table for a terminal (and for Markdown): quality and diversity of the same samples."""

import math
from typing import Any

ORACLE = "oracle (dense block)"


def ranked(results: dict[str, Any]) -> list[str]:
    """Return the designers' names, best mean score first."""
    designers: dict[str, Any] = results["designers"]
    return sorted(designers, key=lambda name: -designers[name]["score"]["mean"])


def evaluation_table(results: dict[str, Any]) -> str:
    """Return the results as a table, best score first; the ceiling, where there is one, above all.

    ``wins`` is the mean of the win rates against each of the others. ``unique`` counts structures, ``per sample`` is
    their number by that of samples, ``in prompt`` how often two samples of one prompt differ in structure.
    """
    preference = results.get("preference")
    rows = [_designer(results, name, preference) for name in ranked(results)]
    if "oracle" in results:
        rows.insert(0, {"designer": ORACLE, "score (95 % CI)": _interval(results["oracle"]["score"])})
    head = list(rows[-1])
    lines = [[row.get(column, "-") for column in head] for row in rows]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in [head, rule, *lines]
    )


def oracle_note(results: dict[str, Any]) -> str:
    """Return in words what the ceiling's row is."""
    oracle = results["oracle"]
    return (
        f"{ORACLE}: the best of {oracle['flows']} flows for each of the {oracle['prompts']} prompts (of "
        f"{results['prompts']}) that the block has, chosen on {oracle['chosen_on']} of {oracle['seeds']} seeds and "
        "scored on the others; paired differences over these prompts are in results.json"
    )


def _designer(results: dict[str, Any], name: str, preference: dict[str, Any] | None) -> dict[str, str]:
    r = results["designers"][name]
    geneval = r["geneval"]["overall"]
    wins = {"wins": _share(_wins(results["win_rate"][name]))}
    if preference is not None:
        by = {f"wins ({preference['judge']})": _share(_wins(preference["win_rate"][name]))}
        wins = by | {"wins (score)": wins["wins"]}
    return {
        "designer": name,
        "score (95 % CI)": _interval(r["score"]),
        **wins,
        "GenEval": "-" if geneval is None else f"{geneval:.3f}",
        "abstained": _share(r["geneval_abstained"]),
        "unique": str(r["unique_flows"]),
        "per sample": f"{r['unique_per_sample']:.2f}",
        "in prompt": _share(r["differing_within_prompt"]),
        "novel": str(r["novel_flows"]),
        "valid": _share(r["valid"]),
        "rendered": _share(r["rendered"]),
        "tokens": f"{r['tokens_per_flow']:.1f}",
        "s/image": f"{r['seconds_per_image']:.3f}",
    }


def _wins(against: dict[str, Any]) -> float:
    """Return the mean over opponents; NaN without any."""
    return sum(rate["mean"] for rate in against.values()) / len(against) if against else math.nan


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.0f} %"


def _interval(score: dict[str, Any]) -> str:
    low, high = (math.nan if end is None else end for end in score["ci95"])
    return f"{score['mean']:+.3f} ({low:+.3f} to {high:+.3f})"
