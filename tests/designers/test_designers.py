import json
from pathlib import Path

import pytest

from flowsmith.designers import BestFixedDesigner, CorpusDesigner, DesignerError, FixedDesigner
from flowsmith.designers.known import known_flows
from flowsmith.designers.protocol import image_seed
from flowsmith.flows import FlowError, validate
from flowsmith.prompts import Prompt
from tests.designers.collection import write_collection
from tests.flows_for_tests import DOMAIN, codec, some_flows

PROMPTS = [Prompt(f"p{i}", f"prompt {i}") for i in range(4)]


def test_noise_is_shared_by_designers_and_differs_by_sample(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(some_flows(1)[0].to_template()))
    one = FixedDesigner(str(path), str(DOMAIN), "one").propose(PROMPTS, 3, seed=5)
    two = FixedDesigner(str(path), str(DOMAIN), "two").propose(PROMPTS[::-1], 3, seed=5)
    assert {(c.prompt.id, c.seed) for c in one} == {(c.prompt.id, c.seed) for c in two}
    assert len({c.seed for c in one}) == len({c.sample_id for c in one + two}) / 2 == 12
    assert all(0 <= c.seed < 2**62 and c.flow == some_flows(1)[0] for c in one)
    assert image_seed(PROMPTS[0], 0, 5) != image_seed(PROMPTS[0], 0, 6)


def test_a_flow_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(DesignerError, match=r"missing\.json: cannot be read"):
        FixedDesigner(str(tmp_path / "missing.json"), str(DOMAIN)).propose(PROMPTS, 1, 0)
    path = tmp_path / "flow.json"
    path.write_text('{"1": {"class_type": "KSamplerr", "inputs": {}}}')
    with pytest.raises(FlowError, match="KSampler"):
        FixedDesigner(str(path), str(DOMAIN)).propose(PROMPTS, 1, 0)


def test_best_fixed_takes_the_best_training_mean(tmp_path: Path) -> None:
    path = write_collection(
        tmp_path / "rows.parquet", {0: [0.0, 0.1, -0.1], 1: [1.0, 1.1, 0.9], 2: [-1.0, -0.9, -1.1]}
    )
    proposed = BestFixedDesigner(path, str(DOMAIN)).propose(PROMPTS, 2, 0)
    assert {c.flow for c in proposed} == {some_flows(6)[1]}
    assert {c.base_flow for c in proposed} == {"base1"}
    assert len(proposed) == 8


def test_only_training_rows_are_known(tmp_path: Path) -> None:
    path = write_collection(tmp_path / "rows.parquet", {0: [1.0]}, split="validation")
    with pytest.raises(DesignerError, match="no scored row of the split train"):
        known_flows(path, DOMAIN)


def test_corpus_designer_draws_other_flows_of_the_domain_by_prompt() -> None:
    folder = DOMAIN.parent / "flows"
    designer = CorpusDesigner(str(folder), str(DOMAIN), size=60, seed=0)
    proposed = designer.propose(PROMPTS, 10, seed=3)
    for prompt in PROMPTS:
        flows = [c.flow for c in proposed if c.prompt == prompt]
        assert len({flow.key for flow in flows}) == len(flows) == 10
        assert not [issue for flow in flows for issue in validate(flow, codec().schema)]
        assert {c.seed for c in proposed if c.prompt == prompt} == {image_seed(prompt, 0, 3)}, (
            "luck is shared"
        )
    again = CorpusDesigner(str(folder), str(DOMAIN), size=60, seed=0).propose(PROMPTS[2:3], 10, seed=3)
    assert [(c.sample_id, c.flow) for c in again] == [
        (c.sample_id, c.flow) for c in proposed if c.prompt == PROMPTS[2]
    ]
    with pytest.raises(DesignerError, match="without replacement"):
        designer.propose(PROMPTS, 61, 0)
