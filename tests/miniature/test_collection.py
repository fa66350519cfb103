"""The collection that the repository ships was made with the weights that it ships."""

import yaml

from callbacks.scored_flow_writer import hash_of_weights
from flowsmith import metrics
from flowsmith.execution import Executor
from flowsmith.scored_flows import read_scored_flows
from lightning_modules.command_line.config_files import CONFIGS, ROOT


def test_collection_is_of_the_shipped_models_and_judges() -> None:
    callbacks = yaml.safe_load((CONFIGS / "collect.yaml").read_text())["trainer"]["callbacks"]
    options = {entry["class_path"]: entry.get("init_args", {}) for entry in callbacks}
    judges = []
    for entry in options["ImageMetrics"]["judges"]:
        given = {name: ROOT / value for name, value in entry["init_args"].items() if (ROOT / value).exists()}
        if given:  # the checker has no weights
            judges.append(getattr(metrics, entry["class_path"].rpartition(".")[2])(**given))
    assert len(judges) == 3
    executor = Executor(ROOT / options["FlowExecution"]["models"])
    rows = read_scored_flows(ROOT / "miniature" / "data" / "collection" / "scored_flows.parquet")
    assert set(rows["weights"].to_pylist()) == {hash_of_weights(executor.weight_hashes, judges)}
    assert set(rows["renderer"].to_pylist()) == {executor.version}
