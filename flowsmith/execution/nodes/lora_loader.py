"""LoraLoader: MODEL and CLIP changed by a LoRA, each with its own strength."""

from collections.abc import Hashable, Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


def _group(row: Row) -> Hashable:
    """One patched copy at a time, so that its work is done before the next one takes memory."""
    return row["model"].key, row["clip"].key, row["lora_name"], row["strength_model"], row["strength_clip"]


@register("LoraLoader", group=_group, order=2)
def load(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Patch each row's model and text encoder."""
    return [
        library.with_lora(
            row["model"],
            row["clip"],
            str(row["lora_name"]),
            float(row["strength_model"]),
            float(row["strength_clip"]),
        )
        for row in rows
    ]
