"""Files that are whole or not there: written under another name, then renamed; lines appended."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes the place of `path` when the block ends.

    A block that raises leaves nothing behind, and what was there before.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Takes the place of `path` as `replacing` does, without waiting for the disk."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(data, indent=1) + "\n")


def sync(path: Path) -> None:
    """Returns when a file's contents, or a folder's names, are on the disk; a full disk raises."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_lines(path: Path) -> IO[str]:
    """The file, open at its end, without a last line that a kill cut off."""
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)
    return path.open("a")
