"""What a network in training makes of a batch, as one picture for the log."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from realisvsr_jax import cluster
from realisvsr_jax.resize import to_float
from realisvsr_jax.sampling.solvers import initial_noise, solve
from realisvsr_jax.training.objectives import enlarged
from realisvsr_jax.weights.release import Release

ROWS = 2  # clips shown


def preview_picture(release: Release, batch: dict[str, Any]) -> np.ndarray:
    """uint8 [H, W, 3]: a row a clip, its last frame as input, as result and as ground truth.

    Without a transformer the result is the VAE's round trip of the ground truth. `batch` is a
    training batch of pixels or of latents; of these the VAE's decodings are shown.
    """
    rows = {name: np.asarray(value)[:ROWS] for name, value in batch.items()}
    columns = _restored(release, rows) if release.model else _round_trip(release, rows)
    pictures = [cluster.whole(column)[:, -1].astype(np.float32) for column in columns]
    page = np.concatenate([np.concatenate(list(picture)) for picture in pictures], axis=1)
    return np.rint((np.clip(page, -1, 1) + 1) * 127.5).astype(np.uint8)


def _round_trip(release: Release, batch: dict[str, np.ndarray]) -> tuple[jax.Array, ...]:
    @nnx.jit
    def run(vae, batch):
        truth = to_float(batch["gt"])
        return enlarged(batch), vae.decode_raw(vae.encode_moments(truth)[0]), truth

    return run(release.vae, batch)


def _restored(release: Release, batch: dict[str, np.ndarray]) -> tuple[jax.Array, ...]:
    sampler = release.card.sampler

    @nnx.jit
    def run(vae, model, batch):
        if "gt" in batch:
            low, truth = enlarged(batch), to_float(batch["gt"])
            condition = vae.encode(low)
        else:
            low, truth = vae.decode(batch["lq_latent"]), vae.decode(batch["gt_latent"])
            condition = batch["lq_latent"]
        noise = initial_noise(jax.random.key(0), condition.shape, sampler)

        def velocity(z, timestep):
            return model(z, jnp.full(z.shape[:1], timestep), condition, batch["text"])

        return low, vae.decode(solve(velocity, noise, sampler)), truth

    return run(release.vae, release.model, batch)
