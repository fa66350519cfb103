"""Times of things that take turns, so that whatever else the machine does meets them all alike."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from flowsmith.evaluation.side_by_side.floor import synchronise
from flowsmith.evaluation.side_by_side.ours import Trainer
from flowsmith.evaluation.side_by_side.trl_trainer import has_trl, trl_trainer
from flowsmith.evaluation.side_by_side.work import Work, load_model

_WARM_UP = 1  # rounds that do not count

Seconds = dict[str, list[float]]
"""Name to one time a repetition."""


def take_turns(calls: Mapping[str, Callable[[], object]], repetitions: int, device: torch.device) -> Seconds:
    """Time calls one after the other, round after round."""
    seconds: Seconds = {name: [] for name in calls}
    for _ in range(_WARM_UP + repetitions):
        for name, call in calls.items():
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: times[_WARM_UP:] for name, times in seconds.items()}


def training_turns(
    work: Work, folder: Path, scratch: Path, device: torch.device, repetitions: int, autocast: bool = False
) -> Seconds:
    """Time whole cycles: ``trl`` (if it is there) and ``ours`` in turn, and our phases.

    Args:
        work: What a cycle does.
        folder: The model that both start from.
        scratch: Where TRL may write.
        device: Where ours computes.
        repetitions: Cycles that count.
        autocast: Whether layers of both compute in bfloat16.
    """
    ours = Trainer(work, load_model(folder, work, device), load_model(folder, work, device), autocast)
    seconds: Seconds = {"ours": [], "sampling": [], "learning": []}

    def our_turn(_: int = 0) -> None:
        seconds["ours"].append(ours.cycle())
        for phase, spent in ours.seconds.items():
            seconds[phase].append(spent)

    rounds = _WARM_UP + repetitions
    if has_trl():
        theirs = trl_trainer(work, folder, rounds, between=our_turn, autocast=autocast, scratch=scratch)
        theirs.train()
        seconds["trl"] = theirs.seconds
    else:
        for _ in range(rounds):
            our_turn()
    return {name: times[_WARM_UP:] for name, times in seconds.items()}


def text_turns(work: Work, folder: Path, device: torch.device, repetitions: int) -> Seconds:
    """Time sampling alone, in turn: ``hugging_face``'s generate, and ``ours``."""
    from transformers import GenerationConfig

    from flowsmith.policy.decoding.text import sample_text

    model = load_model(folder, work, device).eval()
    prompts = work.prompt_ids()
    ids = torch.tensor(prompts, device=device).repeat_interleave(work.samples, 0)
    config = GenerationConfig(
        max_new_tokens=work.new_tokens, do_sample=True, top_k=0, eos_token_id=work.vocabulary, pad_token_id=0
    )

    def hugging_face() -> None:
        with torch.no_grad():
            written = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
        assert written.shape == (work.sequences, work.prompt_tokens + work.new_tokens)

    def ours() -> None:
        groups = sample_text(model, prompts, work.samples, work.new_tokens, seed=0)
        assert all(len(completion.tokens) == work.new_tokens for group in groups for completion in group)

    return take_turns({"hugging_face": hugging_face, "ours": ours}, repetitions, device)
