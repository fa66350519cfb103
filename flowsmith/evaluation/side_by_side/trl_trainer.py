"""TRL's GRPOTrainer on the same work, its steps timed, with something of ours between them."""

import importlib
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowsmith.errors import FlowsmithError
from flowsmith.evaluation.side_by_side.floor import synchronise
from flowsmith.evaluation.side_by_side.ours import Rollouts
from flowsmith.evaluation.side_by_side.work import Work, as_text


class TRLError(FlowsmithError):
    """TRL is not there."""


def has_trl() -> bool:
    """Tell whether TRL can be imported."""
    return importlib.util.find_spec("trl") is not None


def trl_trainer(
    work: Work,
    folder: Path,
    steps: int,
    *,
    between: Callable[[int], None] = lambda step: None,
    rollouts: Rollouts | None = None,
    autocast: bool = False,
    accumulation: int = 1,
    scratch: Path,
) -> Any:
    """Return a GRPOTrainer whose ``seconds`` lists the time of each step once it has trained.

    A step is what lies between TRL's ``on_step_begin`` and ``on_step_end``: sampling, reward, log-probabilities of
    the reference, loss, gradient, optimizer. Fetching prompts and logging are left out.

    Args:
        work: How much a step does; the settings of its loss are those of ours.
        folder: What `write_model` wrote; the policy and its reference.
        steps: Optimizer steps.
        between: Called after each step, untimed, with its number from 1.
        rollouts: Trained on instead of what would be sampled, the same in every step.
        autocast: Whether layers compute in bfloat16.
        accumulation: Into how many micro-batches a step is cut.
        scratch: Where TRL may write.

    Raises:
        TRLError: TRL is not installed.
    """
    if not has_trl():
        raise TRLError(
            "TRL is not installed, so there is nothing to compare with: pip install 'flowsmith[bench]'"
        )
    import torch
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback

    trl: Any = importlib.import_module("trl")
    datasets: Any = importlib.import_module("datasets")
    on_gpu = torch.cuda.is_available()
    arguments = trl.GRPOConfig(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=work.sequences // accumulation,
        gradient_accumulation_steps=accumulation,
        num_generations=work.samples,
        max_completion_length=work.new_tokens,
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=work.beta,
        loss_type="dapo",
        use_bias_correction_kl=True,
        temperature=1.0,
        # What its defaults would spend beyond ours, or leave to chance:
        gradient_checkpointing=False,
        bf16=autocast,
        pad_to_multiple_of=None,
        shuffle_dataset=False,
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        model_init_kwargs={"dtype": work.dtype},
    )
    prompts = work.prompt_ids() if rollouts is None else rollouts.prompts[:: work.samples]
    if rollouts is None:
        prompts = [prompt for cycle in range(steps) for prompt in work.prompt_ids(cycle)]

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [work.reward(ids) for ids in completion_ids]

    def given(texts: list[str], trainer: Any) -> dict[str, Any]:
        if rollouts is None or texts != [as_text(prompt) for prompt in rollouts.prompts]:
            raise TRLError("TRL asked for other prompts than those that were sampled")
        return {
            "prompt_ids": rollouts.prompts,
            "completion_ids": rollouts.completions,
            "logprobs": [[0.0] * len(ids) for ids in rollouts.completions],
        }

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Times steps."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.start = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            synchronise(args.device)
            self.start = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            synchronise(args.device)
            self.seconds.append(time.perf_counter() - self.start)
            between(state.global_step)

    clock = Clock()
    trainer = trl.GRPOTrainer(
        model=str(folder),
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": [as_text(prompt) for prompt in prompts]}),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[clock],
        rollout_func=None if rollouts is None else given,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.seconds = clock.seconds
    return trainer
