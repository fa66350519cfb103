"""The comparison with TRL on work so small that it can be counted by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import grpo_vs_trl
from flowsmith.evaluation.side_by_side import equal_work, flows, measure, turns
from flowsmith.evaluation.side_by_side.equal_work import agreement
from flowsmith.evaluation.side_by_side.floor import operations
from flowsmith.evaluation.side_by_side.measure import FIGURES
from flowsmith.evaluation.side_by_side.ours import Trainer
from flowsmith.evaluation.side_by_side.ratios import Ratio, ratio
from flowsmith.evaluation.side_by_side.table import table
from flowsmith.evaluation.side_by_side.trl_trainer import TRLError, has_trl, trl_trainer
from flowsmith.evaluation.side_by_side.work import Work, as_text, load_model, write_model

CPU = torch.device("cpu")
TINY = Work(
    "small", hidden=8, intermediate=12, layers=2, heads=2, key_heads=1, vocabulary=40, prompts=2, prompt_tokens=5,
    samples=4, new_tokens=6, learning_rate=1e-2, micro_batch_tokens=60,
)  # fmt: skip


def test_ratios_by_hand() -> None:
    assert ratio([4.0, 6.0, 9.0], [2.0, 4.0, 3.0]) == Ratio(2.0, 2.0, 1.5, 3.0)


def test_operations_by_hand() -> None:
    work = Work(
        "small", hidden=4, intermediate=6, layers=1, heads=2, key_heads=1, vocabulary=10, prompts=1, prompt_tokens=2,
        samples=2, new_tokens=3,
    )  # fmt: skip
    # A token: query and output 4 x 4, key and value 4 x 2, three of 4 x 6; a product and a sum for each weight.
    layer = 2 * (2 * 16 + 2 * 8 + 3 * 24)
    # Read: the prompt once, and all of a completion but its last token.
    linear = (2 + 2 * 2) * layer
    # The prompt's tokens see 1 and 2 tokens, a completion's 3 and 4; twice 2 products and sums a head.
    attended = (1 + 2 + 2 * (3 + 4)) * 2 * (2 * 2 + 2 * 2)
    forward = linear + attended + 6 * 2 * 4 * 10
    assert operations(work) == (forward, forward, 3 * forward)
    assert operations(replace(work, beta=0.0)).total == 4 * forward


def test_a_cycle_computes_hardly_more_than_the_floor(tmp_path: Path) -> None:
    """What the floor leaves out is what is padded: attention within the grid of a micro-batch."""
    work = replace(TINY, hidden=64, intermediate=96, vocabulary=200)
    folder = write_model(work, tmp_path)
    trainer = Trainer(work, load_model(folder, work, CPU), load_model(folder, work, CPU))
    with FlopCounterMode(display=False) as counter:
        trainer.cycle()
    assert 1.0 <= counter.get_total_flops() / operations(work).total < 1.1


def test_a_cycle_trains_on_exactly_as_many_tokens(tmp_path: Path) -> None:
    folder = write_model(TINY, tmp_path)
    trainer = Trainer(TINY, load_model(folder, TINY, CPU), load_model(folder, TINY, CPU))
    rollouts = trainer.sample(TINY.prompt_ids())
    assert [len(completion) for completion in rollouts.completions] == [6] * 8
    assert len({tuple(prompt) for prompt in rollouts.prompts}) == 2
    for _ in range(30):
        trainer.cycle()
    learnt = trainer.sample(TINY.prompt_ids(1000)).completions
    before = sum(map(TINY.reward, rollouts.completions)) / 8
    assert sum(map(TINY.reward, learnt)) / 8 > before + 0.2
    assert trainer.seconds.keys() == {"sampling", "learning"}


def test_the_tokenizer_has_a_word_a_token_and_an_end_that_never_comes(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(write_model(TINY, tmp_path))
    assert tokenizer(as_text([3, 39, 0]))["input_ids"] == [3, 39, 0]
    assert tokenizer.eos_token_id == TINY.vocabulary
    assert load_model(tmp_path, TINY, CPU).get_output_embeddings().out_features == TINY.vocabulary


@pytest.mark.slow
@pytest.mark.skipif(not has_trl(), reason="TRL is not installed (extra bench)")
def test_both_compute_the_same_losses(tmp_path: Path) -> None:
    found = agreement(TINY, tmp_path, CPU)
    assert found.loss_difference < 1e-6
    assert found.norm_difference < 1e-5
    assert max(map(abs, found.our_losses)) > 1e-4  # otherwise there is nothing to agree on
    assert min(found.our_norms) > 0.1


def test_without_trl_what_needs_it_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (measure, turns):
        monkeypatch.setattr(module, "has_trl", lambda: False)
    monkeypatch.setattr(grpo_vs_trl, "SMALL", replace(TINY, hidden=16))
    monkeypatch.setattr(flows, "_LESSONS", 2)
    out = tmp_path / "out.json"
    out.write_text(json.dumps({"large": {"step_ratio": 9.0}, "details": {}}))
    words = ["--model", "small", "--repetitions", "1", "--out", str(out), "--parts"]
    assert grpo_vs_trl.main([*words, "steps", "equal"]) == 0
    first = json.loads(out.read_text())
    assert {name for name, value in first["small"].items() if value is not None} == {"floor_share"}
    assert capsys.readouterr().out == table(first) + f"\n{out}\n"
    assert grpo_vs_trl.main([*words, "bfloat16", "text", "flows"]) == 0
    written = json.loads(out.read_text())
    figures = written["small"]
    assert tuple(figures) == FIGURES
    absent = {"step_ratio", "step_ratio_min", "step_ratio_max", "memory_ratio", "loss_difference"}
    assert {name for name, value in figures.items() if value is None} == absent
    assert 0 < figures["mask_share"] < 1
    assert written["details"]["small"]["steps"] == first["details"]["small"]["steps"]
    assert written["large"] == {"step_ratio": 9.0}  # what was measured earlier stays
    shown = capsys.readouterr().out
    assert shown == table(written) + f"\n{out}\n"
    assert "step, TRL" not in shown
    monkeypatch.setattr(equal_work, "trl_trainer", trl_trainer)
    monkeypatch.setattr("flowsmith.evaluation.side_by_side.trl_trainer.has_trl", lambda: False)
    with pytest.raises(TRLError, match="pip install"):
        agreement(TINY, tmp_path, CPU)


def test_what_was_missed_is_said() -> None:
    figures = {"step_ratio": 1.2, "mask_share": 0.05, "memory_ratio": 0.8, "floor_share": 0.5}
    times = {"least": [1.0]}
    details = {
        "work": vars(TINY), "steps": {"ours": [1.0], "sampling": [0.5], "learning": [0.5]},
        "bfloat16_steps": {"ours": [1.0]}, "text": {"hugging_face": [1.0], "ours": [1.0]},
        "flows": {"hugging_face": [1.0], "ours": [1.0], "guided": [1.0]}, "ratios": {}, "times": times,
        "floor": {"operations": 1e9, "operations_per_second": 1e9, "seconds": 1.0, "mfu": None},
    }  # fmt: skip
    machine = {"processor": "x", "cores": 2, "threads": 2, "device": "cpu", "torch": "2"}
    lines = table({"machine": machine, "details": {"small": details}, "small": figures}).splitlines()
    told = {line.split()[0]: line.split(None, 2)[2:] for line in lines if line and line.split()[0] in figures}
    assert told == {
        "step_ratio": ["at least 1.5: MISSED"], "mask_share": ["at most 0.1: kept"],
        "memory_ratio": ["at most 0.7: MISSED"], "floor_share": [],
    }  # fmt: skip


def test_too_few_repetitions_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        grpo_vs_trl.main(["--repetitions", "0"])
    assert "use 1 or more" in capsys.readouterr().err
