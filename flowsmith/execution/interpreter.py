"""Evaluates the nodes of many graphs: each result once, alike ones in batches, failures kept apart."""

import time
from collections.abc import Hashable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from flowsmith.execution.board import Board, Job, Outcome
from flowsmith.execution.cache import Cache
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.faults import in_tiles, out_of_memory, release_memory
from flowsmith.execution.graph import Plan
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.nodes import NodeType, Row
from flowsmith.execution.time_limit import TimeLimitError, time_limit


class Interpreter:
    """Runs plans and remembers their tensors.

    A group that fails is tried again in halves, down to the one evaluation that is to blame; if memory ran out, later
    groups of the kind start with what fitted. One evaluation that does not fit by itself is run in tiles, where its
    node can be. One that takes too long is given up with all others of its group that take as long.

    Args:
        library: Where models come from.
        batch_size: Most evaluations in one run of a node.
        max_bytes: Bound on remembered text encodings, latents and images.
        timeout: Seconds that the nodes of one graph may take.
    """

    def __init__(
        self,
        library: ModelLibrary,
        batch_size: int = 16,
        max_bytes: int = 256 << 20,
        timeout: float = 600.0,
    ) -> None:
        self._library, self._batch_size, self._timeout = library, batch_size, timeout
        self._memory: Cache[Outcome] = Cache(max_bytes, lambda outcome: sum(v.nbytes for v in outcome.values))
        self._fitting: dict[Hashable, int] = {}  # group -> rows that memory held where more were too many

    def run(self, plans: Iterable[Plan]) -> Iterator[tuple[str, Outcome]]:
        """Evaluate plans; yield key and outcome of every output node as it is decided.

        A failing evaluation takes with it those that build on it, and nothing else.
        """
        board = Board(plans, self._memory)
        yield from board.recalled
        while batch := board.next_batch(self._batch_size):
            for job, outcome in self._evaluate(batch, board):
                if outcome.values and all(
                    isinstance(value, Tensor | Conditioning) for value in outcome.values
                ):
                    self._memory.put(job.step.key, outcome)
                yield from board.finish(job, outcome)

    def _evaluate(self, jobs: list[Job], board: Board) -> Iterator[tuple[Job, Outcome]]:
        """Run jobs of one group, all of them at once if that can be."""
        group, node = jobs[0].group, jobs[0].step.node
        fitting = self._fitting.get(group, len(jobs))
        if len(jobs) > max(1, fitting):
            yield from self._in_parts(jobs, board, max(1, fitting))
            return
        failure: Exception = MemoryError("not even one fits")
        if fitting:
            outcomes = self._attempt(node, jobs, board)
            if not isinstance(outcomes, Exception):
                yield from zip(jobs, outcomes, strict=True)
                return
            failure = outcomes
        if isinstance(failure, TimeLimitError):
            yield from self._without_the_slowest(jobs, board)
            return
        if out_of_memory(failure):
            release_memory(self._library.device)
            self._fitting[group] = len(jobs) // 2
        if len(jobs) > 1:
            yield from self._in_parts(jobs, board, (len(jobs) + 1) // 2)
            return
        if out_of_memory(failure):
            for tiled, row in in_tiles(node, board.row(jobs[0])):
                outcomes = self._attempt(tiled, jobs, board, [row])
                if not isinstance(outcomes, Exception):
                    yield jobs[0], outcomes[0]
                    return
                release_memory(self._library.device)
        yield jobs[0], Outcome(error=f"{type(failure).__name__}: {failure} (in {node.name})")

    def _in_parts(self, jobs: list[Job], board: Board, size: int) -> Iterator[tuple[Job, Outcome]]:
        for start in range(0, len(jobs), size):
            yield from self._evaluate(jobs[start : start + size], board)

    def _without_the_slowest(self, jobs: list[Job], board: Board) -> Iterator[tuple[Job, Outcome]]:
        """Give up what takes at least its even share of the time that was too long, and run the others."""
        share = sum(job.work for job in jobs) / len(jobs)
        for job in jobs:
            if job.work >= share:
                yield job, Outcome(error=self._too_long(job.step.node))
        if others := [job for job in jobs if job.work < share]:
            yield from self._evaluate(others, board)

    def _attempt(
        self, node: NodeType, jobs: list[Job], board: Board, rows: Sequence[Row] | None = None
    ) -> list[Outcome] | Exception:
        """Run a node once; return what went wrong without the frames, which would keep tensors alive."""
        spent = [board.costs(job) for job in jobs]
        left = sum(self._timeout - sum(costs.values()) for costs in spent)
        start = time.perf_counter()
        try:
            with torch.inference_mode(), time_limit(left):
                results = node.run(rows or [board.row(job) for job in jobs], self._library)
                if self._library.device.type == "cuda":
                    torch.cuda.synchronize(self._library.device)
        except Exception as error:
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        seconds = 0.0 if node.loads else time.perf_counter() - start
        work = sum(job.work for job in jobs)
        outcomes = []
        for job, values, costs in zip(jobs, results, spent, strict=True):
            costs[job.step.key] = seconds * job.work / work
            late = sum(costs.values()) > self._timeout
            outcomes.append(Outcome(error=self._too_long(node)) if late else Outcome(values, costs=costs))
        return outcomes

    def _too_long(self, node: NodeType) -> str:
        return (
            f"TimeLimitError: the flow takes longer than timeout={self._timeout:g} s; use fewer steps or a smaller "
            f"picture, or allow more time (in {node.name})"
        )
