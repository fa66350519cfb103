"""Images that several judges look at, so that what they have in common is computed once."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar, overload

from torch import Tensor

T = TypeVar("T")


class ImageBatch(Sequence[Tensor]):
    """Images, and what was computed of them so far: one resize, and one embedding by each network.

    Handed to several judges in turn, it makes those with the same CLIP share its work. The images must not change
    while the batch lives; what it knows is freed with it.

    Args:
        images: uint8, 3 x height x width each; sizes may differ.
    """

    def __init__(self, images: Iterable[Tensor]) -> None:
        self._images = tuple(images)
        self._known: dict[Hashable, Any] = {}

    @classmethod
    def of(cls, images: Sequence[Tensor]) -> "ImageBatch":
        """Return the batch itself if it is one, else a fresh one."""
        return images if isinstance(images, cls) else cls(images)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what was computed under this key, computing it if nobody has."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]  # type: ignore[no-any-return]

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor, ...]: ...
    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor, ...]:
        return self._images[index]

    def __len__(self) -> int:
        return len(self._images)
