"""Which settings of a config decide a run's results, as one flat table that can be compared and hashed.

A config is a tree of ``class_path`` / ``init_args``; here it becomes ``{"model": "GRPOModule", "model.lr":
0.001, …}``, the keys that the command line takes. What only says where, how fast or how talkatively the run
goes is left out (`FREE`), so the same run may move to another machine or go on with more devices.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from flowsmith.files import file_hash

Settings = dict[str, Any]

# Patterns of keys that change no result: the start itself, the machine, the loggers, and what merely watches.
FREE = (
    *("config", "mode", "run_name", "fresh", "ckpt_path", "requires", "requires.*"),
    *("trainer.accelerator", "trainer.strategy*", "trainer.devices", "trainer.num_nodes", "trainer.plugins*"),
    *("trainer.logger*", "trainer.default_root_dir", "trainer.log_every_n_steps", "trainer.profiler*"),
    *("trainer.enable_*", "trainer.fast_dev_run", "trainer.num_sanity_val_steps", "trainer.detect_anomaly"),
    *("trainer.barebones", "trainer.benchmark", "trainer.sync_batchnorm", "trainer.use_distributed_sampler"),
    *("trainer.model_registry", "trainer.callbacks.ModelCheckpoint*", "trainer.callbacks.*Monitor*"),
    *("trainer.callbacks.*ProgressBar*", "trainer.callbacks.*Summary*", "trainer.callbacks.DeviceStats*"),
    *("*.num_workers", "*.pin_memory", "*.persistent_workers", "*.prefetch_factor", "*.device", "*.progress"),
    *("*.output", "*.output_*", "*.cache", "*.cache_*"),
    *("*.servers", "*.patience", "*.revival", "*.delivery"),  # of ComfyUI; a timeout decides what fails
    *("*.max_failed", "*.max_model_gb", "*.max_device_gb"),
)
ABSENT = "(not there)"
_CONTENT = " (its content)"
_HASH_WHOLE_UP_TO = 1 << 29  # bytes; model libraries above this are told by names and sizes


@dataclass(frozen=True)
class Change:
    """One setting that differs between two tables."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        """Show the change on one line."""
        return f"{self.key}: {_show(self.was)} -> {_show(self.now)}"


def _show(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def flatten(config: Mapping[str, Any]) -> Settings:
    """Turn a resolved config into one flat table.

    ``init_args`` leaves no trace in the keys, a class stands under its owner's key by its bare name, and a
    list of classes (callbacks) is keyed by class name, so that a logger put in front of them shifts no key.
    """
    flat: Settings = {}
    _flatten("", config, flat)
    return flat


def _flatten(key: str, value: Any, flat: Settings) -> None:
    if isinstance(value, Mapping) and "class_path" in value:
        flat[key] = str(value["class_path"]).rpartition(".")[2]
        for part in ("init_args", "dict_kwargs"):
            for name, item in (value.get(part) or {}).items():
                _flatten(f"{key}.{name}", item, flat)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _flatten(f"{key}.{name}" if key else str(name), item, flat)
    elif (
        isinstance(value, list) and value and all(isinstance(v, Mapping) and "class_path" in v for v in value)
    ):
        names = [str(item["class_path"]).rpartition(".")[2] for item in value]
        for number, (name, item) in enumerate(zip(names, value, strict=True)):
            repeated = names[:number].count(name)
            _flatten(f"{key}.{name}" + (f"#{repeated + 1}" if repeated else ""), item, flat)
    else:
        flat[key] = value


def result_settings(config: Mapping[str, Any], own_folder: Path | None = None) -> Settings:
    """Return the settings that decide the results, and the content's hash of each input file they name.

    Args:
        config: The resolved config, plain data.
        own_folder: The run's folder; paths in it are outputs, not inputs.
    """
    settings = {
        key: value
        for key, value in flatten(config).items()
        if not any(fnmatchcase(key, pattern) for pattern in FREE) and value not in (None, {}, [])
    }
    for key, value in list(settings.items()):
        if key.startswith(("data.", "model.", "trainer.callbacks.")) and (
            path := _input_path(value, own_folder)
        ):
            settings[key + _CONTENT] = path_fingerprint(path)
    return settings


def input_files(settings: Settings) -> dict[str, str]:
    """Return path -> fingerprint of the inputs that a table of settings names."""
    return {
        str(settings[key.removesuffix(_CONTENT)]): value
        for key, value in settings.items()
        if key.endswith(_CONTENT)
    }


def _input_path(value: Any, own_folder: Path | None) -> Path | None:
    # A bare word is a choice ("euler"), even where a file of that name happens to lie in the working folder.
    if (
        not isinstance(value, str)
        or not ("/" in value or Path(value).suffix)
        or len(value) > 1000
        or "\n" in value
    ):
        return None
    path = Path(value)
    if own_folder is not None and path.resolve().is_relative_to(own_folder.resolve()):
        return None
    return path if path.exists() else None


def path_fingerprint(path: Path | str) -> str:
    """Return the hash of a file's or folder's content; of an export, the one that its stamp carries.

    A stamp that cannot be read gives "unreadable": as an input it has changed, whatever it was.
    """
    path = Path(path)
    stamp = path / "export.json"
    if stamp.is_file():
        try:
            return str(json.loads(stamp.read_text(encoding="utf-8"))["content"])
        except (OSError, ValueError, TypeError, KeyError):
            return "unreadable"
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    return file_hash(path) if sum(sizes.values()) <= _HASH_WHOLE_UP_TO else fingerprint(sizes)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits that are equal exactly when two tables are."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """List what differs, by key; the hash of an input is told only where its name stayed the same."""
    found = []
    for key in sorted({*was, *now}):
        before, after = was.get(key, ABSENT), now.get(key, ABSENT)
        if before != after and not (
            key.endswith(_CONTENT)
            and (owner := key.removesuffix(_CONTENT))
            and (was.get(owner) != now.get(owner))
        ):
            found.append(Change(key, before, after))
    return found
