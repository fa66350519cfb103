"""Several ways from noise to picture at once, their calls of one network joined.

Solvers differ in what they do between two calls of a network, and ways in how long they are; the network itself takes
rows of any noise level side by side. So every way is walked by an ordinary function, in a thread of its own, as far as
its next call of the network. When all wait for an answer, what they ask is run in as few calls as shapes allow. Only
one thread runs at a time, in the order of the ways: nothing depends on timing.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from flowsmith.execution.condition_batch import Network
from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.time_limit import check_time

T = TypeVar("T")

Join: TypeAlias = Callable[[Network], Network]
"""Makes of a network one whose calls are joined with those of the other ways."""


def walk_together(walks: Sequence[Callable[[Join], T]]) -> list[T]:
    """Walk ways side by side; each is given what joins its calls of networks with those of the others.

    Returns:
        What the walks return, in their order.

    Raises:
        Exception: What the first of them raises; the others are given up.
        TimeLimitError: See `check_time`.
    """
    if len(walks) == 1:
        return [walks[0](_timed)]
    walkers = [_Walker(walk) for walk in walks]
    told: dict[tuple[int, ...], tuple[list[NetworkConditions], NetworkConditions]] = {}
    try:
        waiting = walkers
        while waiting:
            for walker in waiting:
                walker.go_on()
            waiting = [walker for walker in waiting if walker.call is not None]
            groups: dict[Hashable, list[_Walker[T]]] = {}
            for walker in waiting:
                groups.setdefault(walker.asked.likeness, []).append(walker)
            for group in groups.values():
                _answer(group, told)
        return [walker.result for walker in walkers]
    finally:
        for walker in walkers:
            walker.give_up()
        for walker in walkers:
            walker.thread.join()


@dataclass(frozen=True, eq=False)
class _Call:
    """What a walk asks of a network; see `Network`."""

    network: Network
    latents: Tensor
    timestep: Tensor
    told: NetworkConditions

    @property
    def likeness(self) -> Hashable:
        """What calls that can be one call have in common."""
        shapes = self.latents.shape[1:], self.told.states.shape[1:], self.told.pooled is None
        return id(self.network), self.timestep.dtype, *shapes


class _GivenUp(BaseException):
    """Ends a walk that nobody waits for."""


class _Walker(Generic[T]):
    """A walk that stops at every call of a network until it is told to go on."""

    def __init__(self, walk: Callable[[Join], T]) -> None:
        self._walk = walk
        self._inference = torch.is_inference_mode_enabled()  # threads do not inherit it
        self._may_go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._given_up = False
        self._error: BaseException | None = None
        self._results: list[T] = []
        self.call: _Call | None = None
        self.answer = torch.empty(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def asked(self) -> _Call:
        """What it waits for."""
        assert self.call is not None
        return self.call

    @property
    def result(self) -> T:
        """What the walk returned, once it is through."""
        return self._results[0]

    def go_on(self) -> None:
        """Let it walk to its next call, or its end; raise what it raises."""
        self._may_go.release()
        self._stands.acquire()
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Let it end where it stands; of no effect on one that is through."""
        self._given_up = True
        self._may_go.release()

    def _run(self) -> None:
        try:
            with torch.inference_mode(self._inference):
                self._wait()
                self._results.append(self._walk(self._joined))
        except BaseException as error:
            self._error = error
        self.call = None
        self._stands.release()

    def _joined(self, network: Network) -> Network:
        def ask(latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
            self.call = _Call(network, latents, timestep, told)
            self._stands.release()
            self._wait()
            return self.answer

        return ask

    def _wait(self) -> None:
        self._may_go.acquire()
        if self._given_up:
            raise _GivenUp


def _answer(
    walkers: Sequence[_Walker[T]],
    known: dict[tuple[int, ...], tuple[list[NetworkConditions], NetworkConditions]],
) -> None:
    """Run what several walkers ask as one call; ``known`` keeps joined conditions from step to step."""
    check_time()
    calls = [walker.asked for walker in walkers]
    if len(calls) == 1:
        walkers[0].answer = calls[0].network(calls[0].latents, calls[0].timestep, calls[0].told)
        return
    tolds = [call.told for call in calls]
    key = tuple(map(id, tolds))
    if key not in known:
        known[key] = tolds, _conditions_of(tolds)  # the parts are kept too, so that their ids stay theirs
    sizes = [len(call.latents) for call in calls]
    timesteps = torch.cat(
        [call.timestep.reshape(1).expand(size) for call, size in zip(calls, sizes, strict=True)]
    )
    output = calls[0].network(torch.cat([call.latents for call in calls]), timesteps, known[key][1])
    for walker, part in zip(walkers, output.split(sizes), strict=True):
        walker.answer = part


def _conditions_of(parts: Sequence[NetworkConditions]) -> NetworkConditions:
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return NetworkConditions(
        torch.cat([part.states for part in parts]),
        torch.cat(pooled) if pooled else None,
        torch.cat([part.sizes for part in parts]),
        torch.cat([part.guidance for part in parts]),
    )


def _timed(network: Network) -> Network:
    def run(latents: Tensor, timestep: Tensor, told: NetworkConditions) -> Tensor:
        check_time()
        return network(latents, timestep, told)

    return run
