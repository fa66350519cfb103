"""Signals: noted at any time, acted on where a run can go on from, told by the exit code."""

import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from callbacks import preemption
from callbacks.preemption import Preemption, Stopped, StopSignals, requeue_job

NO_MODULE: Any = None


def send(signum: signal.Signals) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(5)  # the handler runs here at the latest, and ends this


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_outside_a_batch_a_signal_stops_at_once(signum: signal.Signals, code: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Stopped) as caught, StopSignals():
        send(signum)
    assert (caught.value.code, caught.value.at_once) == (code, False)
    assert signal.getsignal(signum) is before


def test_inside_a_batch_it_is_noted_and_handed_on() -> None:
    told: list[int] = []
    with StopSignals() as signals:
        signals.deferring, signals.forward = True, told.append
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the same press by another road
        assert signals.received == signal.SIGTERM
    assert told == [signal.SIGTERM]


def test_a_second_signal_gives_the_batch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "_SAME_PRESS", 0.0)
    with StopSignals() as signals:
        signals.deferring = True
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stopped) as caught:
            send(signal.SIGINT)
    assert caught.value.at_once
    assert caught.value.code == 138  # the first one is why


def test_what_slurm_sends_after_the_requeue_changes_nothing() -> None:
    with StopSignals() as signals:
        signals.received, signals.leaving = signal.SIGUSR1, True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        assert signals.received == signal.SIGUSR1


def test_a_forked_worker_leaves_it_to_its_parent() -> None:
    with StopSignals() as signals:
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0 if signals.received is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert signals.received is None


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "71"}, "requeue 71"),
        ({"SLURM_JOB_ID": "73", "SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "2"}, "requeue 71_2"),
        ({"SLURM_JOB_ID": "7; rm -rf x"}, None),
    ],
)
def test_requeue_asks_slurm_for_this_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], asked: str | None
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert requeue_job() == (asked is not None)
    written = tmp_path / "asked"
    assert (written.read_text().strip() if written.exists() else None) == asked


def test_requeue_without_scontrol_is_no(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    assert not requeue_job()


@pytest.mark.parametrize(
    ("rank", "told", "done"),
    [
        (0, {"stop": True, "warned": True}, ["scontrol", "barrier"]),
        (1, {"stop": True, "warned": True}, ["barrier"]),
        (0, {"stop": True, "warned": False}, []),
        (0, {"stop": False, "warned": False}, None),
    ],
)
def test_no_rank_leaves_before_the_job_is_requeued(
    monkeypatch: pytest.MonkeyPatch, rank: int, told: dict[str, bool], done: list[str] | None
) -> None:
    """srun --kill-on-bad-exit ends all ranks, and with them scontrol, when the first one leaves."""
    answers, calls = iter(told.values()), list[str]()
    strategy = SimpleNamespace(
        reduce_boolean_decision=lambda own, all: next(answers), barrier=lambda: calls.append("barrier")
    )
    log = SimpleNamespace(update_train_step_metrics=lambda: None)
    trainer: Any = SimpleNamespace(
        strategy=strategy, is_global_zero=rank == 0, is_last_batch=False, accumulate_grad_batches=1,
        _logger_connector=log,
    )  # fmt: skip
    monkeypatch.setattr(preemption, "requeue_job", lambda: calls.append("scontrol"))
    signals = StopSignals()
    with nullcontext() if done is None else pytest.raises(Stopped) as caught:
        Preemption(signals, None).on_train_batch_end(trainer, NO_MODULE, None, None, 0)
    assert calls == (done or [])
    assert signals.leaving == bool(calls)
    assert caught is None or caught.value.requeued == bool(calls)


@pytest.mark.parametrize(
    ("batch", "last", "stops"), [(0, False, False), (1, False, True), (1, True, False), (2, True, False)]
)
def test_it_stops_between_whole_updates_inside_an_epoch(batch: int, last: bool, stops: bool) -> None:
    strategy = SimpleNamespace(reduce_boolean_decision=lambda own, all: own)
    log = SimpleNamespace(update_train_step_metrics=lambda: None)
    trainer: Any = SimpleNamespace(
        strategy=strategy, is_last_batch=last, accumulate_grad_batches=2, _logger_connector=log
    )
    signals = StopSignals()
    signals.received = signal.SIGTERM
    stopping = Preemption(signals, None)
    with pytest.raises(Stopped) if stops else nullcontext():
        stopping.on_train_batch_end(trainer, NO_MODULE, None, None, batch)
    with pytest.raises(Stopped):
        stopping.on_train_epoch_end(trainer, NO_MODULE)
