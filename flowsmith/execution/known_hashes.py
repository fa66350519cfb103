"""Content hashes of large model files, remembered from one start to the next.

A folder of real models holds hundreds of gigabytes, and every process of a run wants its hashes at every start. A file
of the same place, size, and moment of its last change is taken to be the same.
"""

import json
import os
from pathlib import Path

from flowsmith.files import DiskFullError, atomic_write, file_hash

_WORTH_IT = 64 << 20  # bytes; what is smaller is read again, which takes less than a tenth of a second
_FILE = "hashes.json"


def known_hash(path: Path) -> str:
    """Return `flowsmith.files.file_hash` of a model file or folder, read again only if it changed.

    What is remembered lies in ``XDG_CACHE_HOME/flowsmith``, by default ``~/.cache/flowsmith``; where that cannot be
    written, nothing is remembered.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file.resolve()), file.stat()) for file in files if file.is_file()]
    if sum(stat.st_size for _, stat in stats) < _WORTH_IT:
        return file_hash(path)
    state = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    memory = _folder() / _FILE
    entry = _read(memory).get(str(path.resolve()))
    if isinstance(entry, dict) and entry.get("state") == state and isinstance(entry.get("hash"), str):
        return str(entry["hash"])
    found = file_hash(path)
    try:
        # Read anew: other processes, which hash at the same time, have added theirs.
        with atomic_write(memory) as temporary:
            known = {**_read(memory), str(path.resolve()): {"state": state, "hash": found}}
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
    except (OSError, DiskFullError):
        pass  # it is only slower
    return found


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "flowsmith"


def _read(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
