"""What a running ComfyUI tells of a model file: the metadata in its header."""

import http.client
import json
from urllib.parse import quote
from urllib.request import urlopen

TIMEOUT = 10.0
_MOST = 32 << 20  # bytes; trainers keep the captions of all their pictures there


def fetch_metadata(url: str, folder: str, name: str, timeout: float = TIMEOUT) -> dict[str, str]:
    """Return the metadata of a file; empty if it has none or the server does not tell.

    Args:
        url: Address of the server.
        folder: ComfyUI's name of the folder, such as "loras".
        name: The file in it.
        timeout: Seconds.
    """
    address = f"{url.rstrip('/').removesuffix('/object_info')}/view_metadata/{quote(folder)}"
    try:
        with urlopen(f"{address}?filename={quote(name, safe='')}", timeout=timeout) as answer:
            content = answer.read(_MOST + 1)
        found = json.loads(content) if len(content) <= _MOST else {}
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return {}
    return (
        {key: value for key, value in found.items() if isinstance(value, str)}
        if isinstance(found, dict)
        else {}
    )
