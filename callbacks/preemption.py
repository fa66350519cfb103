"""Stopping on Ctrl-C, SIGTERM and SLURM's warning: finish the batch, save, exit with a code that says so.

Lightning's own handlers checkpoint inside the signal handler, broadcast from it, or leave with code 0 and
nothing saved. Here a handler only takes note; the batch (in GRPO: the rollout with its updates) is finished,
all ranks agree, the checkpoint is written at a place where a resumed run can begin, and the process ends with
128 + the signal's number, as shells have it: 130 after Ctrl-C, 143 after SIGTERM, 138 after SIGUSR1. SIGUSR1 is
SLURM's warning: whatever was stopped by it, the job goes back into the queue. A second signal stops at once and
saves nothing. A validation inside training is finished first: half of one would be
resumed as half of one.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# One key press reaches a process by the terminal and again from its parent; within this it is the same one.
_SAME_PRESS = 1.0  # seconds


class Stopped(SystemExit):
    """The run was asked to stop and does; its exit code is 128 + the signal's number.

    Attributes:
        signal: What asked for it.
        at_once: Whether work under way was given up for it.
        requeued: Whether SLURM was asked for the job's next start already.
    """

    code: int

    def __init__(self, signum: int, at_once: bool = False, requeued: bool = False) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)
        self.at_once = at_once
        self.requeued = requeued


class StopSignals:
    """Takes note of the signals that ask for an end, while its context is open.

    Attributes:
        received: The first signal, None before it.
        deferring: True while a batch is under way that shall be finished; otherwise a signal raises
            `Stopped`.
        forward: Called with the number of each signal, to hand it to processes that were started from here.
        leaving: True when all is saved and SLURM takes the job back: what it sends to hurry changes nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.deferring = False
        self.forward: Callable[[int], None] | None = None
        self.leaving = False
        self.notice = "stopping after this batch"
        self._first_at = 0.0
        self._pid = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def install(self) -> None:
        """Put the handlers in place; again where Lightning has put its own in front."""
        for signum in SIGNALS:
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.leaving or os.getpid() != self._pid:  # of a forked data loader worker the parent decides
            return
        if self.received is not None and time.monotonic() - self._first_at < _SAME_PRESS:
            return
        again = self.received is not None
        if not again:
            self.received, self._first_at = signal.Signals(signum), time.monotonic()
        if self.forward is not None:
            self.forward(signum)
        if again or not self.deferring:
            raise Stopped(self.received or signum, at_once=again)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            # os.write: print is not safe in a handler that may have interrupted a print.
            os.write(
                2, f"\n{signal.Signals(signum).name}: {self.notice}; once more to stop at once\n".encode()
            )


class Preemption(Checkpoint):
    """Ends a run at the next place from which it can be resumed; the command line adds it to every run.

    It is a `Checkpoint` only so that Lightning calls it after all other callbacks.

    Args:
        signals: Where signals are noted.
        checkpoint: Written when training is stopped; None in a trial run.
    """

    def __init__(self, signals: StopSignals, checkpoint: Path | None) -> None:
        self.signals = signals
        self.checkpoint = checkpoint

    def _begin(self, trainer: pl.Trainer) -> None:
        self.signals.install()
        launcher = trainer.strategy.launcher
        self.signals.forward = launcher.kill if isinstance(launcher, _SubprocessScriptLauncher) else None
        self.signals.deferring = True
        if self.signals.received is not None:  # it came while handlers were being exchanged
            raise Stopped(self.signals.received)

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Defer from here on."""
        self._begin(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Defer from here on."""
        self._begin(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Defer from here on; inside training, until the validation is through."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._begin(trainer)
        self.signals.notice = "stopping after this validation"

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Defer from here on."""
        self._begin(trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Defer from here on."""
        self._begin(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if any rank was asked to, but not between the parts of an accumulated gradient."""
        # Nor between an epoch's last batch and its end: Lightning would resume without that end's validation.
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._stop_training(trainer, logged=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after an epoch whose last batch no validation followed."""
        self._stop_training(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after a validation inside training."""
        self.signals.notice = "stopping after this batch"
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._stop_training(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop a validation that stands for itself, or a sanity check."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            self._stop_here()

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop between batches."""
        self._stop_here()

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop between batches. Ranks have unequal numbers of them, so each decides by itself."""
        self._stop_here()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is left to finish."""
        self.signals.deferring = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is left to finish where the validation stands for itself."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.signals.deferring = False

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is left to finish."""
        self.signals.deferring = False

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is left to finish."""
        self.signals.deferring = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Let signals end what follows."""
        self.signals.deferring = False

    def _stop_here(self) -> None:
        if self.signals.received is not None:
            raise Stopped(self.signals.received)

    def _stop_training(self, trainer: pl.Trainer, logged: bool = True) -> None:
        agree = trainer.strategy.reduce_boolean_decision
        if not agree(self.signals.received is not None, all=False):
            return
        if not logged:  # Lightning would do it next, and the resumed run begins with the next batch
            trainer._logger_connector.update_train_step_metrics()
        # The signal may have reached some ranks only, or some not yet; SLURM's warning is one for all of
        # them.
        warned = agree(self.signals.received == signal.SIGUSR1, all=False)
        received = signal.SIGUSR1 if warned else self.signals.received or signal.SIGTERM
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)
        if received != signal.SIGUSR1:
            raise Stopped(received)
        self.signals.leaving = True
        if trainer.is_global_zero:
            requeue_job()
        # srun ends all ranks when the first of them leaves: none may before SLURM has taken the job back.
        trainer.strategy.barrier()
        raise Stopped(received, requeued=True)


def requeue_job() -> bool:
    """Put the running SLURM job back into its queue; return whether SLURM took it, False outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    if not re.fullmatch(r"[\d_]+", job):
        return False
    # Now, for once SLURM has heard of it there may be no time left.
    print(f"job {job} goes back into the queue", flush=True)
    try:
        return subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0
    except FileNotFoundError:
        return False
