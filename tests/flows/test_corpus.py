"""The hand-written flows are sound, and their variants stay so."""

import json
from pathlib import Path
from random import Random

import pytest

from flowsmith.flows import (
    Codec,
    CorpusError,
    Domain,
    Flow,
    FlowError,
    Grammar,
    Schema,
    augment,
    load_corpus,
    validate,
)


def test_base_flows_are_varied_and_in_the_domain(corpus: dict[str, Flow], codec: Codec) -> None:
    assert len(corpus) >= 30
    grammar = Grammar(codec, 72)
    for name, flow in corpus.items():
        codec.domain.check(flow, codec.schema, name)
        grammar.replay(codec.encode(flow))
    seen = {
        (node.class_type, name, value)
        for flow in corpus.values()
        for node in flow.nodes
        for name, value in node.inputs
    }
    for target, grid in codec.domain.values.items():
        used = [value for value in grid if (*target.split("."), value) in seen]
        assert len(used) >= min(2, len(grid)), target
    for text in (*codec.domain.texts["positive"], *codec.domain.texts["negative"]):
        assert ("CLIPTextEncode", "text", text) in seen
    assert len({flow.structural_key for flow in corpus.values()}) == len(corpus)


def test_base_flows_are_kept_as_templates(corpus: dict[str, Flow], schema: Schema) -> None:
    for path in (Path(__file__).parents[2] / "miniature" / "flows").glob("*.json"):
        graph = json.loads(path.read_text(encoding="utf-8"))
        assert not any("seed" in node["inputs"] for node in graph.values()), path
        assert len(graph) == len(corpus[path.stem].nodes), path


def test_variants_are_valid_different_and_reproducible(
    corpus: dict[str, Flow], domain: Domain, schema: Schema
) -> None:
    found = augment(corpus, domain, Schema.core(), Random(13), 400)
    assert len(found) == 400
    assert len({flow.key for _, flow in found}) == 400
    assert found[: len(corpus)] == list(corpus.items())
    for _, flow in found:
        assert validate(flow, schema) == []
        assert domain.issues(flow, schema) == []
    assert found == augment(corpus, domain, Schema.core(), Random(13), 400)
    assert found != augment(corpus, domain, Schema.core(), Random(14), 400)
    counts = [sum(name == base for name, _ in found) for base in corpus]
    assert min(counts) >= 400 // len(corpus) - 6


def test_variants_reach_every_kind_of_change(corpus: dict[str, Flow], domain: Domain) -> None:
    base = corpus["poster"]
    variants = [flow for name, flow in augment({"poster": base}, domain, Schema.core(), Random(15), 200)]
    loras = {sum(node.class_type == "LoraLoader" for node in flow.nodes) for flow in variants}
    assert loras == {0, 1, 2}
    for class_type, name in [
        ("CheckpointLoaderSimple", "ckpt_name"), ("KSampler", "sampler_name"), ("KSampler", "scheduler"),
        ("KSampler", "cfg"), ("KSampler", "steps"), ("CLIPTextEncode", "text"),
        ("LoraLoader", "strength_model"), ("LoraLoader", "strength_clip"),
    ]:  # fmt: skip
        values = {node.get(name) for flow in variants for node in flow.nodes if node.class_type == class_type}
        assert len(values) > 1, name
    # What a variant may not touch.
    assert {
        node.get("width") for flow in variants for node in flow.nodes if node.class_type == "EmptyLatentImage"
    } == {64}


def test_a_lora_that_is_taken_out_leaves_the_plain_flow(
    corpus: dict[str, Flow], domain: Domain, schema: Schema
) -> None:
    from flowsmith.flows.corpus import _insert_lora, _remove_lora

    plain, rng = corpus["default"], Random(16)
    dressed = _insert_lora(plain, domain, schema, rng)
    lora = next(place for place, node in enumerate(dressed.nodes) if node.class_type == "LoraLoader")
    users = [node.class_type for node in dressed.nodes for _, link in node.links() if link.node == lora]
    assert sorted(users) == ["CLIPTextEncode", "CLIPTextEncode", "KSampler"]
    assert _remove_lora(dressed, domain, schema, rng) == plain


def test_a_domain_too_small_for_so_many_variants(corpus: dict[str, Flow], domain: Domain) -> None:
    content = domain.to_json()
    content["values"] = {k: v[:1] if "denoise" not in k else [1.0] for k, v in content["values"].items()}
    content["texts"] = {"positive": ["{prompt}"], "negative": [""]}
    content["values"] |= {"KSampler.steps": [20], "KSampler.cfg": [4.0]}
    content["values"] |= {f"EmptyLatentImage.{side}": [64] for side in ("width", "height")}
    content["classes"]["LoraLoader"] = 1
    with pytest.raises(CorpusError, match="only 2 different flows"):
        augment({"default": corpus["default"]}, Domain.from_json(content), Schema.core(), Random(17), 3)
    with pytest.raises(CorpusError, match="n=3"):
        augment(corpus, domain, Schema.core(), Random(0), 3)


def test_folders_that_are_no_corpus(corpus: dict[str, Flow], schema: Schema, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"holds no \.json file"):
        load_corpus(tmp_path, schema)
    (tmp_path / "a.json").write_text(json.dumps(corpus["default"].to_template()))
    (tmp_path / "b.json").write_text(json.dumps(corpus["default"].to_template()))
    with pytest.raises(CorpusError, match=r"b\.json: the same flow as a\.json"):
        load_corpus(tmp_path, schema)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(FlowError, match=r"b\.json cannot be used: \[invalid_json\]"):
        load_corpus(tmp_path, schema)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(FlowError, match=r"b\.json cannot be used: \[invalid_json\]"):
        load_corpus(tmp_path, schema)
