"""MUSIQ, CLIP-IQA and DOVER by programs of other environments, which want torchvision.

A program (evals/workers/) is started once, given each clip's frames through a pipe, and answers
with a line of JSON.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.errors import InputError

WORKERS = Path(__file__).parent / "workers"
PYIQA_NAMES = ("musiq", "clipiqa")
WHERE = {
    "pyiqa": "not asked for: give --pyiqa PYTHON, of an environment with `pip install pyiqa`",
    "dover": "not asked for: give --dover PYTHON:FOLDER, of an environment with DOVER's "
    "requirements and a clone of github.com/VQAssessment/DOVER with its weights",
}


class Scorer:
    """A program of another environment; closed by `close`, or as a context manager."""

    def __init__(self, kind: str, command: Sequence[str | Path], advice: str):
        """Waits until it is ready; raises InputError with its own words, and `advice`."""
        self._kind, self._advice = kind, advice
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the program)
        try:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
            )
        except OSError as error:
            self._words.close()
            raise InputError(f"--{kind}: {command[0]} cannot be run: {error.strerror}") from error
        try:
            self.names: tuple[str, ...] = tuple(self._answer("ready"))
        except InputError:
            self.close()
            raise

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, frames: int, height: int, width: int) -> None:
        """A clip of so many frames follows."""
        header = {"frames": frames, "height": height, "width": width}
        self._send(json.dumps(header).encode() + b"\n")

    def add(self, frame: np.ndarray) -> None:
        """Its next frame, uint8 [H, W, 3]."""
        self._send(np.ascontiguousarray(frame).tobytes())

    def scores(self) -> dict[str, float]:
        """Of the clip, after its last frame."""
        return {name: float(value) for name, value in self._answer("scores").items()}

    def close(self) -> None:
        """Ends the program."""
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream:
                    stream.close()
            except OSError:
                pass  # what it was still to be told
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            self._answer("scores")  # says why it ended
            raise

    def _answer(self, key: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            message = json.loads(line)
            if "error" not in message:
                return message[key]
            reason = message["error"]
        except (ValueError, LookupError, TypeError):
            self._process.poll()
            self._words.seek(0)
            words = self._words.read().decode(errors="replace").strip().splitlines()
            reason = words[-1] if words else f"it answered {line!r}"
        raise InputError(f"--{self._kind}: {' '.join(str(reason).split())}; {self._advice}")


def start_pyiqa(python: str, names: Sequence[str]) -> Scorer:
    """pyiqa's metrics by an interpreter that has it; InputError says what is missing."""
    advice = f"is it there? {python} -m pip install pyiqa, with access to its weights"
    return Scorer("pyiqa", [python, WORKERS / "pyiqa_worker.py", *names], advice)


def start_dover(where: str) -> Scorer:
    """DOVER's three scores by `PYTHON:FOLDER`; InputError says what is missing."""
    python, _, folder = where.partition(":")
    if not python or not folder:
        raise InputError(f"--dover {where!r}: expected PYTHON:FOLDER, the folder of DOVER's clone")
    if not Path(folder, "dover.yml").is_file():
        raise InputError(
            f"--dover: {folder} has no dover.yml; clone github.com/VQAssessment/DOVER there, with "
            "pretrained_weights/DOVER.pth in it"
        )
    advice = f"see {folder}/requirements.txt, and its README for pretrained_weights/DOVER.pth"
    return Scorer("dover", [python, WORKERS / "dover_worker.py", folder], advice)
