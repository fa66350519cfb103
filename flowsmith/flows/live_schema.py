"""What a running ComfyUI says is installed: ``GET /object_info``."""

import http.client
import time
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from flowsmith.flows.inputs import SchemaError
from flowsmith.flows.object_info import MOST_BYTES

TIMEOUT = 60.0
_PART = 1 << 20


class ServerUnavailable(SchemaError):
    """A ComfyUI server does not answer, or answers with an error."""


def fetch_object_info(url: str, timeout: float = TIMEOUT, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the body of a server's ``/object_info``.

    Args:
        url: Address of the server, http or https.
        timeout: Seconds for the whole answer.
        most_bytes: What is larger is refused, whatever length it announces.

    Raises:
        SchemaError: The address is none.
        ServerUnavailable: Nothing answers in time, the connection breaks, or the answer is an error or too
            large.
    """
    address = f"{_base(url)}/object_info"
    deadline = time.monotonic() + timeout
    parts: list[bytes] = []
    size = 0
    try:
        with urlopen(Request(address), timeout=timeout) as answer:
            announced = answer.length
            # read1 returns after each packet, so a server that drips cannot hold us beyond the deadline.
            while part := answer.read1(_PART):
                size += len(part)
                parts.append(part)
                if size > most_bytes:
                    raise ServerUnavailable(
                        f"{address} answers more than {most_bytes} bytes; check that it is a ComfyUI"
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError("timed out")
    except HTTPError as error:
        error.close()
        raise ServerUnavailable(
            f"{address} answers {error.code} ({error.reason}); check that it is a ComfyUI and has started"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = f"no whole answer within {timeout:g} s" if _timed_out(error) else str(error)
        raise ServerUnavailable(
            f"{address} cannot be read ({cause}); start ComfyUI there, or give a file with its object_info"
        ) from error
    if announced is not None and size != announced:
        raise ServerUnavailable(
            f"{address}: the connection broke after {size} of {announced} bytes; try again"
        )
    return b"".join(parts)


def _base(url: str) -> str:
    """Return the address of the server itself, without what may be secret in it."""
    try:
        found = urlsplit(url)
        host, port = found.hostname, found.port
    except ValueError as error:
        raise SchemaError(f"the address cannot be read ({error}); {_GIVE}") from error
    if found.scheme not in ("http", "https") or not host or found.username or found.query:
        raise SchemaError(f"url: {found.scheme}://{host or ''} is no plain address of a server; {_GIVE}")
    place = f"[{host}]" if ":" in host else host
    path = found.path.rstrip("/").removesuffix("/object_info")
    return f"{found.scheme}://{place}{'' if port is None else f':{port}'}{path}"


def _timed_out(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)


_GIVE = "give one such as http://127.0.0.1:8188"
