"""Proposal, rows, means and sheets on two real processes."""

import json
import subprocess
import sys
from pathlib import Path

from flowsmith.scored_flows import read_scored_flows
from tests.callbacks.painting import grey
from tests.flows_for_tests import some_flows

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json
import sys
from pathlib import Path
from lightning import Callback, Trainer
from callbacks import EvaluationReport, ImageMetrics, ScoredFlowWriter
from datamodules.design_prompts import DesignPrompts
from flowsmith.prompts import Prompt, write_prompts
from lightning_modules.design import DesignModule
from tests.callbacks.painting import Grey, OneFlow, execution
from tests.flows_for_tests import DOMAIN, some_flows

class Totals(Callback):
    def on_predict_end(self, trainer, pl_module):
        totals = {"/".join(key): value for key, value in metrics.totals().items()}
        (folder / f"totals{trainer.global_rank}.json").write_text(json.dumps(totals))

folder, processes = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(exist_ok=True)
write_prompts(folder / f"{sys.argv[3]}.jsonl", [Prompt(f"p{i}", f"prompt {i}", "train") for i in range(7)])
module = DesignModule([OneFlow(str(i), flow) for i, flow in enumerate(some_flows(2))], samples=2)
metrics = ImageMetrics([Grey("grey")])
report = EvaluationReport(sys.argv[4], str(DOMAIN), pictures=3)
trainer = Trainer(
    accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", logger=False,
    callbacks=[execution(failing="1/p3/"), metrics, ScoredFlowWriter({"grey": 1.0}), Totals(), report],
    default_root_dir=folder, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
)
data = DesignPrompts(str(folder / f"{sys.argv[3]}.jsonl"), ["train"], batch=2)
trainer.predict(module, datamodule=data, return_predictions=False)
"""


def test_two_processes_write_the_rows_of_one(tmp_path: Path, known_rows: str) -> None:
    script = tmp_path / "predict.py"
    script.write_text(f"sys_path = {str(ROOT)!r}\nimport sys\nsys.path.insert(0, sys_path)\n{SCRIPT}")
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = [sys.executable, str(script), str(folder), str(processes), "prompts", known_rows]
        subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    one, two = tmp_path / "1", tmp_path / "2"
    rows = read_scored_flows(one / "export" / "scored_flows.parquet")
    assert len(rows) == 7 * 2 * 2
    assert rows.equals(read_scored_flows(two / "export" / "scored_flows.parquet"))
    # Four prompts on one process, three on the other; both know the sums over all.
    greys = [grey(flow) for flow in some_flows(2)]
    totals = {"grey/0": [14 * greys[0], 14], "rendered/0": [14, 14]}
    totals |= {"grey/1": [12 * greys[1], 12], "rendered/1": [12, 14]}
    for name in ("1/totals0", "2/totals0", "2/totals1"):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == totals
    # The second prompt shown was rendered by the other process.
    for sheet in ("samples.png", "flows.png", "results.json"):
        assert (one / sheet).read_bytes() == (two / sheet).read_bytes()
