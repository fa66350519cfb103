"""Real processes that start in a moment: forked from a server that has imported everything once.

A test of what happens to processes would otherwise spend nine tenths of its time on imports. Each is a process of its
own, to be killed, waited for, or joined with others in a group; only what it imports is shared.
"""

import json
import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft  # noqa: F401
import torch
import transformers.models.bert.modeling_bert
import transformers.models.llama.modeling_llama  # noqa: F401

import callbacks  # noqa: F401
import datamodules  # noqa: F401
import lightning_modules.command_line  # noqa: F401
from flowsmith.rewards import RewardEnsemble  # noqa: F401
from lightning_modules.command_line.config_files import ROOT
from tests.moments import Moment, watched

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])
_PATIENCE = 120.0  # seconds


def forked(function: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start a function of a module in a process of its own."""
    process = _SERVER.Process(target=_alone, args=(function, arguments))
    process.start()
    return process


def _alone(function: Callable[..., None], arguments: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    function(*arguments)


def ended(process: multiprocessing.process.BaseProcess, seconds: float = _PATIENCE) -> int:
    """Wait for a process and return its exit code, that of a signal negative."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"process {process.pid} was still there after {seconds} s")
    return process.exitcode


def group(size: int) -> list[dict[str, str]]:
    """Return the environment that a launcher gives to each rank of a group on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size), "NODE_RANK": "0"}
    return [common | {"LOCAL_RANK": str(rank)} for rank in range(size)]


def train(
    folder: Path,
    *words: str,
    environment: Mapping[str, str] | None = None,
    moment: Moment | None = None,
    counts: Path | None = None,
    script: str = "train.py",
) -> multiprocessing.process.BaseProcess:
    """Start ``python train.py``, or another script, in a folder; what it prints is appended to ``<rank>.log`` there.

    Args:
        folder: Working folder.
        words: Command line.
        environment: Variables besides the present ones.
        moment: When it kills itself, without a handler or a farewell.
        counts: JSON file for what there was to kill it at.
        script: Of the repository.
    """
    return forked(_train, folder, words, dict(environment or {}), moment, counts, script)


def _train(
    folder: Path,
    words: Sequence[str],
    environment: Mapping[str, str],
    moment: Moment | None,
    counts: Path | None,
    script: str,
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    log = os.open(f"{environment.get('LOCAL_RANK', '0')}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [str(ROOT / script), *words]
    with watched(moment) as seen:
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        finally:
            if counts is not None:
                counts.write_text(json.dumps(seen))
