"""The arithmetic of scale, against the libraries that will do the work and against what its document says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.scale import GPUS, SHAPES, main
from flowsmith.evaluation.scale import GPU, Shape, Share, Work, cycle, memory
from lightning_modules.command_line.config_files import ROOT

RANK = 16
SMALL = Shape("small", 64, 2, 4, 2, 16, 176, 320, bias=True)


def config_of(shape: Shape, **more: Any) -> Any:
    from transformers import LlamaConfig, Qwen2Config

    sizes: dict[str, Any] = {
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary, "tie_word_embeddings": False,
    }  # fmt: skip
    kind = Qwen2Config if shape.bias else LlamaConfig
    return kind(**sizes | ({} if shape.bias else {"head_dim": shape.head}) | more)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_numbers_are_those_of_the_networks(shape: Shape) -> None:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config_of(shape))
    assert shape.parameters() == sum(p.numel() for p in network.parameters())


def test_the_reward_ensembles_encoder_is_modernbert_base() -> None:
    from transformers import AutoModel, ModernBertConfig

    with torch.device("meta"):
        network = AutoModel.from_config(ModernBertConfig())
    assert Work().encoder == sum(p.numel() for p in network.parameters())


def with_lora(shape: Shape, dtype: torch.dtype = torch.float32) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_config(config_of(shape)).to(dtype)
    return get_peft_model(network, LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))


def test_an_adapter_is_as_large_as_peft_makes_it() -> None:
    trained = [p for p in with_lora(SMALL).parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == SMALL.adapter(RANK)


def kept(shape: Shape, tokens: int) -> int:
    """Return the bytes that autograd keeps of a forward pass besides parameters, each storage once."""
    network = with_lora(shape, torch.bfloat16)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []  # or the place of one would be given to the next

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    ids = torch.arange(tokens)[None] % shape.vocabulary
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        network.base_model.model.model(input_ids=ids, use_cache=False)
    return sum(sizes.values())


def test_a_layer_keeps_what_autograd_keeps() -> None:
    """The difference of two depths and of two lengths: what the embedding keeps is not a layer's."""
    deep = replace(SMALL, layers=SMALL.layers + 1)
    layer = {tokens: kept(deep, tokens) - kept(SMALL, tokens) for tokens in (128, 256)}
    assert layer[256] - layer[128] == 128 * SMALL.kept_of_a_layer(RANK)
    assert layer[128] - 128 * SMALL.kept_of_a_layer(RANK) == 2 * SMALL.adapter(RANK) / SMALL.layers


def test_memory_by_hand() -> None:
    work = Work(
        prompts=4, samples=2, prompt=10, budget=30, codec=97, rank=RANK, rows=6, micro_tokens=50, chunk=5, members=2,
        encoder=1000,
    )  # fmt: skip
    held = memory(SMALL, work)
    adapter, new = SMALL.adapter(RANK), 2 * 100 * 64
    assert held["base model, bf16"] == 2 * (SMALL.parameters() + new)
    assert held["two adapters and their token rows, fp32"] == 2 * 4 * (adapter + new)
    slots = 6 * 30 + 3 * 10  # of rows, of prompts
    assert (
        held["key-value cache of rollouts, bf16"] == slots * 2 * 2 * 2 * 2 * 16
    )  # bytes, k and v, layers, width
    assert held["layer inputs kept by gradient checkpointing, bf16"] == 50 * 2 * 64 * 2
    assert held["logits of one chunk and their gradients, fp32"] == 3 * 5 * 97 * 4
    rollout = held["key-value cache of rollouts, bf16"]
    parts = sum(value for name, value in held.items() if name != "total")
    assert held["total"] == parts - min(rollout, parts - rollout - sum([*held.values()][:6]))


def test_a_cycle_by_hand() -> None:
    card = GPU("card", 1e9, operations=1e9, bandwidth=1e6, link=1e3)
    work = Work(
        prompts=2, samples=3, prompt=10, flow=20, budget=40, free=0.5, codec=97, rank=RANK, rows=4, epochs=2,
        minibatches=3, members=2, encoder=1000,
    )  # fmt: skip
    numbers = SMALL.read() + SMALL.adapter(RANK) + 97 * 64
    shares = Share(operations=0.5, bandwidth=0.25, launches=0.0, network=10.0)
    one = cycle(SMALL, card, work, shares)
    assert one.reference == pytest.approx(2 * numbers * 140 / 0.5e9)  # 2 x 10 + 6 x 20
    assert one.update == pytest.approx(2 * 6 * numbers * 140 / 0.5e9)
    assert one.reward == pytest.approx(2 * 2 * 1000 * 6 * 30 / 0.5e9)
    cache = 4 * 30 * 2 * 2 * 2 * 32  # rows, slots, bytes, k and v, layers, width
    step = (2 * numbers + cache) / 0.25e6
    assert step > 2 * numbers * 4 / 0.5 / 0.5e9
    assert one.rollout == pytest.approx(2 * numbers * 20 / 0.5e9 + 2 * 20 * step)
    assert (one.sampled, one.trained, one.reduce) == (120, 280, 0)
    slow = cycle(SMALL, card, work, replace(shares, launches=10.0))  # of two layers
    assert slow.rollout == pytest.approx(2 * numbers * 20 / 0.5e9 + 2 * 20 * 20)
    ring = 6 * 2 * 7 / 8 * 4 * SMALL.adapter(RANK)  # six updates
    assert cycle(SMALL, card, work, shares, 8).reduce == pytest.approx(ring / 1e3)
    assert cycle(SMALL, card, work, shares, 8, 2).reduce == pytest.approx(ring / 10.0)


def test_the_document_shows_what_the_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "scale.json")]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    document = (ROOT / "docs" / "scale.md").read_text().splitlines()
    assert len(printed) > 20
    assert [line for line in printed if line not in document] == []
    written = json.loads((tmp_path / "scale.json").read_text())
    assert all(held["total"] < card.memory for held in written["memory"].values() for card in GPUS)


def test_every_setting_of_a_cycle_is_an_option(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    assert main(["--out", str(out), "--flow", "50", "--free", "0.5", "--operations", "0.7"]) == 0
    written = json.loads(out.read_text())
    assert written["work"]["flow"] == 50
    update = cycle(SHAPES[0], GPUS[0], Work(flow=50, free=0.5), Share(operations=0.7)).update
    assert written["times"][0]["update"] == pytest.approx(update)
