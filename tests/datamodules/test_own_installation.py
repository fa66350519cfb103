"""Vocabulary training on a corpus of somebody's own installation, whose nodes are not the project's."""

import json
from pathlib import Path

from datamodules.prompt_flow_pairs import PromptFlowPairs
from flowsmith.flows import load_corpus
from flowsmith.flows.building.build import Settings, build_corpus
from tests.flows.building_world import FAMILIES, graph, installation


def test_pairs_speak_of_what_is_installed(tmp_path: Path) -> None:
    theirs, out = tmp_path / "theirs", tmp_path / "corpus"
    theirs.mkdir()
    out.mkdir()
    for name, made in {"a": graph(), "b": graph(steps=33), "c": graph(loras=("clay.safetensors",))}.items():
        (theirs / f"{name}.json").write_text(json.dumps(made))
    models = [f"{name}: {{family: {file.family or 'null'}}}" for name, file in FAMILIES.items()]
    (out / "models.yaml").write_text("\n".join(models))
    build_corpus(theirs, installation(), out, Settings(min_uses=1, size=6))
    prompts = [
        {"id": f"p{i}", "text": f"a fox {i}", "split": "validation" if i == 3 else "train"} for i in range(4)
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    data = PromptFlowPairs(
        domain=str(out / "domain.yaml"),
        corpus=str(out / "flows"),
        prompts=str(tmp_path / "prompts.jsonl"),
        pairs=20,
        batch_size=5,
        text_vocabulary=320,
    )
    data.setup()
    flows = set(load_corpus(out / "flows", data.codec.schema).values())
    pairs = [data._sets[part] for part in ("train", "validation")]
    assert {data.codec.decode(pair.tokens) for some in pairs for pair in some} <= flows
    assert {pair.prompt for pair in pairs[0]} == {"a fox 0", "a fox 1", "a fox 2"}
    assert "CheckpointLoaderSimple.ckpt_name=old_a.safetensors" in " ".join(data.codec.vocabulary)
