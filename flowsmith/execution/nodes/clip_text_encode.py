"""CLIPTextEncode: CONDITIONING of a text, as an encoding [tokens, width]."""

from collections.abc import Sequence
from typing import Any

from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes.registry import Row, register


@register("CLIPTextEncode", group=lambda row: row["clip"].key)
def encode(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Encode the rows' texts together."""
    return [(encoding,) for encoding in rows[0]["clip"].encode([str(row["text"]) for row in rows])]
