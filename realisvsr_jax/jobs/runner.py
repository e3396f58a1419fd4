"""Carries a plan out: decoding, restoring and encoding at once, a window kept as it is done.

While the device restores one window, a thread decodes frames for the next and another encodes
the one before. A finished window waits for no more than one other to be on the disk, so that a
kill costs one finished window at most, beside the one under way; and memory holds two results,
whatever the length of the video.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.files import replacing, sync
from realisvsr_jax.jobs.journal import Journal
from realisvsr_jax.jobs.plan import Plan, Step, size
from realisvsr_jax.jobs.scene import Scene
from realisvsr_jax.video import stream_video
from realisvsr_jax.video.folders import holds_pictures, write_picture
from realisvsr_jax.video.segments import join, write_segment
from realisvsr_jax.video.writing import put, room

log = logging.getLogger(__name__)

ADVICE = "free some, then give --resume to go on"
Progress = Callable[[float], object]


@dataclass
class Seconds:
    """Where the time of a run went: waiting for frames, restoring, waiting for the encoder.

    `encode` passes beside the others, in a thread of its own.
    """

    decode: float = 0.0
    restore: float = 0.0
    save: float = 0.0
    encode: float = 0.0


def run(
    plan: Plan,
    scene: Scene,
    journal: Journal,
    progress: Progress = lambda _: None,
) -> Seconds:
    """Restores the windows that the journal lacks; each is on the disk when this returns.

    `progress` is called with frames restored so far. Raises InputError for what is wrong with the
    source and for want of space; what is done by then stays in the journal.
    """
    steps, seconds = plan.steps[journal.done :], Seconds()
    if not steps:
        return seconds
    state = None
    if steps[0].window.index:
        state = scene.state_from(journal.load_state(journal.done - 1))
    source = _Source(plan, steps[0].reads.start)
    saving = ThreadPoolExecutor(1, "encode")
    pending: Future[None] | None = None
    try:
        for number, step in enumerate(steps, journal.done):
            with _adding(seconds, "decode"):
                frames = _given(source.take(step.reads), plan.deep)
            with _adding(seconds, "restore"):
                began = time.monotonic()
                restored, state = scene.restore(
                    step.window,
                    frames,
                    state if step.window.index else None,
                    frames_in_scene=step.frames,
                    first_frame=step.first,
                    progress=_within(step, progress),
                )
                took = time.monotonic() - began
            arrays = None if step.is_last else scene.state_arrays(state)
            with _adding(seconds, "save"):
                if pending is not None:
                    pending.result()
            pending = saving.submit(_save, plan, journal, number, restored, arrays, took, seconds)
            del restored, arrays, frames
        assert pending is not None
        with _adding(seconds, "save"):
            pending.result()
    finally:
        source.close()
        saving.shutdown()  # what is restored is kept, whatever went wrong elsewhere
    return seconds


def finish(plan: Plan, journal: Journal, done: Callable[[], object] = lambda: None) -> None:
    """Makes the output of all windows, in one step under its name, and removes the journal.

    `done` is called between the two.
    """
    target = Path(os.path.realpath(plan.output))
    with room(plan.output, ADVICE):
        if plan.kind == "video":
            whole = journal.folder / f"whole{target.suffix.lower()}"
            counts = [len(step.writes) for step in plan.steps]
            join(
                whole,
                plan.form,
                ((journal.segment(k), count) for k, count in enumerate(counts)),
                [time - plan.shift for time in plan.survey.times],
                delay=max(line["delay"] for line in journal.windows),
                source=None if holds_pictures(plan.source) else plan.source,
                length=plan.survey.length,
                start=plan.shift,
                end=plan.survey.end,
            )
            put(whole, target)
        else:
            frames = journal.folder / "frames"
            put(journal.frame(0) if plan.kind == "picture" else frames, target)
        sync(target.parent)
    done()
    journal.remove()


class _Source:
    """Frames of a video in order, decoded ahead by a thread into a bounded queue."""

    def __init__(self, plan: Plan, first: int):
        self._queue: queue.Queue[Any] = queue.Queue(plan.ahead)
        self._next, self._kept = first, []
        self._stopped = threading.Event()
        self._path, self._deep = plan.source, plan.deep
        self._range = (plan.start + first, plan.survey.frames - first)
        self._thread = threading.Thread(target=self._decode, name="decode", daemon=True)
        self._thread.start()

    def take(self, wanted: range) -> np.ndarray:
        """Frames `wanted`, [n, H, W, 3]; those before them are let go."""
        self._kept = [(k, frame) for k, frame in self._kept if k >= wanted.start]
        while self._next < wanted.stop:
            frame = self._queue.get()
            if isinstance(frame, Exception):
                raise frame
            if self._next >= wanted.start:
                self._kept.append((self._next, frame))
            self._next += 1
        return np.stack([frame for k, frame in self._kept if k < wanted.stop])

    def close(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join()

    def _decode(self) -> None:
        try:
            _, frames = stream_video(self._path, *self._range, deep=self._deep, damage=[])
            for frame, _ in frames:
                if not self._offer(frame):
                    return
            raise InputError(
                f"{self._path} has fewer frames than in the first pass; it was changed, or reading "
                "it fails: give --overwrite to begin anew"
            )
        except Exception as error:  # the thread that takes frames raises it
            self._offer(error)

    def _offer(self, item: Any) -> bool:
        """Puts into the queue, unless it is closed meanwhile."""
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.2)
                return True
        return False


def _save(
    plan: Plan,
    journal: Journal,
    number: int,
    restored: np.ndarray,
    arrays: dict[str, np.ndarray] | None,
    took: float,
    seconds: Seconds,
) -> None:
    """Puts a window on the disk: state and segment first, then the line that counts."""
    step = plan.steps[number]
    began = time.monotonic()
    delay, written = 0, 0
    with room(plan.output, ADVICE):
        if arrays is not None:
            journal.save_state(number, arrays)
        if plan.kind == "video":
            times = plan.survey.times[step.writes.start : step.writes.stop]
            segment = journal.segment(number)
            with replacing(segment) as partial:
                delay = write_segment(
                    partial, plan.form, _pixels(restored), [time - plan.shift for time in times]
                )
            sync(segment.parent)
            written = segment.stat().st_size
        else:
            for k, frame in zip(step.writes, _pixels(restored), strict=True):
                with replacing(journal.frame(k)) as partial:
                    write_picture(partial, frame)
                    sync(partial)
                written += journal.frame(k).stat().st_size
            sync(journal.frame(0).parent)
        journal.commit(window=number, frames=len(step.writes), delay=delay, seconds=round(took, 3))
    seconds.encode += time.monotonic() - began
    if number == 0 and len(plan.steps) > 1:
        _foresee(plan, took, written)
    if number == 1 and len(plan.steps) > 2:
        rest = sum(len(later.writes) for later in plan.steps[2:]) / len(step.writes)
        log.info("the second window took %.1f s; about %s are left", took, _duration(rest * took))


def _foresee(plan: Plan, took: float, written: int) -> None:
    """What the first window tells of the rest; its time includes compiling."""
    share = plan.survey.frames / len(plan.steps[0].writes)
    copies = 2 if plan.kind == "video" else 1
    log.info(
        "%s: the first of %d windows took %.1f s with compiling; the job takes %s of disk and at "
        "most about %s",
        *(plan.output, len(plan.steps), took, size(copies * share * written + plan.states)),
        _duration(share * took),
    )


def _duration(seconds: int | float) -> str:
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.1f} days"


def _given(frames: np.ndarray, deep: bool) -> np.ndarray:
    """What the restorer is given: uint8 as it is, more bits as float32 in [−1, 1]."""
    return frames.astype(np.float32) / np.float32(32_767.5) - np.float32(1) if deep else frames


def _pixels(restored: np.ndarray) -> Iterator[np.ndarray]:
    """Frames as they are stored, uint8 or uint16."""
    for frame in restored:
        if frame.dtype == np.uint8:
            yield frame
        else:
            whole = np.round((frame.astype(np.float32) + 1) * np.float32(32_767.5))
            yield whole.clip(0, 65_535).astype(np.uint16)


def _within(step: Step, progress: Progress) -> Callable[[int, int], object]:
    first, count = step.writes.start, len(step.writes)
    return lambda done, total: progress(first + count * done / max(total, 1))


@contextlib.contextmanager
def _adding(seconds: Seconds, stage: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    setattr(seconds, stage, getattr(seconds, stage) + time.monotonic() - began)
