"""Two hundred tasks over four servers that fail in every way they can: each task has one result, its own."""

from collections import Counter
from collections.abc import Generator

import pytest

from flowsmith.execution import RenderResult
from flowsmith.execution.comfyui import ServerSetupError
from flowsmith.execution.comfyui.pool import RETRIES
from tests.execution.comfyui.fake_graph import Graph, task_number
from tests.execution.comfyui.fake_server import Plan
from tests.execution.comfyui.fleet import Fleet, held, pictures, tasks

FAULTS = {
    "websocket": [
        "drop", "stall", "disorder", "error 500", "history lags", "picture lost", "restart", "answer lost",
        "out of memory", "broken picture",
    ],
    "view": [
        "drop", "stall", "disorder", "error 500", "history lags", "old file", "restart", "answer lost",
        "hostile name", "broken picture",
    ],
}  # fmt: skip


class FirstTry:
    """Plans faults for some tasks, each for the first try alone or for a number of tries."""

    def __init__(self, faults: dict[int, str], tries: int = 1) -> None:
        self.faults, self.limit = faults, tries
        self.tries: Counter[int] = Counter()

    def __call__(self, graph: Graph) -> str | None:
        number = task_number(graph)
        self.tries[number] += 1
        return self.faults.get(number) if self.tries[number] <= self.limit else None


@pytest.mark.parametrize("delivery", ["websocket", "view"])
def test_a_fault_on_every_tenth_loses_nothing(delivery: str) -> None:
    kinds = FAULTS[delivery]
    plan = FirstTry({number: kinds[number // 10 % len(kinds)] for number in range(9, 200, 10)})
    wanted = tasks(200)
    with Fleet(4, plan) as fleet:
        errors = pictures(fleet.executor(delivery=delivery, timeout=3.0).render(wanted), wanted)
    assert errors == {}
    assert [server.crowd for server in fleet.servers] == [1, 1, 1, 1]
    queued = Counter(task_number(graph) for server in fleet.servers for graph in server.posted)
    assert set(queued) == set(range(200))
    assert all(times <= plan.tries[number] for number, times in queued.items())
    assert all(server.posted for server in fleet.servers), "each has its share; how large, its speed decides"
    assert max(plan.tries.values()) <= 1 + RETRIES


@pytest.mark.parametrize("fault", ["error 500", "picture lost", "stall", "history lost"])
def test_a_task_that_fails_everywhere_is_tried_three_times(fault: str) -> None:
    plan, wanted = FirstTry({3: fault}, tries=99), tasks(12)
    with Fleet(2, plan) as fleet:
        errors = pictures(fleet.executor(timeout=1.0, patience=1.0).render(wanted), wanted)
    assert list(errors) == ["3"]
    assert "given up after 3 tries" in errors["3"]
    assert plan.tries[3] == 1 + RETRIES


def test_another_server_gets_what_one_failed_at() -> None:
    plans: list[Plan] = [FirstTry({5: "picture lost"}, tries=99), FirstTry({})]
    wanted = tasks(20)
    with Fleet(2, plans) as fleet:
        assert pictures(fleet.executor().render(wanted), wanted) == {}
    assert [plan.tries[5] for plan in plans if isinstance(plan, FirstTry)] in ([1, 1], [0, 1])


@pytest.mark.parametrize("fault", ["die", "freeze"])
def test_the_others_finish_what_a_dead_server_held(fault: str) -> None:
    plan, wanted = FirstTry({4: fault}), tasks(30)
    with Fleet(3, plan) as fleet:
        executor = fleet.executor(timeout=0.5, patience=0.4, revival=30.0)
        errors = pictures(executor.render(wanted), wanted)
    assert errors == {}
    assert plan.tries[4] == 2


def test_with_no_server_left_what_is_done_is_kept_and_the_rest_is_not_called_failed() -> None:
    plan, wanted = FirstTry({7: "die"}), tasks(12)
    with Fleet(1, plan) as fleet:
        done: list[RenderResult] = []
        with pytest.raises(ServerSetupError, match="no ComfyUI server is left") as raised:
            done.extend(fleet.executor(patience=0.2, revival=0.3).render(wanted))
    assert f"{12 - len(done)} images are not rendered" in str(raised.value)
    assert "7" not in {result.sample_id for result in done}
    assert done
    assert all(result.error is None for result in done)


def test_a_server_that_comes_back_as_another_is_left_out() -> None:
    plan, wanted = FirstTry({4: "restart"}), tasks(30)
    with Fleet(2, plan) as fleet:
        executor = fleet.executor()
        assert executor.version == "comfyui 0.33.0"
        for server in fleet.servers:
            server.version = "0.34.0"
        results = list(executor.render(wanted))
    assert pictures(results, wanted) == {}
    left_out, other = sorted(
        ([task_number(graph) for graph in server.posted] for server in fleet.servers),
        key=lambda numbers: numbers[-1] != 4,
    )
    assert left_out[-1] == 4, "the task at which it went is the last that it was given"
    assert 4 in other
    assert {*left_out, *other} == set(range(30))


def test_an_interrupt_hits_our_prompt_alone() -> None:
    plan, wanted = FirstTry({1: "stall"}), tasks(3)
    with Fleet(1, plan) as fleet:
        assert pictures(fleet.executor(timeout=0.4).render(wanted), wanted) == {}
        (server,) = fleet.servers
    assert len(server.interrupted) >= 1
    entries = [server.history[name] for name in set(server.interrupted)]
    assert [entry["status"]["messages"][-1][0] for entry in entries] == ["execution_interrupted"]


def test_stopping_half_way_withdraws_what_is_running() -> None:
    posted = Counter[str]()

    def plan(graph: Graph) -> str | None:
        posted["all"] += 1
        return "stall" if posted["all"] > 4 else None

    wanted = tasks(8)
    with Fleet(2, plan) as fleet:
        stream = fleet.executor(timeout=30.0).render(wanted)
        done = [next(stream) for _ in range(4)]
        assert isinstance(stream, Generator)
        stream.close()
        queues = [fleet.call(held(server)) for server in fleet.servers]
    assert len({result.sample_id for result in done}) == 4
    assert posted["all"] > 4
    assert queues == [0, 0]
