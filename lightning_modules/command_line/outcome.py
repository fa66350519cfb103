"""What came out of a run, and at what cost, in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsmith.peak_memory import children_peak, own_peak


def told(outcome: Mapping[str, Any], export: Path) -> str:
    """Return the line.

    Args:
        outcome: What `RunFolder.finish` wrote.
        export: The folder that is named where something was exported.
    """
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in list(outcome["metrics"].items())[:8])
    exported = f"; export in {export}/" if outcome["export"] else ""
    spent = f"{outcome['seconds']:.0f} s, peak memory {outcome['peak_memory_gb']:.1f} GB"
    return f"{metrics or 'all written'}{exported}; {spent}"


def peak_memory() -> float:
    """Return the most memory that this process or one that it waited for had in use, in GB."""
    return round(max(own_peak(), children_peak()) / 1e9, 2)
