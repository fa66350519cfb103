from pathlib import Path

import pytest
import torch

from flowsmith.rewards.ensemble import RewardEnsemble
from flowsmith.rewards.pairs import PairTokenizer, RewardsError
from flowsmith.rewards.prior import FlowPrior
from flowsmith.rewards.surrogate import SmallEncoder, Surrogate, build_member
from tests.flows_for_tests import some_flows
from tests.rewards.world import codec, scenes

FLOWS = some_flows(6)
PROMPTS = [scene.text for scene in scenes(6)]
TOKENIZER = PairTokenizer.from_captions(PROMPTS, codec(), size=300)
TINY = SmallEncoder(width=16, layers=1, heads=2)
IDS = TOKENIZER.batch([TOKENIZER.encode(p, f) for p, f in zip(PROMPTS, FLOWS, strict=True)])


def member(prior_scale: float = 0.5, seed: int = 0) -> Surrogate:
    return build_member(TINY, TOKENIZER, prior_scale=prior_scale, seed=seed).eval()


@torch.no_grad()
def test_padding_and_company_do_not_change_a_score() -> None:
    network = member()
    together = network(IDS)
    for row, (prompt, flow) in enumerate(zip(PROMPTS, FLOWS, strict=True)):
        alone = network(torch.tensor([TOKENIZER.encode(prompt, flow)]))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prior_is_added_at_its_scale() -> None:
    network = member(prior_scale=0.0)
    plain = network(IDS)
    network.prior_scale = 2.0
    prior = network.prior(IDS - TOKENIZER.ids.flow, TOKENIZER.ids.flow <= IDS)
    torch.testing.assert_close(network(IDS), plain + 2 * prior)


def test_prior_by_hand() -> None:
    prior = FlowPrior(("a", "b"), torch.Generator().manual_seed(0), width=2)
    prior.table.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    prior.hidden.copy_(torch.eye(2))
    prior.out.copy_(torch.tensor([1.0, -1.0]))
    got = prior(
        torch.tensor([[0, 1, 0, 1], [0, -7, 99, 0]]), torch.tensor([[True] * 4, [True, False, False, False]])
    )
    # Row 0 pools to (2, 6) / 2; row 1 to (1, 0), whatever stands under its mask.
    sine = torch.sin(torch.tensor([1.0, 3.0, 1.0, 0.0]))
    torch.testing.assert_close(got, 2**0.5 * torch.stack([sine[0] - sine[1], sine[2] - sine[3]]))


def test_prior_is_of_unit_size_differs_between_members_and_does_not_learn() -> None:
    flows = some_flows(300)
    ids = TOKENIZER.batch([TOKENIZER.encode("a", flow) for flow in flows])
    tokens, mask = ids - TOKENIZER.ids.flow, ids >= TOKENIZER.ids.flow
    priors = [FlowPrior(codec().vocabulary, torch.Generator().manual_seed(seed)) for seed in range(12)]
    values = torch.stack([prior(tokens, mask) for prior in priors])
    assert 0.5 < float(values.std(0).mean()) < 1.5  # between members, at a flow
    assert float(values.std(1).mean()) > 0.3  # between flows, for a member
    assert not list(priors[0].parameters())


def test_seed_decides_all_and_the_global_state_nothing() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = member(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = member(seed=3), member(seed=4)
    for (name, a), b, c in zip(
        first.state_dict().items(), second.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
        constant = a.unique().numel() == 1  # biases and scales
        assert constant or not torch.equal(a, c), name


def test_flow_tokens_start_ordered_in_the_encoder() -> None:
    network = member()
    vocabulary = list(codec().vocabulary)
    rows = network.encoder.get_input_embeddings().weight.detach()[TOKENIZER.ids.flow :]
    cfg = [vocabulary.index(f"KSampler.cfg={value}") for value in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0)]
    distance = torch.cdist(rows[cfg], rows[cfg])[0]
    assert (distance.diff() > 0).sum() >= 6  # a little noise of each value's own may swap neighbours
    assert float(distance[7]) > 2 * float(distance[1])


def test_every_parameter_has_a_gradient() -> None:
    network = member().train()
    network(IDS).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_pretrained_folder_runs_through_the_same_code(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from transformers import AutoModel, BertConfig, ModernBertConfig, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp(kind)
    text = PairTokenizer.from_captions(PROMPTS, codec(), size=300).text
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=text, **special)
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": 320, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "bert":
        config = BertConfig(**sizes, intermediate_size=32, max_position_embeddings=128)
    else:
        ids = {
            f"{role}_token_id": tokenizer.convert_tokens_to_ids(special["sep_token"])
            for role in ("bos", "eos")
        }
        ids |= {"pad_token_id": tokenizer.pad_token_id, "cls_token_id": tokenizer.cls_token_id}
        config = ModernBertConfig(**sizes, intermediate_size=32, sep_token_id=tokenizer.sep_token_id, **ids)
    pretrained = AutoModel.from_config(config)
    pretrained.save_pretrained(folder)

    ensemble = RewardEnsemble.create(codec(), [], members=2, encoder=str(folder), max_tokens=128)
    assert ensemble.tokenizer.ids.flow == 320
    first = ensemble.members[0]
    assert isinstance(first, Surrogate)
    kept = first.encoder.get_input_embeddings().weight[:320]
    torch.testing.assert_close(kept, pretrained.get_input_embeddings().weight)
    pair = ensemble.tokenizer.encode("a [SEP] star", FLOWS[0])
    assert pair.count(ensemble.tokenizer.ids.separator) == 2  # the prompt's own "[SEP]" is text
    mean, std = ensemble.predict(PROMPTS, FLOWS)
    assert torch.isfinite(mean).all()
    assert (std > 0).all()
    ensemble.export(folder / "export")
    again, _ = RewardEnsemble.load(folder / "export").predict(PROMPTS, FLOWS)
    torch.testing.assert_close(again, mean)


@pytest.mark.parametrize("files", [{}, {"config.json": "{}"}])
def test_an_encoder_that_is_none_is_told(tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    encoder = str(tmp_path if files else tmp_path / "nope")
    with pytest.raises(RewardsError, match=rf"^encoder={encoder}: cannot be loaded .*; name a folder"):
        RewardEnsemble.create(codec(), [], members=2, encoder=encoder)
