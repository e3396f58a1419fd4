"""A job's folder beside its output: what the job is, what it has done, what it goes on from.

.film.mp4.job/lock            held by the process that works
              plan.json       of which command it is, and what the first pass found
              windows.jsonl   a line a window that is done: the commit
              segments/       00012.nut, a video a window; or frames/, 00000588.png …
              state/          00012.npz, what the next window goes on from; the newest two
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.files import append_lines, replacing, sync
from realisvsr_jax.jobs.survey import Survey
from realisvsr_jax.settings import difference
from realisvsr_jax.video.encoding import SEGMENT
from realisvsr_jax.video.writing import room

_EDGE = 1 << 20  # bytes of each end of a file that make its hash


def folder_of(target: Path) -> Path:
    """Where the journal of an output is kept."""
    return target.with_name(f".{target.name}.job")


class Journal:
    """Of one output; `opened` makes it.

    `windows` are the lines of those that are done; `replaces` says that the job was begun with the
    leave to replace what is there.
    """

    def __init__(self, folder: Path, lock: IO[str]):
        self.folder = folder
        self.windows: list[dict[str, Any]] = []
        self.replaces = False
        self._lock, self._lines = lock, None
        for name in ("segments", "frames", "state"):
            (folder / name).mkdir(exist_ok=True)

    @property
    def done(self) -> int:
        """How many windows are."""
        return len(self.windows)

    def segment(self, number: int) -> Path:
        """The video of a window."""
        return self.folder / "segments" / f"{number:05d}{SEGMENT}"

    def frame(self, number: int) -> Path:
        """The picture of a frame, where the output is a folder of them."""
        return self.folder / "frames" / f"{number:08d}.png"

    def save_state(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps what the window after `number` goes on from, and the one before it."""
        path = self._state(number)
        foreign = {name: a.dtype.name for name, a in arrays.items() if a.dtype.kind == "V"}
        plain = {
            name: array.view(f"u{array.dtype.itemsize}") if name in foreign else array
            for name, array in arrays.items()
        }
        names = np.frombuffer(json.dumps(foreign).encode(), np.uint8)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **{"dtypes/": names}, **plain)  # pyright: ignore
            _to_disk(file)
        sync(path.parent)
        self._state(number - 2).unlink(missing_ok=True)

    def load_state(self, number: int) -> dict[str, np.ndarray]:
        """What `save_state` kept of a window; InputError where it is gone."""
        path = self._state(number)
        try:
            with np.load(path) as file:
                arrays = dict(file)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{path} cannot be read, so the job cannot go on; give --overwrite to begin anew"
            ) from error
        foreign = json.loads(bytes(arrays.pop("dtypes/")))
        for name, kind in foreign.items():
            arrays[name] = arrays[name].view(getattr(ml_dtypes, kind))
        return arrays

    def commit(self, **line: Any) -> None:
        """The next window is done: from here on it is never restored again."""
        if self._lines is None:
            self._lines = append_lines(self.folder / "windows.jsonl")
        self._lines.write(json.dumps(line) + "\n")
        _to_disk(self._lines)
        self.windows.append(line)

    def survey(self) -> Survey | None:
        """What the first pass found, if it came to its end."""
        path = self.folder / "survey.json"
        return Survey.from_json(json.loads(path.read_text())) if path.exists() else None

    def keep_survey(self, found: Survey) -> None:
        """For `survey`."""
        _write_json(self.folder / "survey.json", found.to_json())

    def remove(self) -> None:
        """The job is done, or nothing of it is worth keeping."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Lets others write the file of lines."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def _state(self, number: int) -> Path:
        return self.folder / "state" / f"{number:05d}.npz"

    def _open(self, identity: dict[str, Any], resume: bool, overwrite: bool) -> None:
        path = self.folder / "plan.json"
        if path.exists() and overwrite:
            for name in ("segments", "frames", "state"):
                shutil.rmtree(self.folder / name)
                (self.folder / name).mkdir()
            for name in ("survey.json", "windows.jsonl", "plan.json"):
                (self.folder / name).unlink(missing_ok=True)
        if not path.exists():
            self.replaces = overwrite
            _write_json(path, {"command": identity, "replaces": overwrite})
            return
        if not resume:
            raise InputError(
                f"{self.folder} has an unfinished job for this output; give --resume to go on with "
                "it, or --overwrite to begin anew"
            )
        old = json.loads(path.read_text())
        self.replaces = old["replaces"]
        changed = difference(old["command"], identity)
        if changed:
            raise InputError(
                f"{self.folder} is of another command: {changed}; give the same, or --overwrite "
                "to begin anew"
            )
        lines = self.folder / "windows.jsonl"
        append_lines(lines).close()  # without a line that a kill cut off
        self.windows = [json.loads(line) for line in lines.read_text().splitlines()]


@contextmanager
def opened(
    target: Path, identity: dict[str, Any], *, resume: bool, overwrite: bool
) -> Iterator[Journal]:
    """The journal of an output, locked; new, or with `resume` that of the same command.

    An error before the first window is done leaves no new folder behind. Raises InputError where
    another process works on the output, for a journal that is not asked for, and for one of
    another command.
    """
    folder = folder_of(target)
    is_new = not (folder / "plan.json").exists()
    with room(folder):
        lock = _locked(folder)
        journal = Journal(folder, lock)
    try:
        journal._open(identity, resume, overwrite)
        is_new = is_new or overwrite
        yield journal
    except Exception:
        if is_new and not journal.done:
            journal.remove()
        raise
    finally:
        journal.close()
        lock.close()


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file, or a folder with all that is in it, from another: sizes and hashes.

    Of each file the first and the last MiB are read, so that a film takes no longer than a note.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest, total = hashlib.sha256(), 0
    for file in files:
        count = file.stat().st_size
        total += count
        digest.update(f"{file.relative_to(path)}\0{count}\0".encode())
        with file.open("rb") as opened_file:
            digest.update(opened_file.read(_EDGE))
            opened_file.seek(max(count - _EDGE, 0))
            digest.update(opened_file.read(_EDGE))
    return {"bytes": total, "sha256": digest.hexdigest()}


def digest(identity: dict[str, Any]) -> str:
    """A command in a word."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _locked(folder: Path) -> IO[str]:
    """The lock of a job's folder; InputError where another process has it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            file = (folder / "lock").open("a")
        except FileNotFoundError:
            continue  # the process that had it has just removed the folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise InputError(
                f"{folder}: another process works on this output; wait for it, or name another"
            ) from error
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / "lock")):
                return file
        except FileNotFoundError:
            pass
        file.close()


def _write_json(path: Path, data: Any) -> None:
    with room(path), replacing(path) as partial, partial.open("w") as file:
        json.dump(data, file)
        _to_disk(file)


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
