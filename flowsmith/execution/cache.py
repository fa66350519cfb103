"""A least-recently-used cache with a bound in bytes."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from torch import nn

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Keeps what was used last, up to a number of bytes; the newest entry is always kept.

    Args:
        max_bytes: Bound on the sum of the entries' sizes.
        size: Gives the bytes that an entry holds.
    """

    def __init__(self, max_bytes: int, size: Callable[[Value], int]) -> None:
        self._max_bytes, self._size = max_bytes, size
        self._entries: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Value | None:
        """Return the entry and mark it as used, or None."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: str, value: Value) -> Value:
        """Store an entry, forget the ones longest unused, and hand the entry back."""
        if key in self._entries:
            self.bytes -= self._entries.pop(key)[1]
        size = self._size(value)
        self._entries[key] = (value, size)
        self.bytes += size
        while self.bytes > self._max_bytes and len(self._entries) > 1:
            self.bytes -= self._entries.popitem(last=False)[1][1]
        return value


def module_bytes(*modules: nn.Module) -> int:
    """Return the bytes that networks hold in parameters and buffers."""
    return sum(t.nbytes for module in modules for t in [*module.parameters(), *module.buffers()])
