"""Which networks lie in the memory of the device: those used last, within a bound; the others wait on the CPU.

Every network is loaded on the CPU once and its weights never change, so the copy there is kept: sending a network
away costs nothing, and only bringing one back moves bytes.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

Fetch: TypeAlias = Callable[[nn.Module], nn.Module]
"""Brings a network to where it runs, and hands it back."""


def stay(network: nn.Module) -> nn.Module:
    """Leave a network where it is."""
    return network


class Residency:
    """Moves networks to a device when they are about to run, and those unused for longest back.

    Networks may share tensors, as a model and its LoRA-patched copies do; what is shared is counted once.

    Args:
        device: Where networks run.
        max_bytes: Bound on the tensors there; the network about to run is brought even beyond it.
    """

    def __init__(self, device: torch.device, max_bytes: int) -> None:
        self._device, self._max_bytes = device, max_bytes
        self._used: OrderedDict[int, weakref.ref[nn.Module]] = OrderedDict()
        self._last: weakref.ref[nn.Module] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the tensors that are on the device."""
        there = {id(t): t for network in self._networks() for t in _tensors(network) if _is_there(t)}
        return sum(tensor.nbytes for tensor in there.values())

    def fetch(self, network: nn.Module) -> nn.Module:
        """Bring a network to the device."""
        if self._last is not None and self._last() is network:
            return network  # nothing was sent away since
        key = id(network)
        self._used[key] = weakref.ref(network, lambda _: self._used.pop(key, None))
        self._used.move_to_end(key)
        missing = [tensor for tensor in _tensors(network) if not _is_there(tensor)]
        if missing:
            self._make_room(network, sum(tensor.nbytes for tensor in missing))
            for tensor in missing:
                tensor._home = tensor.data  # type: ignore[attr-defined]
                tensor.data = tensor.data.to(self._device, copy=True)
        self._last = self._used[key]
        return network

    def _make_room(self, wanted: nn.Module, needed: int) -> None:
        kept = {id(tensor) for tensor in _tensors(wanted)}
        for network in list(self._networks()):
            if self.bytes + needed <= self._max_bytes:
                return
            for tensor in _tensors(network):
                if _is_there(tensor) and id(tensor) not in kept:
                    tensor.data = tensor._home  # type: ignore[attr-defined]
                    del tensor._home  # type: ignore[attr-defined]

    def _networks(self) -> Iterator[nn.Module]:
        """Yield the networks that live, the one unused for longest first."""
        yield from [network for reference in self._used.values() if (network := reference()) is not None]


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _is_there(tensor: Tensor) -> bool:
    """Say whether a tensor is on the device; its copy on the CPU then waits in an attribute."""
    return hasattr(tensor, "_home")
