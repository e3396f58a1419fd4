"""What a network in training makes of clips that it is not trained on, as scores."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from realisvsr_jax.axes import Video
from realisvsr_jax.evals.perceptual import load_lpips
from realisvsr_jax.resize import to_float
from realisvsr_jax.sampling.color import correct
from realisvsr_jax.sampling.solvers import SamplerConfig, initial_noise, solve
from realisvsr_jax.training.objectives import enlarged
from realisvsr_jax.weights.release import Release

Scores = dict[str, float]


class Validator:
    """Scores networks on the same pairs, with the same noise, each time it is called."""

    def __init__(self, batches: Iterable[dict[str, Any]]):
        """`batches` as training's, of one pair each and all of one size, kept on the host."""
        self.batches = list(batches)
        self.lpips = load_lpips("alex")
        self._restored = nnx.jit(self._score_restored, static_argnums=(1, 2))
        self._round_trip = nnx.jit(self._score_round_trip)

    def __call__(self, release: Release, condition_scale: float = 1.0) -> Scores:
        """The means of `rows`."""
        rows = self.rows(release, condition_scale)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def rows(self, release: Release, condition_scale: float = 1.0) -> list[Scores]:
        """PSNR in dB and LPIPS (Alex) of every clip, means over its frames.

        Of the restored clip with the card's sampler and wavelet colours; without a transformer,
        of the VAE's round trip of the ground truth, and `psnr_low` of the low-quality clip's.
        """
        rows = []
        for number, batch in enumerate(self.batches):
            # NumPy's, which every process of a run on a mesh may give to one program.
            arrays = {n: a for n, a in batch.items() if isinstance(a, np.ndarray)}
            if release.model is None:
                row = self._round_trip(release.vae, arrays)
            else:
                networks, sampler = (release.vae, release.model), release.card.sampler
                row = self._restored(networks, sampler, condition_scale, arrays, np.uint32(number))
            rows.append({name: float(value) for name, value in row.items()})
        return rows

    def _score_restored(
        self,
        networks: Any,
        sampler: SamplerConfig,
        condition_scale: float,
        batch: dict[str, Any],
        seed: Any,
    ) -> dict[str, jax.Array]:
        restored = _restored(networks, sampler, condition_scale, batch, seed)
        return self._scores(restored, to_float(batch["gt"]))

    def _score_round_trip(self, vae: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        truth_again, low, low_again = _round_trip(vae, batch)
        scores = self._scores(truth_again, to_float(batch["gt"]))
        return scores | {"psnr_low": _psnr(low_again, low)}

    def _scores(self, restored: Video, truth: Video) -> dict[str, jax.Array]:
        frames = (-1, *truth.shape[2:])
        lpips = self.lpips(restored.reshape(frames), truth.reshape(frames))
        return {"psnr": _psnr(restored, truth), "lpips": jnp.mean(lpips)}


def _psnr(video: Video, truth: Video) -> jax.Array:
    """Of frames in [−1, 1], the mean over them."""
    error = jnp.mean(jnp.square(video - truth), axis=(0, 2, 3, 4))
    return jnp.mean(10 * jnp.log10(4.0 / error))


def _round_trip(vae: Any, batch: dict[str, jax.Array]) -> tuple[Video, Video, Video]:
    """The ground truth through the VAE, the enlarged input, and that through the VAE."""
    low = enlarged(batch)

    def again(video: Video) -> Video:
        return jnp.clip(vae.decode_raw(vae.encode_moments(video)[0]), -1.0, 1.0)

    return again(to_float(batch["gt"])), low, again(low)


def _restored(
    networks: Any,
    sampler: SamplerConfig,
    condition_scale: float,
    batch: dict[str, jax.Array],
    seed: jax.Array,
) -> Video:
    vae, model = networks
    low = enlarged(batch)
    condition = vae.encode(low)
    noise = initial_noise(jax.random.key(seed), condition.shape, sampler)

    def velocity(z: jax.Array, timestep: jax.Array) -> jax.Array:
        times = jnp.full(z.shape[:1], timestep)
        return model(z, times, condition, batch["text"], condition_scale=condition_scale)

    return correct(vae.decode(solve(velocity, noise, sampler)), low, "wavelet")
