"""What a process says that lost another one in the middle of a collective: nothing, while it can still be ended."""

import sys
import time

import pytest
import torch

from lightning_modules.command_line import main
from lightning_modules.command_line.processes import is_of_lost_rank

GONE = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:12345")


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (GONE, True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Read error: Connection reset by peer"), True),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ConnectionError("peer"), False),  # of no collective
    ],
)
def test_errors_of_lost_ranks(monkeypatch: pytest.MonkeyPatch, error: Exception, lost: bool) -> None:
    assert not is_of_lost_rank(error)  # no process group, no ranks
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert is_of_lost_rank(error) == lost


@pytest.mark.parametrize("lost", [True, False])
def test_it_waits_for_the_end_and_tells_if_none_comes(monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            pass

        def execute(self) -> None:
            raise GONE

    waited: list[float] = []
    monkeypatch.setattr(sys.modules[main.__module__], "StageCLI", Broken)
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: lost)
    with pytest.raises(RuntimeError, match="closed by peer"):
        main("fit", [])
    assert waited == ([15.0] if lost else [])
