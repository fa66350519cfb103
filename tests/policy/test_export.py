"""Exports: whole, exact, free of pickle, and readable by others."""

import json
from pathlib import Path

import pytest
import torch

from flowsmith.policy import Policy, PolicyError, flow_logprobs, generate, load_pair
from tests.policy.world import PROMPTS, small_policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_policy(seed=1).export(tmp_path / "export")
    return tmp_path / "export"


def test_round_trip_is_exact(folder: Path) -> None:
    before, after = small_policy(seed=1), Policy.load(folder)
    for (name, a), (other, b) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
        assert not b.requires_grad
    tokens = [[r.flow_tokens for g in generate(p, PROMPTS, 2, seed=0) for r in g] for p in (before, after)]
    assert tokens[0] == tokens[1]
    assert after.grammar.budget == before.grammar.budget


def test_nothing_but_safetensors_and_json(folder: Path) -> None:
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert {Path(f).suffix for f in files} == {".json", ".safetensors"}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "codec/codec.json",
        "flowsmith.json",
    } <= files


def test_transformers_alone_reads_it(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.arange(20)[None]
    alone = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        assert torch.equal(alone(ids).logits, Policy.load(folder).causal(ids).logits)


def test_an_export_replaces_the_one_before_and_leaves_no_rest(folder: Path) -> None:
    (folder / "stale.json").write_text("{}")
    small_policy(seed=2).export(folder)
    assert not (folder / "stale.json").exists()
    assert [f.name for f in folder.parent.iterdir()] == ["export"]


def test_a_failing_export_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "model.safetensors").read_bytes()
    policy = small_policy(seed=2)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(policy.tokenizer, "save", full)
    with pytest.raises(OSError, match="no space"):
        policy.export(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [f.name for f in folder.parent.iterdir()] == ["export"]


def test_a_missing_export_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"train\.py --config vocabulary\.yaml"):
        Policy.load(tmp_path / "nowhere")


def test_corrupt_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PolicyError, match=str(folder)):
        Policy.load(folder)


def test_weights_of_another_codec_are_refused(folder: Path) -> None:
    card = json.loads((folder / "flowsmith.json").read_text())
    (folder / "flowsmith.json").write_text(json.dumps(card | {"codec": "0123456789abcdef"}))
    with pytest.raises(PolicyError, match="0123456789abcdef"):
        Policy.load(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": "x"}, r"\(budget='x'\)"),
        ({"budget": None}, r"\(budget=None\)"),
        ({"budget": True}, r"\(budget=True\)"),
        ({"base": None, "kind": 3}, r"\(base=None, kind=3\)"),
        ({"dtype": "float7"}, "unreadable weights"),
    ],
)
def test_a_card_with_fields_of_another_kind_is_refused(
    folder: Path, change: dict[str, object], says: str
) -> None:
    card = json.loads((folder / "flowsmith.json").read_text())
    (folder / "flowsmith.json").write_text(json.dumps(card | change))
    with pytest.raises(PolicyError, match=f"{says}.*export .*again"):
        Policy.load(folder)


@pytest.mark.parametrize("card", ['{"base": ""}', "[]", "3", "{"])
def test_a_card_without_its_fields_is_refused(folder: Path, card: str) -> None:
    (folder / "flowsmith.json").write_text(card)
    with pytest.raises(PolicyError, match=r"budget=None|not an exported policy"):
        Policy.load(folder)


def test_a_pair_is_two_models_of_which_one_trains(folder: Path) -> None:
    policy, reference = load_pair(folder, folder, trainable=True)
    assert all(p.requires_grad for p in policy.parameters())
    assert not any(p.requires_grad for p in reference.parameters())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
        tokens = generate(reference, PROMPTS[:1], 1, seed=0)[0][0].flow_tokens
        original = flow_logprobs(small_policy(seed=1), PROMPTS[:1], [tokens])[0]
        assert torch.equal(flow_logprobs(reference, PROMPTS[:1], [tokens])[0], original)
