"""What is minimised: the HR loss of the restoration model, the reconstruction of the VAE."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from realisvsr_jax import flow
from realisvsr_jax.axes import Video
from realisvsr_jax.losses.hr import HRLossConfig, hr_loss
from realisvsr_jax.mesh import BATCH, SEQ, constrain
from realisvsr_jax.resize import bicubic, to_float
from realisvsr_jax.training.settings import FlowConfig, VAELossConfig
from realisvsr_jax.training.state import Partition
from realisvsr_jax.training.step import Batch, Metrics

Perceptual = Callable[[jax.Array, jax.Array], jax.Array]


def enlarged(batch: Batch) -> Video:
    """The low-quality clip at the ground truth's size, as the VAE gets it."""
    return bicubic(to_float(batch["lq"]), *batch["gt"].shape[2:4])


@dataclasses.dataclass(frozen=True)
class RestorationObjective:
    """Rectified flow in latent space under the HR loss (Eqs. 2–6).

    `frozen` is a mapping with the frozen parameters of the `network` and of the `vae`, which
    encodes `encode_frames` frames of one clip at a time; 0: all of both clips.
    """

    network: Partition
    vae_graph: Any
    flow: FlowConfig
    loss_weights: HRLossConfig
    condition_scale: float
    encode_frames: int = 0

    def prepare(self, frozen: Any, batch: Batch) -> Batch:
        """Encodes both clips, unless the batch brings their latents."""
        if "gt_latent" in batch:
            return batch
        vae = nnx.merge(self.vae_graph, frozen["vae"])
        # Devices along the sequence see the same clips, and share their rows out instead.
        pixels = [
            constrain(clip, BATCH, None, SEQ) for clip in (to_float(batch["gt"]), enlarged(batch))
        ]
        if self.encode_frames:
            encode = functools.partial(vae.encode_stream, frames=self.encode_frames)
            gt, lq = jax.lax.map(encode, jnp.stack(pixels))
        else:
            gt, lq = jnp.split(vae.encode(jnp.concatenate(pixels)), 2)
        return batch | {"gt_latent": gt, "lq_latent": lq}

    def loss(self, params: Any, frozen: Any, batch: Batch, keys: jax.Array) -> tuple[Any, Metrics]:
        """L_HR, each term before its weight, and each term's gradient norm at the output."""
        model = self.network.merge(params, frozen["network"])
        x0 = batch["gt_latent"]
        noise_keys, time_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(noise_keys)
        noise = self.flow.noise * noise
        t = jax.vmap(
            lambda key: flow.sample_time(key, (), self.flow.shift, distribution=self.flow.time)
        )(time_keys)
        z_t = flow.interpolate(x0, noise, t)
        velocity = model(
            z_t,
            1000.0 * t,
            batch["lq_latent"],
            batch["text"],
            condition_scale=self.condition_scale,
        )
        target = flow.velocity_target(x0, noise)
        total, terms = hr_loss(velocity, target, self.loss_weights)
        return total, {"loss": total} | terms | self._term_gradients(velocity, target)

    def _term_gradients(self, velocity: jax.Array, target: jax.Array) -> Metrics:
        """‖∂ weight·term / ∂v‖ for each term: who pulls the network, and how hard."""
        velocity = jax.lax.stop_gradient(velocity)
        silent = dataclasses.replace(self.loss_weights, rec=0.0, wavelet=0.0, hog=0.0)
        norms = {}
        for term in ("rec", "wavelet", "hog"):
            if weight := getattr(self.loss_weights, term):
                alone = dataclasses.replace(silent, **{term: weight})
                gradient = jax.grad(lambda v, alone=alone: hr_loss(v, target, alone)[0])(velocity)
                norms[f"{term}_gradient"] = jnp.linalg.norm(gradient)
        return norms


@dataclasses.dataclass(frozen=True)
class VAEObjective:
    """L1 + LPIPS + KL of the reconstruction; a share of the clips is degraded ones."""

    network: Partition
    weights: VAELossConfig

    def prepare(self, frozen: Any, batch: Batch) -> Batch:
        """Keeps the clips as bytes; both versions in float32 would only take memory."""
        del frozen
        return batch

    def loss(self, params: Any, frozen: Any, batch: Batch, keys: jax.Array) -> tuple[Any, Metrics]:
        """The weighted sum; `frozen["perceptual"]` is LPIPS, called on frames."""
        vae = self.network.merge(params, frozen["network"])
        choice_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        low = jax.vmap(jax.random.uniform)(choice_keys) < self.weights.low_quality
        video = jnp.where(low[:, None, None, None, None], enlarged(batch), to_float(batch["gt"]))
        mean, log_variance = vae.encode_moments(video)
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(noise_keys)
        restored = vae.decode_raw(mean + jnp.exp(0.5 * log_variance) * noise)
        l1 = jnp.mean(jnp.abs(restored - video))
        kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
        frames = (-1, *video.shape[2:])
        lpips = jnp.mean(frozen["perceptual"](restored.reshape(frames), video.reshape(frames)))
        total = self.weights.l1 * l1 + self.weights.lpips * lpips + self.weights.kl * kl
        psnr = 10.0 * jnp.log10(4.0 / jnp.mean(jnp.square(jnp.clip(restored, -1, 1) - video)))
        return total, {"loss": total, "l1": l1, "lpips": lpips, "kl": kl, "psnr": psnr}
