"""Phase times, with a clock that is set by hand."""

import time

import pytest
import torch

from flowsmith.policy.phases import PhaseClock


def test_phases_add_up_and_are_shares_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = PhaseClock(torch.device("cpu"))
    for phase, seconds in (("rollout", 3.0), ("reward", 1.0), ("rollout", 2.0), ("update", 2.0)):
        with clock(phase):  # type: ignore[arg-type]
            now[0] += seconds
    now[0] += 2.0
    assert clock.values() == {
        "step_time": 10.0,
        "time/rollout": 5.0,
        "time/reward": 1.0,
        "time/logprob": 0.0,
        "time/update": 2.0,
        "time_share/rollout": 0.5,
        "time_share/reward": 0.1,
        "time_share/logprob": 0.0,
        "time_share/update": 0.2,
    }
