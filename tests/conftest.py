"""What all tests share: few threads, and no process group or signal handler left behind."""

import os
import signal
from collections.abc import Iterator

# Before torch is imported: the machines that run this have two cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Nothing here may reach a network, not even by accident.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import torch.distributed
from hypothesis import settings

# Equal examples in every run, so that what failed once fails again; no deadlines on a shared machine.
settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")
torch.set_num_threads(min(2, int(os.environ["OMP_NUM_THREADS"])))

# Set by launchers; one that a test leaves behind would make the next believe that it is rank 0 of two.
_LAUNCHER = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    environment = {name: os.environ.get(name) for name in _LAUNCHER}
    handlers = {
        signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    }
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
