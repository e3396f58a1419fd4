"""The Grain graph: sources -> clip -> bucket -> degraded pair -> batch.

Everything drawn for a pair comes from (seed, its index in the run), index = step · batch + place,
so the step number is the whole state of the data: whatever the number of workers, step n is
the same.
"""

import dataclasses
import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags

from realisvsr_jax.data.augment import flipped, sharpened
from realisvsr_jax.data.buckets import Bucket, bucket_at
from realisvsr_jax.data.degradation import MARGIN, degrade_clip, preset_named
from realisvsr_jax.data.sources import SourceClip, index_clips
from realisvsr_jax.errors import InputError

log = logging.getLogger(__name__)

ATTEMPTS = 10  # at other clips, where one cannot be read
_CLIP, _CROP = 1, 2  # what a generator is for


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where clips come from and what a batch is.

    `buckets`: the shapes (T, H, W) that ground truth is cropped to, one a step in turn. `scale`:
    of the low-quality clips. `degradation`: a preset's name. `workers`: processes; 0 reads in
    the training process. The last three are RealBasicVSR's and hurt here: see DESIGN section 4.
    """

    sources: tuple[str, ...] = ()
    buckets: tuple[tuple[int, int, int], ...] = ((49, 480, 832),)
    scale: int = 4
    degradation: str = "paper"
    batch_size: int = 8
    seed: int = 0
    workers: int = 0
    horizontal_flip: bool = True
    vertical_flip: bool = False
    transpose: bool = False
    sharpen: bool = False


def make_batches(
    config: DataConfig,
    *,
    start_step: int = 0,
    num_steps: int,
    clips: Sequence[SourceClip] | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Batches for steps start_step … start_step + num_steps.

    Each has `gt` uint8 [B, T, H, W, 3], `lq` uint8 [B, T, H/scale, W/scale, 3], `index` [B], and
    lists with one entry a pair: `caption` and `clip` (its path), strings, and `replaced`, a list of
    the reasons why clips had to be replaced by others. `clips` are those of the sources, which
    are indexed anew without it. `rows` are the places in a batch that are wanted, in order; all
    without it. Raises InputError for sources without a clip of a bucket's size, for sizes that
    the scale does not divide, and where too many clips cannot be read.
    """
    pairs = PairMaker(config, index_clips(config.sources) if clips is None else clips)
    rows = range(config.batch_size) if rows is None else rows
    size = len(rows)
    dataset = grain.MapDataset.range(start_step * size, (start_step + num_steps) * size)
    dataset = dataset.map(functools.partial(_global_index, rows, config.batch_size))
    dataset = dataset.map(pairs).batch(size, batch_fn=_collate)
    options = grain.ReadOptions(num_threads=0 if config.workers else 1, prefetch_buffer_size=2)
    batches = dataset.to_iter_dataset(options)
    if config.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers read its flags, set or not
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=2)
        )
    return _until_closed(iter(batches))


def _global_index(rows: Sequence[int], batch_size: int, number: int) -> int:
    """A pair's index in the run, from its number among those that this process makes."""
    step, place = divmod(int(number), len(rows))
    return step * batch_size + rows[place]


def _until_closed(batches: Any) -> Iterator[dict[str, Any]]:
    """Stops threads and worker processes with the last batch, or when no more are wanted."""
    try:
        yield from batches
    finally:
        batches.close()


class PairMaker:
    """A pair from its index in the run, as a pure function."""

    def __init__(self, config: DataConfig, clips: Sequence[SourceClip]):
        preset_named(config.degradation)
        self.config = config
        self.by_bucket = [self._large_enough(clips, bucket) for bucket in config.buckets]

    def _large_enough(self, clips: Sequence[SourceClip], bucket: Bucket) -> list[SourceClip]:
        if bucket[1] % self.config.scale or bucket[2] % self.config.scale:
            raise InputError(
                f"data.buckets: the sides of {bucket} do not divide by the scale "
                f"{self.config.scale}"
            )
        kept = [clip for clip in clips if clip.holds(bucket)]
        if not kept:
            raise InputError(
                f"data.sources: none of {len(clips)} clips is as large as bucket {bucket} "
                "(frames, height, width); use larger clips or smaller buckets"
            )
        if len(kept) < len(clips):
            log.info(
                "bucket %s: %d of %d clips are smaller", bucket, len(clips) - len(kept), len(clips)
            )
        return kept

    def __call__(self, index: int) -> dict[str, Any]:
        """One pair, by the names that `make_batches` gives."""
        _end_with_parent()
        step, place = divmod(int(index), self.config.batch_size)
        number, earlier = bucket_at(step, len(self.config.buckets), self.config.seed)
        clips, bucket = self.by_bucket[number], self.config.buckets[number]
        position = earlier * self.config.batch_size + place
        replaced: list[str] = []
        for attempt in range(ATTEMPTS):
            clip = clips[self._choice(len(clips), number, position, int(index), attempt)]
            rng = np.random.default_rng([self.config.seed, _CROP, int(index), attempt])
            try:
                gt, lq = self._pair(clip, bucket, rng)
            except InputError as reason:
                replaced.append(str(reason))
                continue
            names = {"caption": clip.caption, "clip": str(clip.path), "replaced": replaced}
            return {"gt": gt, "lq": lq, "index": np.int64(index)} | names
        raise InputError(f"{ATTEMPTS} clips in a row cannot be read, the last: {replaced[-1]}")

    def _choice(self, count: int, bucket: int, position: int, index: int, attempt: int) -> int:
        """Every clip once an epoch, in an order of its own; a replacement is drawn anew."""
        if attempt:
            rng = np.random.default_rng([self.config.seed, _CLIP, index, attempt])
            return int(rng.integers(count))
        epoch, place = divmod(position, count)
        return int(_permutation(self.config.seed, bucket, epoch, count)[place])

    def _pair(
        self, clip: SourceClip, bucket: Bucket, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        config = self.config
        room = (clip.num_frames, clip.height, clip.width)
        start, top, left = (int(rng.integers(a - b + 1)) for a, b in zip(room, bucket))
        lead = min(start, MARGIN)
        frames = clip.read(start - lead, bucket[0] + lead)
        frames = frames[:, top : top + bucket[1], left : left + bucket[2]]
        if frames.shape[1:3] != bucket[1:]:
            raise InputError(f"{clip.path} has changed its size since it was indexed")
        frames = flipped(
            frames,
            rng,
            horizontal=config.horizontal_flip,
            vertical=config.vertical_flip,
            turn=config.transpose,
        )
        frames = sharpened(frames) if config.sharpen else frames
        cv2.setNumThreads(1)
        lq = degrade_clip(frames, rng, config.scale, config.degradation, lead=lead, margin=MARGIN)
        return frames[lead:], lq


@functools.cache
def _end_with_parent() -> None:
    """In a worker process: ends it when the training process is gone, even by SIGKILL.

    Until then it goes on: a SIGTERM to all processes is the training's to answer, which may
    have to take one more step with the others.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, bucket: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, _CLIP, bucket, epoch]).permutation(count)


def _collate(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {
        name: np.stack([pair[name] for pair in pairs]) for name in ("gt", "lq", "index")
    }
    return batch | {
        name: [pair[name] for pair in pairs] for name in ("caption", "clip", "replaced")
    }
