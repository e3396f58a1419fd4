"""Pairs made ahead of training: shards of arrays that a training step maps into memory.

A folder of shards, each a folder of `.npy` files whose first axis is the clip: `gt` and `lq`
(bytes), or `gt_latent` and `lq_latent` (float16). A shard is written under a temporary name and
renamed, so a shard that exists is whole, and making the rest goes on where it stopped: with the
settings that `pairs.json` beside the shards names, or not at all.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax import settings
from realisvsr_jax.data.buckets import Bucket
from realisvsr_jax.data.degradation.ops import REVISION
from realisvsr_jax.data.pipeline import DataConfig, make_batches
from realisvsr_jax.errors import InputError
from realisvsr_jax.files import write_json
from realisvsr_jax.video.writing import room

Arrays = Mapping[str, np.ndarray]
PIXELS, LATENTS = ("gt", "lq"), ("gt_latent", "lq_latent")
RECIPE = "pairs.json"


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
    pairs: str | Path | None = None,
    vae: str | None = None,
) -> None:
    """Makes the shards of `folder` that are not there yet, `clips` pairs in all.

    Pairs are those that `make_batches` gives to a run with this data section, or the beginnings
    (in time, height and width) of those stored in the folder `pairs`; `transform` turns a batch
    into the arrays to store, which are its bytes where it is None; `vae` is the hash of the
    weights in it. `progress` is given the number of pairs each time some are done. Raises
    InputError for more than one bucket, for numbers that the batch does not divide, for too few or
    too small stored pairs, and for a folder whose shards were made with other settings.
    """
    batch_size = config.batch_size
    if len(config.buckets) != 1:
        raise InputError("data.buckets must name one shape here; pairs of a shard have one size")
    if shard_size % batch_size or clips % shard_size:
        raise InputError(
            f"{clips} pairs in shards of {shard_size} and batches of {batch_size}: each must "
            "divide the one before"
        )
    _check_recipe(folder, _recipe(config, shard_size, pairs, vae))
    # Shards are made in order, so those that are there are the first ones.
    done = sum(shard_path(folder, number).exists() for number in range(clips // shard_size))
    left = clips // shard_size - done
    _report(progress, done * shard_size)
    if not left:
        return
    steps = shard_size // batch_size
    if pairs is None:
        batches = make_batches(config, start_step=done * steps, num_steps=left * steps)
    else:
        batches = _stored(pairs, config, range(done * steps, (done + left) * steps))
    for number in range(done, done + left):
        parts = []
        for batch in itertools.islice(batches, steps):
            parts.append(transform(batch) if transform else _pixels(batch))
            _report(progress, batch_size)
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        write_shard(folder, number, arrays)


def _recipe(
    config: DataConfig, shard_size: int, pairs: str | Path | None, vae: str | None
) -> dict[str, Any]:
    """All that decides the arrays of a shard, but for the contents of the sources."""
    data = settings.to_mapping(config)
    del data["workers"], data["batch_size"]
    taken = None if pairs is None else str(pairs)
    return {"data": data, "shard": shard_size, "pairs": taken, "vae": vae, "revision": REVISION}


def _check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Writes it down in a new folder; raises InputError where there are shards of another."""
    path, anew = folder / RECIPE, "; name another --output, or remove this one"
    if not any(folder.glob("shard-*")):
        with room(path):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, recipe)
        return
    try:
        old = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} has shards, but no {RECIPE} says how they were made{anew}"
        ) from error
    if changed := settings.difference(old, recipe):
        raise InputError(f"{folder} was made with other settings: {changed}{anew}")


def _stored(
    folder: str | Path, config: DataConfig, steps: range
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of stored pairs in their order, cut to the bucket."""
    shards = open_shards(folder)
    size = len(shards[0]["gt"])
    frames, height, width = config.buckets[0]
    if any(have < want for have, want in zip(shards[0]["gt"].shape[1:4], config.buckets[0])):
        raise InputError(
            f"{folder}: pairs of {shards[0]['gt'].shape[1:4]} are smaller than bucket "
            f"{config.buckets[0]}"
        )
    if len(shards) * size < steps.stop * config.batch_size or size % config.batch_size:
        raise InputError(
            f"{folder} has {len(shards)} shards of {size} pairs; {steps.stop} batches of "
            f"{config.batch_size} were asked for"
        )
    for step in steps:
        number, first = divmod(step * config.batch_size, size)
        rows = slice(first, first + config.batch_size)
        gt, lq = (shards[number][name][rows, :frames] for name in ("gt", "lq"))
        small = (height // config.scale, width // config.scale)
        yield {"gt": gt[:, :, :height, :width], "lq": lq[:, :, : small[0], : small[1]]}


def _pixels(batch: dict[str, Any]) -> Arrays:
    # Copies, since a worker process shares its memory with the batch only for a while.
    return {name: np.array(batch[name]) for name in PIXELS}


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
    buckets: Sequence[Bucket],
    *,
    latent_buckets: Sequence[Bucket],
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Batches for steps start_step, start_step + 1, …; each a pure function of (seed, step).

    Clips are drawn with replacement between steps, without within one. Pairs are cropped, at
    random and in space and time, to the step's bucket: pixels to one of `buckets` (T, H, W),
    which the scale divides, latents to one of `latent_buckets` (t, h, w). Beside both arrays,
    `clip` names the pairs. `rows` are the places in a batch that are wanted. Raises InputError
    where a shard is smaller than the bucket or the batch.
    """
    shards = open_shards(folder)
    names, buckets = (PIXELS, buckets) if "gt" in shards[0] else (LATENTS, latent_buckets)
    step = start_step
    while num_steps is None or step < start_step + num_steps:
        rng = np.random.default_rng([seed, step])
        number = int(rng.integers(len(shards)))
        shard = shards[number]
        clips = len(next(iter(shard.values())))
        if clips < batch_size:
            raise InputError(f"{folder}: a shard has {clips} clips, the batch takes {batch_size}")
        drawn = np.sort(rng.choice(clips, batch_size, replace=False))
        bucket = buckets[int(rng.integers(len(buckets)))]
        pair = [shard[name] for name in names]
        starts = _starts(pair, batch_size, bucket, rng, folder)
        wanted = list(range(batch_size) if rows is None else rows)
        batch = _cropped(pair, drawn[wanted], starts[wanted], bucket)
        pairs = [f"{shard_path(folder, number)} pair {row}" for row in drawn[wanted]]
        yield dict(zip(names, batch)) | {"clip": pairs}
        step += 1


def _starts(
    pair: Sequence[np.ndarray],
    count: int,
    bucket: Bucket,
    rng: np.random.Generator,
    folder: str | Path,
) -> np.ndarray:
    """Where `count` clips of a pair of arrays are cropped, [count, 3], so that they stay aligned.

    Drawn for every clip of a batch, so that a clip's does not depend on who reads it.
    """
    gt, lq = pair
    scale = gt.shape[2] // lq.shape[2]
    room = np.array(gt.shape[1:4], int) - bucket
    if (room < 0).any():
        raise InputError(f"{folder}: pairs of {gt.shape[1:4]} are smaller than bucket {bucket}")
    grain = np.array([1, scale, scale], int)
    draws = [[rng.integers(1 + n) for n in room // grain] for _ in range(count)]
    return np.array(draws, int) * grain


def _cropped(
    pair: Sequence[np.ndarray], rows: np.ndarray, starts: np.ndarray, bucket: Bucket
) -> list[np.ndarray]:
    """`rows` of both arrays, each clip from its start."""
    gt, lq = pair
    scale = gt.shape[2] // lq.shape[2]
    grain = np.array([1, scale, scale], int)
    crops: tuple[list, list] = ([], [])
    for row, start in zip(rows, starts):
        crops[0].append(gt[row][_box(start, np.array(bucket))])
        crops[1].append(lq[row][_box(start // grain, np.array(bucket) // grain)])
    return [_full_width(np.stack(crop)) for crop in crops]


def _full_width(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _box(start: np.ndarray, size: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(a + n)) for a, n in zip(start, size))
