"""The exports that a config requires: checked, and made where they are missing, before there are other processes."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from callbacks.preemption import Stopped, StopSignals
from flowsmith.exports import ExportError, MissingExportError, check_export
from flowsmith.run_folder import RunFolder
from lightning_modules.command_line.config_files import ROOT, find_config, read_config
from lightning_modules.command_line.processes import started_with_others

_PATIENCE = 30.0  # seconds that a child has to follow a signal before it is killed


def provide(requires: Mapping[str, str], signals: StopSignals, say: Callable[[str], None]) -> dict[str, str]:
    """Return folder -> fingerprint of all required exports.

    Args:
        requires: Folder -> name of the config that makes it.
        signals: Handed on to what is run.
        say: Told what is made.

    Raises:
        ConfigError: There is no config of that name.
        ExportError: One is stale or damaged, cannot be made here, or its config exports elsewhere or failed.
        Stopped: A signal came meanwhile.
    """
    found = {}
    for folder, config in requires.items():
        try:
            found[folder] = check_export(folder, config)
        except MissingExportError as error:
            _check_place(folder, config)
            if started_with_others():  # each of them would make it
                raise MissingExportError(
                    f"{folder}: this export is not there, and processes that something else started make none; "
                    f"run first: python train.py --config {config}"
                ) from error
            say(f"requires {folder}, which is missing: running --config {config} first")
            _run(config, signals)
            found[folder] = check_export(folder, config)
    return found


def _check_place(folder: str, config: str) -> None:
    """Refuse to run a config that would export to another folder."""
    path = find_config(config)
    place = RunFolder(read_config(path).get("run_name") or path.stem).export
    if place.resolve() != Path(folder).resolve():
        raise ExportError(
            f"requires: {folder}: --config {config} exports to {place}; require that, or another config"
        )


def _run(config: str, signals: StopSignals) -> None:
    child = subprocess.Popen([sys.executable, str(ROOT / "train.py"), "--config", config])
    notice, signals.notice = signals.notice, f"waiting for {config} to stop"
    signals.forward, signals.deferring = child.send_signal, True
    try:
        code = child.wait()
    except Stopped:
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
    finally:
        signals.forward, signals.deferring, signals.notice = None, False, notice
    if signals.received is not None:
        raise Stopped(signals.received)
    if code:
        raise ExportError(
            f"--config {config} failed with exit code {code}, see above; mend it, then start again"
        )
