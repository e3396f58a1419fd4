"""The folder of a set while it is made: by one process, each clip under another name at first."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from realisvsr_jax.errors import InputError
from realisvsr_jax.video.writing import room

UNFINISHED = ".unfinished"
_NUMBERED = re.compile(r"\d{8,}\.png")


def check_folder(target: Path) -> None:
    """Raises InputError where `target` cannot be a folder for output."""
    if target.exists() and not target.is_dir():
        raise InputError(f"--output {target} is a file; name a folder")
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist; create it first")


def check_beside(target: Path, source: Path, called: str = "--input") -> None:
    """Raises InputError where the output would lie in its own input."""
    if target.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--output {target} is inside {called}; name a folder beside it")


def check_target(clips: Mapping[str, Path], target: Path) -> None:
    """Raises InputError where a set of these clips cannot be made in `target`."""
    check_folder(target)
    inside = target.resolve()
    for path in clips.values():
        if path.resolve().is_relative_to(inside):
            raise InputError(f"--output {target} has the input in it; name a folder beside it")


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A folder in the target for what is not finished: empty at first, and gone behind.

    The target is there then; it goes again where it is new and nothing was put into it. Raises
    InputError where another process works on it.
    """
    folder, new = target / UNFINISHED, not target.exists()
    with room(target):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"{target}: another process works on this output"):
        for rest in folder.iterdir():
            _remove(rest)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if new and not any(target.iterdir()):
                target.rmdir()


@contextmanager
def locked(folder: Path, taken: str) -> Iterator[None]:
    """The folder for one process at a time; InputError that begins with `taken` for the others."""
    with room(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{taken}; wait for it, or name another") from error
        yield
    finally:
        os.close(handle)


def output_path(name: str, path: Path) -> Path:
    """Where a clip goes in the set; Matroska, since FFV1's bytes do not depend on the cores."""
    return Path(name if path.is_dir() else f"{name}.mkv")


def make_way(strangers: Mapping[str, Path], target: Path, whose: str, overwrite: bool) -> None:
    """Takes away what has the names of clips that are still to be made; refuses to by itself."""
    for name, path in strangers.items():
        output = target / output_path(name, path)
        if output.exists():
            if not overwrite:
                raise InputError(
                    f"{output} exists and is not of this {whose}; move it, or add --overwrite"
                )
            remove_clip(output)


def remove_clip(path: Path) -> None:
    """Takes away a clip of a set; InputError for a folder with anything else than frames in it."""
    if path.is_dir() and not all(_NUMBERED.fullmatch(name) for name in os.listdir(path)):
        raise InputError(f"{path} has other files than numbered frames in it; move it first")
    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
