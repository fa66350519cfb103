"""The smallest GRPO run that is whole: exports of both stages before it, a config, and what it must come to.

At module level, so that other processes can import it.
"""

import json
import math
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write
from flowsmith.rewards import RewardEnsemble, SmallEncoder
from tests.lightning_modules.grpo_world import write_world
from tests.policy.world import PROMPTS, small_codec

CYCLES = 4
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "model": {
        "class_path": "GRPOModule",
        "init_args": {
            "vocabulary": "vocabulary", "reward": "reward", "samples": 3, "epochs": 2, "minibatches": 2,
            "learning_rate": 1e-2, "warmup_steps": 2,
            # All that a cycle hands on to the next.
            "reference": "ema", "replay": 0.5, "refills": 1,
            "changes": {
                "beta": 0.1, "kl_target": 0.01, "kl_horizon": 50, "entropy_bonus": 0.01, "entropy_target": 0.5,
                "entropy_horizon": 50,
            },
        },
    },
    "data": {
        "class_path": "Prompts",
        "init_args": {"path": "prompts.jsonl", "cycles": 2, "batch_prompts": 4, "validation_prompts": 0},
    },
    "trainer": {
        "accelerator": "cpu", "devices": 1, "max_epochs": CYCLES // 2, "log_every_n_steps": 1,
        "enable_progress_bar": False, "enable_model_summary": False,
        "callbacks": [
            {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 4}},  # those of one cycle
            {"class_path": "tests.resume.world.Hold"},
        ],
    },
}  # fmt: skip
_CLOCKS = ("step_time", "time", "tokens_per_second")  # what differs from run to run
# Where it was, not what it came to: folders, and whether the last checkpoint was written in the last cycle or, by a run
# that was killed after that, at its end. What the next cycle would depend on is ``cycle`` and ``cycle_state``.
_ELSEWHERE = (
    *("dirpath", "best_model_path", "last_model_path", "kth_best_model_path", "best_k_models"),
    *("epoch", "loops"),
)


class Hold(Callback):
    """Waits in the third cycle while a file ``hold`` is there; ``held.<rank>`` in the run has its process id.

    A rank for which there is a file ``broken.<rank>`` finds a mistake before its first cycle.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if Path(f"broken.{trainer.global_rank}").exists():
            raise FlowsmithError("this is broken; mend it")
        if getattr(pl_module, "cycle", 0) != 2 or not Path("hold").exists():
            return
        told = Path(trainer.default_root_dir) / f"held.{trainer.global_rank}"
        with atomic_write(told) as temporary:
            temporary.write_text(str(os.getpid()))
        while Path("hold").exists():
            time.sleep(0.05)
        told.unlink()


def held(run: Path, ranks: int = 1) -> list[int]:
    """Return the process ids of the ranks that wait, nothing before all do."""
    files = [run / f"held.{rank}" for rank in range(ranks)]
    return [int(file.read_text()) for file in files] if all(file.exists() for file in files) else []


def runs(process: int) -> bool:
    """Whether a process is there; one that is dead and that nobody waits for is not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")


def wait_for(what: Callable[[], object], seconds: float, told: Callable[[], str] = lambda: "") -> None:
    """Return once it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s; {told()}"
        time.sleep(0.1)


def write_run(folder: Path, **settings: Any) -> Path:
    """Write exports, prompts and ``grpo.yaml`` into a folder; ``settings`` are the module's."""
    write_world(folder)
    sizes = SmallEncoder(width=16, layers=1, heads=2, text_vocabulary=300)
    RewardEnsemble.create(small_codec(), PROMPTS, members=2, encoder=sizes).export(folder / "reward")
    config = json.loads(json.dumps(CONFIG))
    config["model"]["init_args"] |= settings
    (folder / "grpo.yaml").write_text(yaml.safe_dump(config))
    return folder


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """Return everything that a run came to: its last checkpoint, its export, what it logged of each cycle."""
    run = folder / "runs" / name
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)
    logged: dict[int, dict[str, Any]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        logged[row["step"]] = {key: row[key] for key in row if key != "start" and not key.startswith(_CLOCKS)}
    export = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted((run / "export").rglob("*"))
        if path.is_file() and path.name != "export.json"
    }
    return {"checkpoint": checkpoint, "export": export, "logged": logged}


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Return where two outcomes differ, in any bit of any tensor."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = (
            one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bytes(one), _bytes(other))
        )
        return [] if same else [at]
    if type(one) is not type(other):
        return [f"{at}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, dict):
        found = [f"{at}.{key}" for key in one.keys() ^ other.keys() if key not in _ELSEWHERE]
        for key in one.keys() & other.keys() - {*_ELSEWHERE}:
            found += differences(one[key], other[key], f"{at}.{key}")
        return found
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{at}: {len(one)} and {len(other)}"]
        return [
            d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{at}.{i}")
        ]
    if isinstance(one, float) and math.isnan(one) and math.isnan(other):
        return []
    return [] if one == other else [f"{at}: {one!r} and {other!r}"]
