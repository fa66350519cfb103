"""Batches of prompts that a process has taken for itself."""

from collections.abc import Iterator, Sequence

from flowsmith.prompts import Prompt


class PromptBatches:
    """One rank's share of a list, in batches; nothing is repeated to make shares even.

    A plain iterable and no ``DataLoader``, whose batches Lightning would divide among the processes once more.

    Args:
        prompts: The share.
        size: Prompts in a batch, >= 1; the last may be smaller.
    """

    def __init__(self, prompts: Sequence[Prompt], size: int) -> None:
        self._batches = [list(prompts[i : i + size]) for i in range(0, len(prompts), size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Prompt]]:
        return iter(self._batches)
