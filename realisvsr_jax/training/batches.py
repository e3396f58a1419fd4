"""What a run reads: its sources, the batches of its steps, and the shapes they have."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from realisvsr_jax.data import pipeline, precomputed
from realisvsr_jax.data.buckets import Bucket, bucket_at
from realisvsr_jax.data.sources import SourceClip, index_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.training import sharding
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.weights.release import Release

_DROPOUT = 3  # what a generator is for; the data pipeline has 1 and 2


@dataclasses.dataclass(frozen=True)
class Clips:
    """The indexed sources of training and of validation; None where they are not needed."""

    training: Sequence[SourceClip] | None = None
    validation: Sequence[SourceClip] | None = None


def find_clips(config: TrainingConfig) -> Clips:
    """Indexes all that a run will read; raises InputError for what it could not train with."""
    training = validation = None
    if config.precomputed:
        precomputed.open_shards(config.precomputed)
    else:
        training = index_clips(config.data.sources)
        pipeline.PairMaker(config.data, training)
    if config.validation.every:
        data = _validation_data(config)
        try:
            validation = index_clips(data.sources)
            pipeline.PairMaker(data, validation)
        except InputError as error:
            reason = str(error).replace("data.sources", "validation.sources")
            reason = reason.replace("data.buckets", "validation.bucket")
            raise InputError(reason) from error
    return Clips(training, validation)


def validation_batches(
    config: TrainingConfig, release: Release, clips: Sequence[SourceClip] | None = None
) -> Iterator[dict[str, Any]]:
    """The pairs of `config.validation`, one a batch: always the same ones, as training's are.

    `clips` are those of its sources, which are indexed anew without it.
    """
    alone = dataclasses.replace(
        config, data=_validation_data(config), precomputed="", caption_dropout=0.0
    )
    return make_data(alone, release, 0, num_steps=config.validation.clips, clips=clips)


def _validation_data(config: TrainingConfig) -> pipeline.DataConfig:
    wanted = config.validation
    return dataclasses.replace(
        config.data,
        sources=wanted.sources,
        buckets=(wanted.bucket,),
        batch_size=1,
        seed=wanted.seed,
        workers=0,
        horizontal_flip=False,
    )


def make_data(
    config: TrainingConfig,
    release: Release,
    start_step: int,
    num_steps: int | None = None,
    clips: Sequence[SourceClip] | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Batches for the steps that are left: clips, positions and, for restoration, text.

    Beside these arrays the lists of `loop.NOTES`. `clips` are those of the sources, which are
    indexed anew without it. `rows` are the places in the batch that are wanted, all without it;
    nothing is read for the others.
    """
    steps = config.steps - start_step if num_steps is None else num_steps
    size = config.data.batch_size
    rows = range(size) if rows is None else rows
    if config.precomputed:
        batches = precomputed.read_batches(
            config.precomputed,
            size,
            config.data.buckets,
            latent_buckets=_latent_buckets(config, release),
            seed=config.seed,
            start_step=start_step,
            num_steps=steps,
            rows=rows,
        )
    else:
        batches = pipeline.make_batches(
            config.data, start_step=start_step, num_steps=steps, clips=clips, rows=rows
        )
    for step, batch in enumerate(batches, start_step):
        captions = batch.pop("caption", None) or [""] * len(rows)
        batch.pop("index", None)
        batch["position"] = np.asarray(rows, np.uint32)
        if release.prompts is not None:
            prompts = _shown(config, captions, [step * size + row for row in rows])
            batch["text"] = np.stack([release.prompts.lookup(prompt) for prompt in prompts])
        yield batch


def _shown(config: TrainingConfig, captions: Sequence[str], indices: Sequence[int]) -> list[str]:
    """The prompt of each pair: its caption, or the empty one for a share drawn by its index."""
    if not config.captions:
        return [""] * len(captions)
    draws = [np.random.default_rng([config.seed, _DROPOUT, index]).random() for index in indices]
    return ["" if u < config.caption_dropout else c for u, c in zip(draws, captions)]


def _latent_buckets(config: TrainingConfig, release: Release) -> list[Bucket]:
    assert release.card.vae is not None
    return [release.card.vae.latent_size(bucket) for bucket in config.data.buckets]


def batch_shapes(
    config: TrainingConfig, release: Release, start_step: int, mesh: Mesh | None
) -> list[dict[str, jax.ShapeDtypeStruct]]:
    """The arrays of each bucket's batches, in the order in which steps from `start_step` come."""
    stored: Mapping[str, np.ndarray] | None = None
    if config.precomputed:
        stored = precomputed.open_shards(config.precomputed)[0]
        buckets = _latent_buckets(config, release)
        buckets = list(config.data.buckets) if "gt" in stored else buckets
    else:
        count, seed = len(config.data.buckets), config.data.seed
        steps = range(start_step, start_step + count)
        buckets = [config.data.buckets[bucket_at(step, count, seed)[0]] for step in steps]
    with_text = release.prompts is not None
    return [shapes_of(config, bucket, mesh, with_text, stored) for bucket in buckets]


def shapes_of(
    config: TrainingConfig,
    bucket: Bucket,
    mesh: Mesh | None,
    with_text: bool = True,
    stored: Mapping[str, np.ndarray] | None = None,
) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of one batch: pairs of pixels, or of what is `stored`, positions and text."""
    size, scale, dit = config.data.batch_size, config.data.scale, config.model.dit
    frames, height, width = bucket
    found: dict[str, tuple[tuple[int, ...], Any]] = {"position": ((size,), np.uint32)}
    if stored is not None and "gt_latent" in stored:
        latent = (size, *bucket, stored["gt_latent"].shape[-1])
        found |= {name: (latent, np.float32) for name in precomputed.LATENTS}
    else:
        if stored is not None:
            scale = stored["gt"].shape[2] // stored["lq"].shape[2]
        found["gt"] = ((size, frames, height, width, 3), np.uint8)
        found["lq"] = ((size, frames, height // scale, width // scale, 3), np.uint8)
    if with_text:
        found["text"] = ((size, dit.text_length, dit.text_dim), np.float32)
    where = sharding.batch(mesh) if mesh else None
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=where)
        for name, (shape, dtype) in found.items()
    }
