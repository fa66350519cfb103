"""What one stage hands to the next: a folder with a stamp that tells what it was made from.

``export.json`` is written last, into the folder while it still has its temporary name, so a folder with a
stamp is whole. It carries the hash of the content (a changed file is noticed) and the fingerprints of the
inputs (an export made from a reward model that has since been trained again is noticed).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsmith.errors import FlowsmithError
from flowsmith.files import file_hash
from flowsmith.run_folder import git_revision, now, write_json
from flowsmith.settings import path_fingerprint

STAMP = "export.json"


class ExportError(FlowsmithError):
    """An export cannot be used."""


class MissingExportError(ExportError):
    """There is no export."""


class DamagedExportError(ExportError):
    """The content is not what was exported."""


class StaleExportError(ExportError):
    """An input changed since the export was made."""


def stamp_export(folder: Path, made_by: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Write the stamp: the last step of making an export.

    Args:
        folder: The complete export, still under its temporary name.
        made_by: What made it: run, ``command`` that makes it again, fingerprint of its settings.
        inputs: Path -> fingerprint of everything that it was made from.
    """
    write_json(
        folder / STAMP,
        {
            "content": content_hash(folder),
            "inputs": dict(inputs),
            "made_by": dict(made_by),
            "git": git_revision(),
            "time": now(),
        },
    )


def content_hash(folder: Path) -> str:
    """Return the hash of everything in an export but its stamp."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file != folder / STAMP:
            digest.update(f"{file.relative_to(folder).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


def check_export(folder: Path | str, config: str) -> str:
    """Return the fingerprint of an export, if it is whole and what it was made from is still the same.

    Inputs that are exports themselves are checked in turn. An input that is gone is no fault: what was made
    from it still stands.

    Args:
        folder: The export.
        config: Name of the config that makes it, for the messages.

    Raises:
        MissingExportError: There is none.
        DamagedExportError: Its content is not what was exported.
        StaleExportError: An input changed since.
    """
    return _check(Path(folder), _making(config))


def _making(config: str) -> str:
    return f"python train.py --config {config}"


def _check(folder: Path, make: str) -> str:
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        content, inputs = str(stamp["content"]), dict(stamp["inputs"])
    except FileNotFoundError:
        raise MissingExportError(f"{folder}: this export is not there; make it with: {make}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedExportError(
            f"{folder / STAMP}: cannot be read ({error}); make the export again with: {make} --fresh"
        ) from error
    if content_hash(folder) != content:
        raise DamagedExportError(
            f"{folder}: its files are not those that were exported; make it again with: {make} --fresh"
        )
    for name, fingerprint in inputs.items():
        path = Path(name)
        if (path / STAMP).is_file():  # first: what is wrong with it is mended before what was made from it
            _check(path, _made_with(path))
        if path.exists() and path_fingerprint(path) != fingerprint:
            raise StaleExportError(
                f"{folder}: made from {name}, which has changed since; make it again with: {make} --fresh"
            )
    return content


def _made_with(folder: Path) -> str:
    """Return the command that made an export, as its stamp has it; a guess where that cannot be read."""
    try:
        return str(json.loads((folder / STAMP).read_text(encoding="utf-8"))["made_by"]["command"])
    except (OSError, ValueError, TypeError, KeyError):
        return _making(f"{folder.parent.name}.yaml")
