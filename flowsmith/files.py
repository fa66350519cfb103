"""Writing files whole or not at all, and naming them by their content."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowsmith.errors import FlowsmithError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(FlowsmithError):
    """There is no room for a file; nothing of it was left."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary neighbour of ``path``; rename it to ``path`` on success, remove it on failure.

    The temporary may be written as a file or made a folder. An existing folder at ``path`` is replaced.

    Raises:
        DiskFullError: The disk, or the user's share of it, is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if path.is_dir() and temporary.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"{path}: the disk is full, and nothing of the file was left; make room and start again, what was written "
            "before is there"
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.exists():
            temporary.unlink()


def remove_leftovers(folder: Path | str) -> None:
    """Remove what processes that were killed while they wrote left in a folder; none may be writing there."""
    for temporary in Path(folder).glob(".*.tmp"):
        if temporary.is_file():
            temporary.unlink(missing_ok=True)


def file_hash(path: Path | str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file, or of a folder's names and contents."""
    path = Path(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            if file != path:
                digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]
