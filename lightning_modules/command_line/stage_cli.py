"""``LightningCLI`` with a fixed run folder, required exports and a clean stop.

A start looks its config up, makes the exports that it requires, compares its settings with those that the run
folder was started with, resumes or begins, and says in a line each what it does and what came out. ``${…}``
is resolved after all configs and options are merged, so it follows the command line.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from omegaconf.errors import OmegaConfBaseException

from callbacks.export import Export, Exportable
from callbacks.preemption import Preemption, Stopped, StopSignals
from flowsmith.exports import STAMP, stamp_export
from flowsmith.run_folder import RunFolder, git_revision
from flowsmith.settings import fingerprint, input_files, result_settings
from lightning_modules.command_line.checkpoints import AtomicCheckpointIO, checkpoint_callbacks
from lightning_modules.command_line.config_errors import ConfigError, explain
from lightning_modules.command_line.config_files import find_configs
from lightning_modules.command_line.jsonl_logger import JsonlLogger
from lightning_modules.command_line.outcome import peak_memory, told
from lightning_modules.command_line.processes import (
    check_layout,
    check_world_size,
    end_with_launcher,
    is_rank_zero,
    requested_processes,
    slurm_environment,
)
from lightning_modules.command_line.requirements import provide
from lightning_modules.command_line.run_board import RunBoard
from lightning_modules.command_line.run_start import RunStart

Mode = Literal["fit", "validate", "test", "predict"]
_OWNING_MODES = ("fit", "predict")  # those whose settings a run folder is about
_CHILD_PATIENCE = 30.0  # seconds that the other ranks of this machine have to stop by themselves


class AlreadyFinished(Exception):
    """The run is through."""


class Parser(LightningArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise `ConfigError` where the parser would print its whole usage."""
        if not self.exit_on_error:
            super().error(message, ex)
        known = {option.lstrip("-") for action in self._actions for option in action.option_strings}
        raise ConfigError(explain(message, known - {"h", "c"})) from ex


class StageCLI(LightningCLI):
    """One stage of the suite, built; `execute` runs it.

    Args:
        mode: What to do where neither config nor command line says it.
        signals: Where requests to stop are noted.
        arguments: The command line without the program's name.

    Raises:
        FlowsmithError: Whatever cannot work, before anything large is loaded.
        AlreadyFinished: The run is through.
    """

    def __init__(self, mode: Mode, signals: StopSignals, arguments: Sequence[str]) -> None:
        self.default_mode: Mode = mode
        self.signals = signals
        self.arguments = list(arguments)
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # each start writes its own, see RunFolder
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"parser_mode": "omegaconf+"},
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a start says of itself."""
        parser.add_argument("--mode", type=Mode, default=self.default_mode, help="What the trainer does.")
        parser.add_argument(
            "--run_name", type=str | None, default=None, help="Folder in runs/; the config's name."
        )
        parser.add_argument(
            "--fresh", action="store_true", help="Delete the run of this name and start over."
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default="last",
            help="Checkpoint to go on from: last, a path, or null.",
        )
        parser.add_argument(
            "--requires", type=dict[str, str], default={}, help="Export -> config that makes it."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, bare config names looked up."""
        arguments, configs = find_configs(self.arguments)
        if not configs and not any(
            word.startswith(("--model", "--help", "-h", "--print")) for word in arguments
        ):
            raise ConfigError("no stage is named; give its config, for example: --config grpo.yaml")
        try:
            self.config = parser.parse_args(arguments)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{error.full_key}: {str(error.msg or error).splitlines()[0]}") from error
        name = self.config["run_name"] or (configs[0].stem if configs else self.config["model"]["class_path"])
        self.run_folder = RunFolder(name)
        self.mode: Mode = self.config["mode"]
        # Lightning's trial run leaves nothing behind.
        self.dry = bool(self.config["trainer"]["fast_dev_run"])
        # A job that SLURM starts again must not delete what it did before.
        self.fresh = self.config["fresh"] and os.environ.get("SLURM_RESTART_COUNT", "0") == "0"

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work and make what is missing; nothing large is loaded yet, nothing written."""
        self._dump_config()
        if (asked := self.config["ckpt_path"]) not in (None, "last") and not Path(asked).is_file():
            raise ConfigError(f"--ckpt_path {asked}: no such file; give a checkpoint's path, last or null")
        self.processes = requested_processes(self.config["trainer"])
        needed = provide(self.config["requires"], self.signals, self.say)
        self.settings = result_settings(self.config_dump, self.run_folder.path)
        self.settings |= {f"requires.{folder}": content for folder, content in needed.items()}
        self.inputs = {**input_files(self.settings), **needed}
        self.exports = False
        if self.fresh and not self.dry:
            self.run_folder.check_removable()
        elif not self.dry and self.mode in _OWNING_MODES:
            self._check_run_folder()
        self.start = 0 if self.fresh else self.run_folder.starts()

    def _check_run_folder(self) -> None:
        folder = self.run_folder
        if folder.mode() not in (None, self.mode):
            return
        folder.check(self.settings)
        outcome = folder.finished()
        if outcome and (not outcome["export"] or (folder.export / STAMP).is_file()):
            raise AlreadyFinished(
                f"[{folder.path.name}] is finished: {told(outcome, folder.export)}; "
                "--fresh does it again, in place of this"
            )

    def _run_start(self) -> RunStart:
        facts = {
            "arguments": self.arguments,
            "seed": self.config["seed_everything"],
            "processes": self.processes,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "git": git_revision(),
            "inputs": self.inputs,
        }
        text = yaml.safe_dump(self.config_dump, sort_keys=False, allow_unicode=True)
        settings = self.settings if self.mode in _OWNING_MODES else None
        return RunStart(self.run_folder, self.mode, settings, text, facts, self.fresh)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer around the run folder: loggers, checkpoints, export, stopping."""
        given, folder = self.config_init["trainer"], self.run_folder
        callbacks: list[Callback] = [] if self.dry else [self._run_start()]
        wanted = given["enable_checkpointing"] is not False
        callbacks += checkpoint_callbacks(_as_list(given["callbacks"]), folder, wanted, self.dry)
        self.exports = isinstance(self.model, Exportable) and self.mode == "fit" and not self.dry
        if self.exports:
            callbacks.append(Export(folder.export, self._made_by(), self.inputs))
        # Lightning moves checkpoints, and with them this, behind all others.
        callbacks.append(Preemption(self.signals, None if self.dry else folder.checkpoints / "last.ckpt"))
        given["callbacks"] = callbacks
        given["enable_checkpointing"] = True  # stopping writes one in any case
        if self.dry:
            given["logger"] = False
        elif given["logger"] in (None, True):
            given["logger"] = [RunBoard(folder), JsonlLogger(folder.path, self.start)]
        given["plugins"] = [*_as_list(given["plugins"]), AtomicCheckpointIO()]
        if (slurm := slurm_environment()) is not None:
            given["plugins"].append(slurm)
        given["default_root_dir"] = given["default_root_dir"] or str(folder.path)
        try:
            trainer: Trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        check_world_size(trainer.world_size, self.processes)
        check_layout(trainer)
        end_with_launcher(trainer)
        return trainer

    def execute(self) -> None:
        """Run the stage and write down what came out."""
        began, checkpoint = time.monotonic(), self._checkpoint()
        target = "a trial, writes nothing" if self.dry else f"writes to {self.run_folder.path}/"
        where = f"{self.processes} process{'es' * (self.processes > 1)}, {target}"
        self.say(f"{self.mode}: {type(self.model).__name__} {_begins(checkpoint)}; {where}")
        options = (
            {"return_predictions": False} if self.mode == "predict" else {}
        )  # they are written as they come
        try:
            run = getattr(self.trainer, self.mode)
            run(self.model, datamodule=self.datamodule, ckpt_path=checkpoint, weights_only=False, **options)
        except BaseException as error:
            self._end_other_ranks(error)
            raise
        # What a trained run exported keeps its stamp, whoever predicts with it: only that tells its damage.
        owns = self.trainer.is_global_zero and not self.dry and self.run_folder.mode() == self.mode
        if owns and self.mode == "predict":
            self._stamp_rows()
        outcome = {
            "seconds": round(time.monotonic() - began, 1),
            "peak_memory_gb": peak_memory(),
            "metrics": {name: float(value) for name, value in self.trainer.callback_metrics.items()},
            "export": self.exports,
        }
        if owns:
            self.run_folder.finish(outcome)
        self.say(f"done: {told(outcome, self.run_folder.export)}")

    def say(self, text: str) -> None:
        """Print a line of this stage, once however many processes there are."""
        if is_rank_zero():
            print(f"[{self.run_folder.path.name}] {text}", flush=True)

    def launched_by_rank_zero(self) -> bool:
        """Whether Lightning started this process from that of rank 0, and watches it."""
        launcher = self.trainer.strategy.launcher
        if not isinstance(launcher, _SubprocessScriptLauncher):
            return False
        return isinstance(launcher.cluster_environment, LightningEnvironment) and self.trainer.local_rank > 0

    def _made_by(self) -> dict[str, str]:
        door = "evaluate.py" if self.default_mode == "predict" else "train.py"
        command = shlex.join(["python", door, *(word for word in self.arguments if word != "--fresh")])
        return {
            "run": self.run_folder.path.name,
            "command": command,
            "fingerprint": fingerprint(self.settings),
        }

    def _stamp_rows(self) -> None:
        """Stamp what callbacks exported, so that scored flows too know what they were made from."""
        if self.run_folder.export.is_dir():
            stamp_export(self.run_folder.export, self._made_by(), self.inputs)
            self.exports = True

    def _checkpoint(self) -> str | None:
        asked: str | None = self.config["ckpt_path"]
        if asked == "last":
            # By hand: Lightning would warn at every first start. After --fresh, other ranks may still see the
            # old one.
            found = None if self.fresh or self.dry else self.run_folder.last_checkpoint()
            return str(found) if found else None
        return asked

    def _end_other_ranks(self, error: BaseException) -> None:
        launcher = self.trainer.strategy.launcher
        if not isinstance(launcher, _SubprocessScriptLauncher):
            return
        patience = _CHILD_PATIENCE if isinstance(error, Stopped) and not error.at_once else 0.0
        for process in launcher.procs:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()


def _as_list(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list) else [] if given is None else [given]


def _begins(checkpoint: str | None) -> str:
    return f"goes on from {checkpoint}" if checkpoint else "begins"
