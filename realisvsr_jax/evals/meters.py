"""All metrics of one clip in one pass over its frames, which are never all in memory.

A meter is given each frame of both clips (uint8 RGB, or float in [−1, 1]) and has its scores, by
the metrics' names, behind the last; a score that a clip cannot have is a reason instead.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import columns, fidelity
from realisvsr_jax.evals.alignment import SAMPLES, Alignment
from realisvsr_jax.evals.footage import Pair, frames_of, to_bytes
from realisvsr_jax.evals.niqe import load_niqe
from realisvsr_jax.evals.no_reference import WHERE, Scorer
from realisvsr_jax.evals.temporal import Changes, WarpingError

CHANGES, SHIFT = "changes", "shift"  # what is kept beside the metrics: lists, no single score
_TOGETHER = 2**19  # pixels of small frames that go through a network at once

Found = dict[str, Any]  # by metric: a score, or {"absent": reason}


@runtime_checkable
class Meter(Protocol):
    """What reads along."""

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        """The next frame."""

    def found(self) -> Found:
        """After the last."""
        ...


Programs = Mapping[str, Scorer]
Watch = Callable[[np.ndarray, "np.ndarray | None"], object]


def measure(
    clips: Pair, names: Iterable[str], programs: Programs, watch: Sequence[Watch] = ()
) -> Found:
    """Scores of a clip, and the reasons of those that it cannot have.

    `names` are metrics, CHANGES and SHIFT. `programs` are those of other environments by
    "pyiqa" and "dover". Each of `watch` is given every frame too. Raises InputError for what
    cannot be read, and where a metric's weights or a program fail.
    """
    found: Found = {}
    wanted = []
    for name in names:
        if reason := absent(name, clips, programs):
            found[name] = {"absent": reason}
        else:
            wanted.append(name)
    meters = meters_of(clips, wanted, programs)
    if not (meters or watch):
        return found
    for restored, reference in frames_of(clips):
        for meter in meters:
            meter.add(restored, reference)
        for look in watch:
            look(restored, reference)
    for meter in meters:
        found |= meter.found()
    return found


def absent(name: str, clips: Pair, programs: Programs) -> str:
    """Why a clip cannot have a score; "" where it can."""
    if name == SHIFT:
        return "" if clips.reference else "needs a reference"
    if name == CHANGES:
        return "" if clips.restored.frames > 1 else "needs two frames"
    needs = columns.METRICS[name].needs
    if needs == columns.REFERENCE and clips.reference is None:
        return "needs a reference"
    if needs == columns.MOTION and clips.restored.frames < 2:
        return "needs two frames"
    if needs in WHERE and needs not in programs:
        return WHERE[needs]
    return columns.too_small(name, *clips.size)


def meters_of(clips: Pair, names: Sequence[str], programs: Programs) -> list[Meter]:
    """What reads along for these metrics, CHANGES and SHIFT."""
    exact = [name for name in names if name.startswith(("psnr", "ssim"))]
    deep = [name for name in names if name.startswith(("lpips", "dists"))]
    meters: list[Meter] = [_Fidelity(exact)] if exact else []
    if deep:
        meters.append(_Perceptual(deep, clips))
    for name in names:
        if name in _ONE:
            meters.append(_ONE[name]())
        elif name == SHIFT:
            meters.append(_Shift(clips.restored.frames))
    for kind, program in programs.items():
        if mine := [
            name
            for name in names
            if name in columns.METRICS and columns.METRICS[name].needs == kind
        ]:
            meters.append(_Program(mine, program, clips))
    return meters


@dataclass
class _Fidelity:
    names: Sequence[str]
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        for name in self.names:
            kind, _, space = name.partition("_")
            score = {"psnr": fidelity.psnr, "ssim": fidelity.ssim}[kind]
            self.values.setdefault(name, []).append(score(restored, reference, space))

    def found(self) -> Found:
        return {name: float(np.mean(values)) for name, values in self.values.items()}


class _Perceptual:
    def __init__(self, names: Sequence[str], clips: Pair):
        self._metrics = {name: _network(name) for name in names}
        height, width = clips.size
        self._batch = max(1, min(clips.restored.frames, _TOGETHER // (height * width)))
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._sums = dict.fromkeys(names, 0.0)
        self._count = 0

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        assert reference is not None
        self._waiting.append((restored, reference))
        if len(self._waiting) == self._batch:
            self._score()

    def found(self) -> Found:
        if self._waiting:
            self._score()
        return {name: total / self._count for name, total in self._sums.items()}

    def _score(self) -> None:
        import jax.numpy as jnp

        from realisvsr_jax.evals.perceptual_tiles import in_tiles
        from realisvsr_jax.resize import to_float

        count = len(self._waiting)
        # The last one again where some are missing: one shape, one compilation.
        full = self._waiting + self._waiting[-1:] * (self._batch - count)
        restored, reference = (to_float(jnp.asarray(np.stack(frames))) for frames in zip(*full))
        for name, metric in self._metrics.items():
            self._sums[name] += float(in_tiles(metric, restored, reference)[:count].sum())
        self._count += count
        self._waiting = []


class _Niqe:
    def __init__(self) -> None:
        self._values: list[float] = []
        self._metric = load_niqe()

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        value = self._metric(to_bytes(restored))
        if value is not None:
            self._values.append(value)

    def found(self) -> Found:
        if not self._values:
            return {"niqe": {"absent": "all frames are flat"}}
        return {"niqe": float(np.mean(self._values))}


class _Warping:
    def __init__(self) -> None:
        self._error = WarpingError()

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        self._error.add(restored)

    def found(self) -> Found:
        return {"ewarp": self._error.score()}


class _Changes:
    def __init__(self) -> None:
        self._changes = Changes()

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        self._changes.add(restored, reference)

    def found(self) -> Found:
        return {CHANGES: self._changes.values}


class _Shift:
    """Of frames spread over the clip."""

    def __init__(self, frames: int):
        self._alignment = Alignment()
        self._chosen = {round(k) for k in np.linspace(0, frames - 1, min(SAMPLES, frames))}
        self._at = 0

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        assert reference is not None
        if self._at in self._chosen:
            self._alignment.add(to_bytes(restored), to_bytes(reference))
        self._at += 1

    def found(self) -> Found:
        shift = self._alignment.shift()
        if shift is None:
            return {SHIFT: {"absent": "too small or flat"}}
        return {SHIFT: asdict(shift)}


class _Program:
    def __init__(self, names: Sequence[str], program: Scorer, clips: Pair):
        self._names, self._program = names, program
        program.begin(clips.restored.frames, *clips.size)

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        self._program.add(to_bytes(restored))

    def found(self) -> Found:
        scores = self._program.scores()
        if missing := [name for name in self._names if name not in scores]:
            raise InputError(f"the program of {missing[0]} has no such score; it has {[*scores]}")
        return {name: scores[name] for name in self._names}


_ONE: dict[str, Callable[[], Meter]] = {"niqe": _Niqe, "ewarp": _Warping, CHANGES: _Changes}


@functools.cache
def _network(name: str) -> Any:
    from realisvsr_jax.evals.perceptual import load_dists, load_lpips

    return load_dists() if name == "dists" else load_lpips(name.removeprefix("lpips_"))
