"""``models.yaml``: what is known of each model file, and what its user knows better."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write
from flowsmith.flows.building.families import base_of
from flowsmith.flows.issues import nearest, shown

_KEYS = ("family", "trigger_words", "strength", "note")
_WAYS = (-10.0, 10.0)  # strengths that ComfyUI's nodes are commonly used within
_HEAD = """\
# Model files, as folder/name. What you write here stays; files that are new are added at the end.
#   family         what a LoRA fits: equal families only. null: unknown, and the file is put into no variant.
#                  What a file's own header says cannot be contradicted, only refined: "sdxl/pony".
#   trigger_words  of a LoRA: [pixel art]; put behind the prompt wherever the LoRA is used
#   strength       of a LoRA: [least, most], what variants draw from; 0.6 to 1.0 where nothing stands
#   note           for yourself
"""


class ModelsFileError(FlowsmithError):
    """A ``models.yaml`` cannot be used."""


@dataclass(frozen=True)
class ModelFile:
    """What is known of one model file.

    Attributes:
        family: What fits what; None if unknown.
        trigger_words: What a LoRA wants to read in the prompt.
        strength: Least and most of a LoRA that make sense, or None.
        note: Of the user.
    """

    family: str | None = None
    trigger_words: tuple[str, ...] = ()
    strength: tuple[float, float] | None = None
    note: str = ""


def read_models(path: Path | str) -> dict[str, ModelFile]:
    """Read a ``models.yaml``, by "folder/name".

    Raises:
        ModelsFileError: It cannot be read, or a setting is unknown or of the wrong kind.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelsFileError(
            f"{path}: cannot be read ({error}); mend it, or delete it to start anew"
        ) from error
    if not isinstance(content, Mapping):
        raise ModelsFileError(
            f"{path}: no mapping of files; write checkpoints/name.safetensors: {{family: sd1}}"
        )
    return {str(name): _entry(f"{path}: {name}", entry) for name, entry in content.items()}


def add_models(path: Path | str, files: Mapping[str, ModelFile], known: Iterable[str]) -> None:
    """Write the files that are not ``known`` yet to the end of a ``models.yaml``; what stands there stays."""
    path, there = Path(path), set(known)
    new = {name: _written(file) for name, file in files.items() if name not in there}
    if path.exists() and not new:
        return
    text = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    added = yaml.safe_dump(new, allow_unicode=True, sort_keys=False) if new else ""
    with atomic_write(path) as temporary:
        temporary.write_text(text + ("" if text.endswith("\n") else "\n") + added, encoding="utf-8")


def refine(measured: str | None, written: str | None) -> str | None:
    """Return the family of a file: what was measured, or what the user made of it.

    "sdxl/distilled" may become "sdxl" or "sdxl/pony", but not "sd1".
    """
    if measured is None or (written is not None and base_of(written) == base_of(measured)):
        return written
    return measured


def _written(file: ModelFile) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if file.trigger_words:
        more["trigger_words"] = list(file.trigger_words)
    if file.strength:
        more["strength"] = list(file.strength)
    return {"family": file.family, **more, **({"note": file.note} if file.note else {})}


def _entry(where: str, entry: Any) -> ModelFile:
    entry = {} if entry is None else entry
    if not isinstance(entry, Mapping):
        raise ModelsFileError(f"{where}: {shown(entry)}; give {', '.join(_KEYS)}, or some of them")
    for key in entry:
        if key not in _KEYS:
            raise ModelsFileError(f"{where}: {shown(key)} is no setting of a model; {nearest(key, _KEYS)}")
    family, words, note = entry.get("family"), entry.get("trigger_words") or [], entry.get("note") or ""
    if family is not None and (not isinstance(family, str) or not family):
        raise ModelsFileError(f"{where}: family={shown(family)}; give a name such as sdxl, or null")
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ModelsFileError(f"{where}: trigger_words={shown(words)}; give a list of texts")
    return ModelFile(family, tuple(words), _strength(where, entry.get("strength")), str(note))


def _strength(where: str, given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    pair = given if isinstance(given, list) else [given, given]
    numbers = [one for one in pair if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) != 2 or len(pair) != 2 or not _WAYS[0] <= numbers[0] <= numbers[1] <= _WAYS[1]:
        raise ModelsFileError(f"{where}: strength={shown(given)}; give [least, most], such as [0.6, 1.0]")
    return float(numbers[0]), float(numbers[1])
