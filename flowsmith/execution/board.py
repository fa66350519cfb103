"""What is to be evaluated, what can be, and what is still needed: the books of one run of the interpreter."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowsmith.execution.cache import Cache
from flowsmith.execution.graph import Evaluation, Plan


@dataclass(frozen=True)
class Outcome:
    """What came of an evaluation.

    Attributes:
        values: The node's outputs.
        error: Why there are none.
        costs: Seconds of this evaluation and of those that it builds on, by key; one that was run in a batch
            counts its even share, one that was remembered what it took at first.
    """

    values: tuple[Any, ...] = ()
    error: str | None = None
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class Job:
    """An evaluation on its way.

    Attributes:
        step: The evaluation.
        sources: Keys of what it links to, each once.
        waiting: How many of them are not known yet.
        dependents: Jobs that link to this one.
        done: Finished or failed.
        group: What jobs that can run together have in common, known when all sources are.
        work: Its share of a group's time, relative to the others'.
    """

    step: Evaluation
    sources: tuple[str, ...]
    waiting: int = 0
    dependents: list["Job"] = field(default_factory=list)
    done: bool = False
    group: Hashable = None
    work: float = 1.0


class Board:
    """Jobs of several plans, each evaluation once.

    Args:
        plans: What is wanted.
        memory: Outcomes of earlier runs; what they save is not planned.

    Attributes:
        known: Outcomes that some job still reads.
        recalled: Outputs that memory already holds.
    """

    def __init__(self, plans: Iterable[Plan], memory: Cache[Outcome]) -> None:
        plans = list(plans)
        steps = {step.key: step for plan in plans for step in plan.steps}
        # No sets: their order differs from process to process, and with it what is batched with what.
        self._outputs = dict.fromkeys(key for plan in plans for key in plan.outputs)
        self._readers: Counter[str] = Counter()
        self._groups: dict[Hashable, list[Job]] = {}
        self.known: dict[str, Outcome] = {}
        jobs: dict[str, Job] = {}
        wanted = list(reversed(self._outputs))  # taken from the end, so the first come first
        while wanted:
            key = wanted.pop()
            if key in jobs or key in self.known:
                continue
            if (remembered := memory.get(key)) is not None:
                self.known[key] = remembered
                continue
            jobs[key] = Job(
                steps[key], tuple(dict.fromkeys(source for source, _ in steps[key].links.values()))
            )
            wanted.extend(jobs[key].sources)
        self.recalled = [(key, self.known[key]) for key in self._outputs if key in self.known]
        for job in jobs.values():
            self._readers.update(job.sources)
            for source in job.sources:
                if source in jobs:
                    jobs[source].dependents.append(job)
                    job.waiting += 1
        for job in jobs.values():
            if not job.waiting:
                self._offer(job)

    def row(self, job: Job) -> dict[str, Any]:
        """Return a job's inputs with links resolved."""
        linked = {name: self.known[key].values[slot] for name, (key, slot) in job.step.links.items()}
        return {**job.step.values, **linked}

    def costs(self, job: Job) -> dict[str, float]:
        """Return the seconds of all that a job builds on, by key."""
        return {key: cost for source in job.sources for key, cost in self.known[source].costs.items()}

    def next_batch(self, size: int) -> list[Job]:
        """Take jobs that can run together, or none if all is done.

        Cheap ones come first because they make others ready, then the fullest batch of sampling. Files are
        read only when nothing else is left to do, so that one checkpoint's work is over before the next one
        is loaded. Of a group that is too large for one batch, jobs of like work go together.
        """
        if not self._groups:
            return []
        key = min(self._groups, key=lambda k: (self._groups[k][0].step.node.order, -len(self._groups[k])))
        group = sorted(self._groups[key], key=lambda job: job.work)
        batch, rest = group[:size], group[size:]
        if rest:
            self._groups[key] = rest
        else:
            del self._groups[key]
        return batch

    def finish(self, job: Job, outcome: Outcome) -> Iterator[tuple[str, Outcome]]:
        """Note a job's outcome; yield the outputs that are decided by it, failed dependents included."""
        finished = [job]
        while finished:
            job = finished.pop()
            if job.done:
                continue
            job.done = True
            if job.step.key in self._outputs:
                yield job.step.key, outcome
            if self._readers[job.step.key]:
                self.known[job.step.key] = outcome
            for source in job.sources:
                self._readers[source] -= 1
                if not self._readers[source]:
                    self.known.pop(source, None)
            for dependent in job.dependents:
                dependent.waiting -= 1
                if outcome.error is not None:
                    finished.append(dependent)
                elif not dependent.waiting and not dependent.done:
                    self._offer(dependent)

    def _offer(self, job: Job) -> None:
        node = job.step.node
        try:
            row = self.row(job)
            job.group, job.work = (node.name, node.group(row)), node.work(row)
        except Exception:  # the node will say what is wrong when it is run, alone
            job.group = (node.name, job.step.key)
        self._groups.setdefault(job.group, []).append(job)
