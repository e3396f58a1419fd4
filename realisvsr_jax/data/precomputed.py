"""Pairs made ahead of training: shards of arrays that a training step maps into memory.

A folder of shards, each a folder of `.npy` files whose first axis is the clip: `gt` and `lq`
(bytes), or `gt_latent` and `lq_latent` (float16). A shard is written under a temporary name and
renamed, so a shard that exists is whole, and making the rest goes on where it stopped.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.data.pipeline import DataConfig, make_batches
from realisvsr_jax.errors import InputError

Arrays = Mapping[str, np.ndarray]


def shard_path(folder: str | Path, number: int) -> Path:
    """Where shard `number` is or will be."""
    return Path(folder) / f"shard-{number:05}"


def write_shard(folder: str | Path, number: int, arrays: Arrays) -> None:
    """Writes one shard; all of `arrays` have the same length."""
    path = shard_path(folder, number)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(partial / f"{name}.npy", array)
    partial.rename(path)


def make_shards(
    folder: Path,
    config: DataConfig,
    clips: int,
    shard_size: int,
    transform: Callable[[dict[str, Any]], Arrays] | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Makes the shards of `folder` that are not there yet, `clips` pairs in all.

    Pairs are those that `make_batches` gives to a run with this data section; `transform` turns a
    batch into the arrays to store, which are its bytes where it is None. `progress` is given
    the number of pairs each time some are done. Raises InputError for more than one bucket and
    for numbers that the batch does not divide.
    """
    batch_size = config.batch_size
    if len(config.buckets) != 1:
        raise InputError("data.buckets must name one shape here; pairs of a shard have one size")
    if shard_size % batch_size or clips % shard_size:
        raise InputError(
            f"{clips} pairs in shards of {shard_size} and batches of {batch_size}: each must "
            "divide the one before"
        )
    # Shards are made in order, so those that are there are the first ones.
    done = sum(shard_path(folder, number).exists() for number in range(clips // shard_size))
    _report(progress, done * shard_size)
    steps = shard_size // batch_size
    left = clips // shard_size - done
    if not left:
        return
    batches = make_batches(config, start_step=done * steps, num_steps=left * steps)
    for number in range(done, done + left):
        parts = []
        for batch in itertools.islice(batches, steps):
            parts.append(transform(batch) if transform else _pixels(batch))
            _report(progress, batch_size)
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        write_shard(folder, number, arrays)


def _pixels(batch: dict[str, Any]) -> Arrays:
    # Copies, since a worker process shares its memory with the batch only for a while.
    return {name: np.array(batch[name]) for name in ("gt", "lq")}


def _report(progress: Callable[[int], object] | None, clips: int) -> None:
    if progress:
        progress(clips)


def open_shards(folder: str | Path) -> list[dict[str, np.ndarray]]:
    """Every shard, mapped into memory. Raises InputError if there is none."""
    shards = [
        {path.stem: np.load(path, mmap_mode="r") for path in sorted(shard.glob("*.npy"))}
        for shard in sorted(Path(folder).glob("shard-*"))
    ]
    if not shards:
        raise InputError(
            f"{folder} has no shards; make them with python -m realisvsr_jax.precompute"
        )
    return shards


def read_batches(
    folder: str | Path,
    batch_size: int,
    buckets: Sequence[tuple[int, int, int]],
    *,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches for steps start_step, start_step + 1, …; each a pure function of (seed, step).

    Clips are drawn with replacement between steps, without within one. Pixels are cropped, at
    random and in space and time, to the step's bucket (T, H, W), a multiple of the scale; latents
    are taken as they are. Raises InputError where a shard is smaller than the bucket or the batch.
    """
    shards = open_shards(folder)
    step = start_step
    while num_steps is None or step < start_step + num_steps:
        rng = np.random.default_rng([seed, step])
        shard = shards[rng.integers(len(shards))]
        clips = len(next(iter(shard.values())))
        if clips < batch_size:
            raise InputError(f"{folder}: a shard has {clips} clips, the batch takes {batch_size}")
        rows = np.sort(rng.choice(clips, batch_size, replace=False))
        bucket = buckets[rng.integers(len(buckets))]
        if "gt" in shard:
            yield _cropped(shard, rows, bucket, rng, folder)
        else:
            yield {name: array[rows].astype(np.float32) for name, array in shard.items()}
        step += 1


def _cropped(
    shard: Arrays,
    rows: np.ndarray,
    bucket: tuple[int, int, int],
    rng: np.random.Generator,
    folder: str | Path,
) -> dict[str, np.ndarray]:
    """`rows` of both arrays, each clip at a random place that keeps the pair aligned."""
    gt, lq = shard["gt"], shard["lq"]
    scale = gt.shape[2] // lq.shape[2]
    room = np.array(gt.shape[1:4]) - bucket
    if (room < 0).any():
        raise InputError(f"{folder}: pairs of {gt.shape[1:4]} are smaller than bucket {bucket}")
    grain = np.array([1, scale, scale])
    batch: dict[str, list[np.ndarray]] = {"gt": [], "lq": []}
    for row in rows:
        start = rng.integers(room // grain + 1) * grain
        size = np.array(bucket)
        batch["gt"].append(gt[row][_box(start, size)])
        batch["lq"].append(lq[row][_box(start // grain, size // grain)])
    return {name: np.stack(clips) for name, clips in batch.items()}


def _box(start: np.ndarray, size: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(a + n)) for a, n in zip(start, size))
