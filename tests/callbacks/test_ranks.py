"""Real pictures on two real processes: the same ones as on one; a process that dies costs nothing but its own work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.scored_flows import read_scored_flows
from tests.tiny_world import make_tiny_checkpoint

ROOT = Path(__file__).parents[2]
PROMPTS, SAMPLES, NAMES = 7, 2, ("euler", "dpmpp_2m_sde")
SCRIPT = """
import os
import signal
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from lightning import Callback, Trainer
from callbacks import FlowExecution, ImageMetrics, PictureKeeper, ScoredFlowWriter
from datamodules.design_prompts import DesignPrompts
from flowsmith.flows import Flow, Schema
from flowsmith.prompts import Prompt, write_prompts
from lightning_modules.design import DesignModule
from tests.callbacks.painting import Grey, OneFlow
from tests.tiny_world import tiny_graph

folder, processes, dies = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


class Noted(FlowExecution):
    def fill(self, module, batch):
        super().fill(module, batch)
        with (folder / f"rendered{os.getpid()}.txt").open("a") as stream:
            stream.writelines(f"{c.sample_id}\\n" for c in batch.candidates)


class Dies(Callback):
    def on_predict_start(self, trainer, module):
        (folder / f"pid{trainer.global_rank}.txt").write_text(str(os.getpid()))

    def on_predict_batch_start(self, trainer, module, batch, batch_idx, *rest):
        if trainer.global_rank == dies and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)


if not (folder / "prompts.jsonl").exists():
    write_prompts(folder / "prompts.jsonl", [Prompt(f"p{i}", f"{i} red stars", "train") for i in range(7)])
schema = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["tiny"]})
graphs = [tiny_graph(ckpt_name="tiny", positive="{prompt}", sampler_name=name) for name in ("euler", "dpmpp_2m_sde")]
designers = [OneFlow(g["5"]["inputs"]["sampler_name"], Flow.from_template(g, schema)) for g in graphs]
trainer = Trainer(
    accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", logger=False,
    callbacks=[Dies(), Noted(str(folder.parent / "models"), 4), ImageMetrics([Grey("grey")]), PictureKeeper(),
               ScoredFlowWriter()],
    default_root_dir=folder, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
)
data = DesignPrompts(str(folder / "prompts.jsonl"), ["train"], batch=2)
trainer.predict(DesignModule(designers, samples=2), datamodule=data, return_predictions=False)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_tiny_checkpoint(folder / "models" / "checkpoints" / "tiny")
    (folder / "predict.py").write_text(SCRIPT)
    return folder


def predict(world: Path, name: str, processes: int, dies: int = -1) -> int:
    folder = world / name
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "predict.py", str(ROOT), str(folder), str(processes), str(dies)]
    code = subprocess.run(
        command, check=False, timeout=900, cwd=world, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return code.returncode


def rendered(folder: Path) -> list[str]:
    return [line for file in folder.glob("rendered*.txt") for line in file.read_text().split()]


def pictures(folder: Path) -> dict[str, Tensor]:
    ids: Sequence[str] = read_scored_flows(folder / "export" / "scored_flows.parquet")[
        "sample_id"
    ].to_pylist()
    assert len(ids) == len(set(ids)) == PROMPTS * SAMPLES * len(NAMES)
    found = {name: KeptPictures(folder / "pictures").get(name) for name in ids}
    return {name: picture for name, picture in found.items() if picture is not None}


def check_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert len(one) == PROMPTS * SAMPLES * len(NAMES)
    apart = torch.stack([(one[name].int() - other[name].int()).abs() for name in one])
    assert float((apart <= 1).float().mean()) >= 0.999
    assert len({picture.numpy().tobytes() for picture in one.values()}) == len(one)  # no two of them are one


def wait_for_the_end(file: Path) -> None:
    """Wait until the process that wrote its number there is gone."""
    pid = int(file.read_text())
    for _ in range(1200):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"process {pid} goes on though the other one is dead")


@pytest.fixture(scope="module")
def whole(world: Path) -> dict[str, Tensor]:
    assert predict(world, "one", 1) == 0
    return pictures(world / "one")


def test_two_processes_render_the_pictures_of_one(world: Path, whole: dict[str, Tensor]) -> None:
    assert predict(world, "two", 2) == 0
    check_equal(pictures(world / "two"), whole)
    shards = {file.name.split("-")[0] for file in (world / "two" / "rows").glob("*.parquet")}
    assert shards == {"process0", "process1"}


@pytest.mark.parametrize("rank", [0, 1])
def test_after_a_death_only_what_is_missing_is_rendered(
    world: Path, whole: dict[str, Tensor], rank: int
) -> None:
    name = f"dead{rank}"
    assert predict(world, name, 2, dies=rank) != 0
    folder = world / name
    wait_for_the_end(folder / f"pid{1 - rank}.txt")
    assert not (folder / "export").exists()
    there = set(read_scored_flows(folder / "rows")["sample_id"].to_pylist())
    assert 2 * SAMPLES * len(NAMES) <= len(there) < PROMPTS * SAMPLES * len(NAMES)
    for file in folder.glob("rendered*.txt"):
        file.unlink()
    assert predict(world, name, 2) == 0
    again = rendered(folder)
    assert len(again) == len(set(again))
    assert set(again) == whole.keys() - there
    check_equal(pictures(folder), whole)
