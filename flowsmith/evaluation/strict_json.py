"""JSON that every reader takes: what is not a number is null."""

import json
import math
from typing import Any


def dumps(results: dict[str, Any]) -> str:
    """Return indented JSON text."""
    return json.dumps(_strict(results), indent=2, ensure_ascii=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
