"""Full models side by side: each voice is its model, and what does not fit is computed in turn."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from flowsmith.policy import Rollout, generate
from flowsmith.policy.decoding import stacked_models as module
from flowsmith.policy.decoding.stacked_models import stackable, stacked_models
from tests.policy.world import PROMPTS, small_policy

SIZES = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 6,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "biases": Qwen2Config(**SIZES),
    "normed queries": Qwen3Config(**SIZES),
}


def random_model(config: Any, seed: int) -> Any:
    """A model none of whose weights is what it starts as: norms begin as 1, biases as 0."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def states(model: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_each_voice_is_its_model(name: str) -> None:
    models = [random_model(CONFIGS[name], seed) for seed in (0, 1, 2)]
    assert stackable(models)
    ids = torch.randint(50, (3, 7), generator=torch.Generator().manual_seed(3))
    alone = torch.cat([states(model, ids[voice, None]) for voice, model in enumerate(models)])
    with torch.inference_mode(), stacked_models(models):
        together = states(models[0], ids)
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(alone[0, :, 0], states(models[1], ids[0, None])[0, :, 0], atol=0.1)
    torch.testing.assert_close(states(models[0], ids[0, None])[0], alone[0], rtol=0, atol=0)  # as it was


def test_models_that_do_not_stackable(monkeypatch: pytest.MonkeyPatch) -> None:
    llama = random_model(CONFIGS["llama"], 0)
    other = random_model(CONFIGS["llama"], 1)
    wide = random_model(LlamaConfig(**SIZES | {"intermediate_size": 40}), 1)
    gpt2 = [random_model(GPT2Config(n_embd=24, n_head=2, n_layer=1, vocab_size=50), seed) for seed in (0, 1)]
    assert not stackable([llama, wide])  # of two sizes
    far = random_model(LlamaConfig(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 10.0}), 1)
    assert not stackable([llama, far])  # of other positions
    assert not stackable([llama, random_model(CONFIGS["biases"], 1)])  # of two architectures
    assert not stackable([llama, llama])  # one model under two names needs no copy
    assert not stackable([llama, random_model(CONFIGS["llama"], 1).float()])
    assert not stackable(gpt2)  # of layers that are not known here
    assert stackable([llama, other])
    monkeypatch.setattr(module, "_MOST_WEIGHTS", 1000)
    assert not stackable([llama, other])


def test_guided_flows_are_those_of_models_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = small_policy(0, 2.0, torch.double), small_policy(1, 2.0, torch.double)

    def written() -> list[Rollout]:
        groups = generate(pair[0], PROMPTS, 3, seed=5, reference=pair[1], guidance=[0.0, 0.7, 1.5])
        return [rollout for group in groups for rollout in group]

    together = written()
    monkeypatch.setattr(module, "_MOST_WEIGHTS", 0)
    in_turn = written()
    for one, other in zip(together, in_turn, strict=True):
        assert one.flow_tokens == other.flow_tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-9)
