"""One folder per run: what it was started with, where it stands, what came out.

``runs/<name>/`` holds ``run.json`` (the settings that decide its results), ``starts/NNN.yaml|json`` (the
resolved config, git revision and seed of every start), ``checkpoints/``, TensorBoard events,
``metrics.jsonl``, ``export/`` and, once it is through, ``finished.json``. The folder has no version counter,
so the command that started a run is the command that resumes it; a start with other settings is refused,
because it would resume the old ones.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write
from flowsmith.settings import Change, Settings, changes, fingerprint

OUTCOME = ("seconds", "peak_memory_gb", "metrics", "export")  # what is told of a run that is through
_LARGEST_DIFF = 1 << 20  # bytes of uncommitted changes that are kept beside a start


class RunFolderError(FlowsmithError):
    """A run folder cannot be used as asked."""


class ChangedRunError(RunFolderError):
    """The folder was started with other settings.

    Attributes:
        changes: What differs, sorted by key.
    """

    def __init__(self, folder: "RunFolder", found: list[Change]) -> None:
        self.changes = found
        lines = "\n".join(f"  {change}" for change in found)
        super().__init__(
            f"{folder.path} was started with other settings:\n{lines}\n"
            "Resuming would mix the two. Set these back to go on with it; start another run with "
            f"--run_name {folder.path.name}-2; or delete this one and start over with --fresh."
        )


class RunFolder:
    """The folder of one run.

    Args:
        name: Name of the run: letters, digits, dot, dash, underscore.
        root: Folder of all runs.

    Raises:
        RunFolderError: The name is none.
    """

    def __init__(self, name: str, root: Path | str = "runs") -> None:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise RunFolderError(
                f"--run_name {name!r}: not the name of one folder; use letters, digits, '.', '-' and '_'"
            )
        self.path = Path(root) / name
        self.checkpoints = self.path / "checkpoints"
        self.export = self.path / "export"
        self._run, self._finished = self.path / "run.json", self.path / "finished.json"

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self._run.is_file()

    def mode(self) -> str | None:
        """Return what the run was started to do, None before the first start."""
        return self._started()["mode"] if self.exists() else None

    def check(self, settings: Settings) -> None:
        """Compare with the settings of the first start.

        Raises:
            ChangedRunError: They differ.
        """
        if self.exists() and (found := changes(self._started()["settings"], _plain(settings))):
            raise ChangedRunError(self, found)

    def start(self, mode: str, settings: Settings | None, config: str, facts: Mapping[str, Any]) -> int:
        """Write down one start, and return its number from 0.

        Args:
            mode: fit, validate, test or predict.
            settings: What decides the results, kept at the first start; None if this start leaves the run's
                own alone.
            config: The whole resolved config as YAML.
            facts: What else is worth knowing of this start (git revision, seed, versions).
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if settings is not None:
            self._remove_temporaries()
        if settings is not None and not self.exists():
            write_json(
                self._run,
                {"mode": mode, "fingerprint": fingerprint(_plain(settings)), "settings": _plain(settings)},
            )
        number = self.starts()
        start = self.path / "starts" / f"{number:03d}"
        with atomic_write(start.with_suffix(".yaml")) as temporary:
            temporary.write_text(config, encoding="utf-8")
        write_json(start.with_suffix(".json"), {"mode": mode, "time": now(), **facts})
        if diff := git_diff():
            with atomic_write(start.with_suffix(".diff")) as temporary:
                temporary.write_text(diff + "\n", encoding="utf-8")
        return number

    def _remove_temporaries(self) -> None:
        """Delete what a process that was killed in the middle of writing left: a checkpoint may be gigabytes."""
        for left in [*self.path.rglob(".*.tmp")]:
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)

    def starts(self) -> int:
        """Return how many starts there were."""
        return len(list((self.path / "starts").glob("*.json")))

    def fingerprint(self) -> str:
        """Return the fingerprint of the settings that the run was started with."""
        return str(self._started()["fingerprint"])

    def last_checkpoint(self) -> Path | None:
        """Return the checkpoint that a resumed run goes on from, None if there is none."""
        found = self.checkpoints / "last.ckpt"
        return found if found.is_file() else None

    def finished(self) -> dict[str, Any] | None:
        """Return what came out, None if the run is not through."""
        return _read_json(self._finished, OUTCOME) if self._finished.is_file() else None

    def _started(self) -> dict[str, Any]:
        return _read_json(self._run, ("mode", "fingerprint", "settings"))

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Mark the run as through; ``outcome`` holds at least `OUTCOME`."""
        write_json(self._finished, {"time": now(), **outcome})

    def check_removable(self) -> None:
        """Refuse a folder that no start was made in.

        Raises:
            RunFolderError: The folder is none of ours.
        """
        if self.path.exists() and not self.exists() and not self.starts():
            raise RunFolderError(
                f"--fresh: {self.path} holds neither run.json nor starts, so it is no run; delete it by hand, "
                "or name another run with --run_name"
            )

    def remove(self) -> None:
        """Delete the run, so that a start begins afresh.

        Raises:
            RunFolderError: The folder is none of ours; nothing is deleted.
        """
        self.check_removable()
        if not self.path.exists():
            return
        # Renamed first: a deletion cut short leaves no half of a run under its name.
        doomed = self.path.with_name(f".{self.path.name}.{os.getpid()}.old")
        self.path.rename(doomed)
        shutil.rmtree(doomed)


def _plain(settings: Settings) -> Settings:
    # As JSON will give it back: tuples become lists.
    plain: Settings = json.loads(json.dumps(settings))
    return plain


def _read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in keys if key not in content] if isinstance(content, dict) else keys
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error}); delete its run with --fresh, or name another with --run_name"
        ) from error
    return dict(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_revision(folder: Path | str | None = None) -> dict[str, Any]:
    """Return ``{"revision": hex or None, "dirty": whether tracked files differ from it}`` of a checkout.

    Args:
        folder: A folder of the checkout; this file's own by default.
    """
    folder = Path(__file__).parent if folder is None else folder
    revision = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision or None, "dirty": bool(status)}


def git_diff(folder: Path | str | None = None) -> str:
    """Return the uncommitted changes of a checkout, "" where there are none or far too many."""
    diff = _git(Path(__file__).parent if folder is None else folder, "diff", "HEAD")
    return diff if len(diff) <= _LARGEST_DIFF else ""


def _git(folder: Path | str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
