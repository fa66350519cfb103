"""Evaluates the nodes of many graphs: each result once, alike ones in batches, failures kept apart."""

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from flowsmith.execution.board import Board, Job, Outcome
from flowsmith.execution.cache import Cache
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.graph import Plan
from flowsmith.execution.library import ModelLibrary


class Interpreter:
    """Runs plans and remembers their tensors.

    Args:
        library: Where models come from.
        batch_size: Most evaluations in one run of a node.
        max_bytes: Bound on remembered text encodings, latents and images.
    """

    def __init__(self, library: ModelLibrary, batch_size: int = 16, max_bytes: int = 256 << 20) -> None:
        self._library, self._batch_size = library, batch_size
        self._memory: Cache[Outcome] = Cache(max_bytes, lambda outcome: sum(v.nbytes for v in outcome.values))

    def run(self, plans: Iterable[Plan]) -> Iterator[tuple[str, Outcome]]:
        """Evaluate plans; yield key and outcome of every output node as it is decided.

        A failing evaluation takes with it those that build on it, and nothing else.
        """
        board = Board(plans, self._memory)
        yield from board.recalled
        while batch := board.next_batch(self._batch_size):
            for job, outcome in zip(batch, self._evaluate(batch, board), strict=True):
                if outcome.values and all(
                    isinstance(value, Tensor | Conditioning) for value in outcome.values
                ):
                    self._memory.put(job.step.key, outcome)
                yield from board.finish(job, outcome)

    def _evaluate(self, batch: list[Job], board: Board) -> list[Outcome]:
        """Run one group; if it fails as a batch, run it again row by row."""
        node = batch[0].step.node
        start = time.perf_counter()
        try:
            with torch.inference_mode():
                results = node.run([board.row(job) for job in batch], self._library)
                if self._library.device.type == "cuda":
                    torch.cuda.synchronize(self._library.device)
        except Exception as error:
            if len(batch) > 1:
                return [outcome for job in batch for outcome in self._evaluate([job], board)]
            return [Outcome(error=f"{type(error).__name__}: {error} (in {node.name})")]
        share = 0.0 if node.loads else (time.perf_counter() - start) / len(batch)
        outcomes = []
        for job, values in zip(batch, results, strict=True):
            costs = {job.step.key: share}
            for source in job.sources:
                costs.update(board.known[source].costs)
            outcomes.append(Outcome(values, costs=costs))
        return outcomes
