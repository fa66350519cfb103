import pytest
from jsonargparse import ArgumentParser

from callbacks import GuidedSampling
from callbacks.candidate_callback import CallbackOrderError
from flowsmith.candidates import CandidateBatch
from flowsmith.designers import GuidedDesigner
from flowsmith.designers.protocol import image_seed
from flowsmith.policy import LinearSchedule
from flowsmith.prompts import Prompt
from lightning_modules.design import DesignModule
from tests.policy.world import PROMPTS as TEXTS
from tests.policy.world import small_policy

PROMPTS = [Prompt(f"p{i}", text) for i, text in enumerate(TEXTS[:2])]


def module(samples: int = 2, seed: int = 9) -> DesignModule:
    design = DesignModule([], samples=samples, seed=seed)
    design.policy, design.reference = small_policy(1), small_policy(0)
    return design


def test_every_weight_adds_its_flows_with_the_modules_samples_and_seed() -> None:
    design = module()
    batch = CandidateBatch(PROMPTS)
    GuidedSampling([0.0, 2.0]).fill(design, batch)
    assert design.policy is not None
    assert design.reference is not None
    expected = [
        c
        for weight in (0.0, 2.0)
        for c in GuidedDesigner(design.policy, design.reference, weight).propose(PROMPTS, 2, 9)
    ]
    assert [(c.sample_id, c.flow, c.seed) for c in batch.candidates] == [
        (c.sample_id, c.flow, c.seed) for c in expected
    ]
    # The noise is that which the module's own designers get.
    assert [c.seed for c in batch.candidates] == 2 * [image_seed(p, s, 9) for p in PROMPTS for s in (0, 1)]


def test_its_own_samples_and_seed_go_first() -> None:
    batch = CandidateBatch(PROMPTS[:1])
    GuidedSampling([1.0], samples=3, seed=4).fill(module(), batch)
    assert [c.seed for c in batch.candidates] == [image_seed(PROMPTS[0], sample, 4) for sample in range(3)]
    with pytest.raises(CallbackOrderError, match="at least 1 sample"):
        GuidedSampling(samples=0)


def test_what_is_finished_is_not_added_again() -> None:
    design = module()
    design.finished = frozenset({"GRPO/p0/1", "GRPO/p1/0"})
    batch = CandidateBatch(PROMPTS)
    GuidedSampling([1.0]).fill(design, batch)
    assert [c.sample_id for c in batch.candidates] == ["GRPO/p0/0", "GRPO/p1/1"]


def test_path_and_schedule_come_from_yaml_and_reach_the_designer() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(GuidedSampling, "guided")
    linear = {"class_path": "flowsmith.policy.LinearSchedule", "init_args": {"over": 60, "begin": 0.0}}
    told: list[CandidateBatch] = []
    for options in ({"path": "weights"}, {"schedule": linear}, {}):
        given = parser.parse_object({"guided": {"weights": [2.0]} | options})
        callback: GuidedSampling = parser.instantiate_classes(given).guided
        told.append(CandidateBatch(PROMPTS))
        callback.fill(module(), told[-1])
    names = [{c.designer for c in batch.candidates} for batch in told]
    assert names == [{"GRPO weights w=2"}, {"GRPO w=2 (0 to w over 60)"}, {"GRPO w=2"}]
    assert len({tuple(c.flow.key for c in batch.candidates) for batch in told}) == 3
    with pytest.raises(CallbackOrderError, match="path: logits"):
        GuidedSampling([2.0], path="weights", schedule=LinearSchedule(3))
