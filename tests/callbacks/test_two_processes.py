"""Proposal, rows and report on two real processes."""

import subprocess
import sys
from pathlib import Path

from flowsmith.scored_flows import read_scored_flows

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from lightning import Trainer
from callbacks import ImageMetrics, ScoredFlowWriter
from datamodules.design_prompts import DesignPrompts
from flowsmith.prompts import Prompt, write_prompts
from lightning_modules.design import DesignModule
from tests.callbacks.test_candidate_callbacks import Grey, OneFlow, execution
from tests.flows_for_tests import some_flows

folder, processes = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(exist_ok=True)
write_prompts(folder / f"{sys.argv[3]}.jsonl", [Prompt(f"p{i}", f"prompt {i}", "train") for i in range(7)])
module = DesignModule([OneFlow(str(i), flow) for i, flow in enumerate(some_flows(2))], samples=2)
trainer = Trainer(
    accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", logger=False,
    callbacks=[execution(failing="1/p3/"), ImageMetrics([Grey("grey")]), ScoredFlowWriter({"grey": 1.0})],
    default_root_dir=folder, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
)
data = DesignPrompts(str(folder / f"{sys.argv[3]}.jsonl"), ["train"], batch=2)
trainer.predict(module, datamodule=data, return_predictions=False)
"""


def test_two_processes_write_the_rows_of_one(tmp_path: Path) -> None:
    script = tmp_path / "predict.py"
    script.write_text(f"sys_path = {str(ROOT)!r}\nimport sys\nsys.path.insert(0, sys_path)\n{SCRIPT}")
    tables = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = [sys.executable, str(script), str(folder), str(processes), "prompts"]
        subprocess.run(command, check=True, timeout=300, cwd=ROOT)
        tables.append(read_scored_flows(folder / "export" / "scored_flows.parquet"))
    assert len(tables[0]) == 7 * 2 * 2
    assert tables[0].equals(tables[1])
