"""Restores a clip: bicubic to the target size, VAE, sampling, VAE, colours, exact crop.

The clip passes through the VAE as a stream, one latent frame at a time, so that on the device
only its latents are ever whole. Each program is compiled once a size of frames.
"""

import dataclasses
import logging
import math
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, TextStates, Video
from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.color import METHODS
from realisvsr_jax.sampling.denoise import make_velocity
from realisvsr_jax.sampling.frames import (
    Frames,
    Geometry,
    check_frames,
    enlarge,
    enough_memory,
    finish,
    plan_geometry,
    take,
)
from realisvsr_jax.sampling.solvers import Schedule, initial_noise, integrate, make_schedule
from realisvsr_jax.sampling.tiles import Size, Tiling, latent_tile, plan_tiles
from realisvsr_jax.settings import nearest
from realisvsr_jax.text.encoding import TextEncoder
from realisvsr_jax.vae.wan_vae import WanVAE
from realisvsr_jax.weights.release import CARD, RUN_FILE, Release, load_card, load_release

log = logging.getLogger(__name__)

Number = int | float
Progress = Callable[[int, int], object]


def load(path: str | Path | None = None, text_encoder: str | Path | None = None) -> "Restorer":
    """The model of a release folder, of a RUN (its averaged weights) or of a PyTorch checkpoint.

    None is the shipped one; what is no path is the id of a model on the hub. `text_encoder`
    encodes prompts that the weights' cache lacks: a release, a checkpoint or a hub id; where
    the release has one itself, it need not be named. Raises InputError for what is none of
    these, for weights that do not fit their settings, and for those that cannot restore.
    """
    folder = find(path)
    try:
        release = _read(folder)
    except ValueError as error:
        # Settings that contradict each other say so without the place.
        where = "" if str(folder) in str(error) else f"{folder}: "
        raise InputError(f"{where}{error}") from error
    if release.model is None:
        raise InputError(f"{folder} holds no transformer; name a release that can restore")
    if release.card.model is not None and release.card.model.cpc is None:
        raise InputError(
            f"{folder} has no control branch: it makes videos from text and restores none; train "
            "one with --config.init, see docs/training.md"
        )
    if release.vae is None:
        raise InputError(f"{folder} has no VAE; put it beside the transformer")
    return Restorer(release, _encoder(folder, text_encoder))


def find(path: str | Path | None = None) -> Path:
    """What `load` would read; raises InputError for what is neither there nor on the hub."""
    if path is None:
        from realisvsr_jax.training.networks import shipped_release

        folder = shipped_release()
        if not folder.is_dir():
            raise InputError("no weights came with this package; give a RUN or a release folder")
        return folder
    from realisvsr_jax.weights import sources

    found = sources.resolve(path, text=False)
    if not any((found / name).is_file() for name in (RUN_FILE, CARD)):
        try:
            sources.find_files(found)
        except InputError as error:
            raise InputError(
                f"{error}; name a RUN ({RUN_FILE}), a release ({CARD}) or a checkpoint"
            ) from error
    return found


def _read(folder: Path) -> Release:
    if (folder / CARD).is_file():
        return load_release(folder)
    if (folder / RUN_FILE).is_file():
        from realisvsr_jax.training.checkpoint import load_run

        return load_run(folder)
    from realisvsr_jax.weights.importing import load_checkpoint

    return load_checkpoint(folder, text=False)


def _encoder(folder: Path, given: str | Path | None) -> TextEncoder | None:
    """The text encoder that was given, or the release's own."""
    from realisvsr_jax.weights import importing, sources

    if given is not None:
        return importing.text_encoder(sources.resolve(given))
    has_own = (folder / CARD).is_file() and load_card(folder).text_encoder is not None
    return importing.text_encoder(folder) if has_own else None


class Restorer:
    """Restores clips with the networks and the settings of one release."""

    def __init__(self, release: Release, text_encoder: TextEncoder | None = None):
        """`release` has a transformer; with a VAE alone there is nothing to sample from.

        `text_encoder` encodes what the release's prompts lack.
        """
        assert release.model is not None
        assert release.card.model is not None
        assert release.vae is not None
        assert release.card.vae is not None
        assert release.prompts is not None
        self.card = release.card
        self.vae_config = release.card.vae
        self.prompts = release.prompts
        self.text_encoder = text_encoder
        self.patch = release.card.model.dit.patch_size
        vae: WanVAE = release.vae
        self._vae_graph, self._vae = nnx.split(vae)
        self._model_graph, self._model = nnx.split(release.model)
        self._encode = jax.jit(self._encode_chunk)
        self._decode = jax.jit(self._decode_chunk)
        self._sample = jax.jit(self._sample_latent, static_argnames="tiling")
        self._advance = _Counter(None, 0)

    def restore(
        self,
        frames: Any,
        scale: Number = 4,
        *,
        steps: int | None = None,
        seed: int = 0,
        color: str = "wavelet",
        guidance: Number | None = None,
        prompt: str | None = None,
        negative_prompt: str = "",
        condition_scale: Number = 1.0,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """The restored clip, [T, round(scale·H), round(scale·W), 3], of the kind of `frames`.

        Args:
          frames: [T, H, W, 3] RGB, uint8 or any float in [−1, 1].
          scale: 1 or more; 1 restores without enlarging. No side may exceed 65,535 pixels.
          steps: of the sampler; None, as `guidance` and `prompt`, means what the release says.
          seed: of the noise; the same seed gives the same clip.
          color: "wavelet", "adain" or "none" (see `sampling.color`).
          guidance: 1 is without; above, two forwards a step, `prompt` against `negative_prompt`.
          condition_scale: of the control branch; 0 leaves it out.
          progress: called with (done, total) after each step of the sampler and each latent
            frame through the VAE, there and back.

        Raises InputError for whatever does not fit this description, and for want of memory.
        """
        clip = check_frames(frames)
        check_options(scale, steps, seed, color, guidance, condition_scale)
        sampler = dataclasses.replace(
            self.card.sampler,
            steps=self.card.sampler.steps if steps is None else int(steps),
            guidance=self.card.sampler.guidance if guidance is None else float(guidance),
        )
        texts = self._texts(prompt, negative_prompt, sampler.guidance)
        geometry = plan_geometry(clip.shape, float(scale), self.vae_config, self.patch)
        tiling = self._tiling(geometry.latent)
        self._advance = _Counter(progress, 2 * geometry.latent[0] + sampler.steps)
        with enough_memory(geometry):
            condition = self._encode_clip(clip, geometry)
            latent = self._sample(
                self._model,
                condition,
                texts,
                (np.float32(sampler.guidance), np.float32(condition_scale)),
                jax.tree.map(np.float32, make_schedule(sampler)),
                np.uint32(seed),
                tiling=tiling,
            )
            latent.block_until_ready()
            jax.effects_barrier()
            return self._decode_clip(latent, clip, geometry, color)

    @property
    def vae(self) -> WanVAE:
        """The VAE by itself."""
        return nnx.merge(self._vae_graph, self._vae)

    def _texts(
        self, prompt: str | None, negative_prompt: str, guidance: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """States of both prompts [1, s, e]; the second None where it would change nothing."""
        prompt = self.card.prompt if prompt is None else prompt
        text = self._states(prompt)
        if guidance == 1:
            if negative_prompt:
                raise InputError(
                    f"the negative prompt {negative_prompt!r} needs a guidance above 1, which is "
                    "without; give one (--guidance 3), or leave the prompt out"
                )
            return text, None
        negative = self._states(negative_prompt)
        if np.array_equal(text, negative):
            log.warning("guidance %g has no effect: both prompts are %r", guidance, prompt)
            return text, None
        return text, negative

    def _states(self, prompt: str) -> np.ndarray:
        """[1, s, e]; encoded here, once, where the cache lacks them."""
        encoder = self.text_encoder
        if prompt not in self.prompts and encoder is not None:
            log.info("encoding the prompt %r", prompt)
            self.prompts.check_encoder(encoder.fingerprint, "the weights' prompt cache")
            self.prompts = self.prompts.joined(encoder.encode([prompt]), encoder.fingerprint)
        elif prompt not in self.prompts:
            known = ", ".join(map(repr, sorted(self.prompts.states)[:5])) or "none"
            raise InputError(
                f"the weights bring no states of the prompt {prompt!r} (they have: {known}); give "
                "--text-encoder PATH, which encodes it"
            )
        return self.prompts.lookup(prompt)[None]

    def _tiling(self, latent: Size) -> Tiling:
        factors = (self.vae_config.temporal_factor, self.vae_config.spatial_factor)
        tile = latent_tile(self.card.tile, self.card.overlap, factors, self.patch)
        return plan_tiles(latent, *(tile or (latent, (0, 0, 0))))

    def _encode_clip(self, clip: Frames, geometry: Geometry) -> Latent:
        latents, cache = [], None
        for index in geometry.chunks():
            video = enlarge(take(clip, index), geometry.size, geometry.padded)
            latent, cache = self._encode(self._vae, video, cache)
            latents.append(latent.block_until_ready())
            self._advance()
        return jnp.concatenate(latents, axis=1)

    def _decode_clip(
        self, latent: Latent, clip: Frames, geometry: Geometry, method: str
    ) -> np.ndarray:
        restored = np.empty((geometry.frames, *geometry.size, 3), clip.dtype)
        cache = None
        for t, index in enumerate(geometry.chunks()):
            video, cache = self._decode(self._vae, latent[:, t : t + 1], cache)
            wanted = restored[index[0] : index[-1] + 1]
            finished = finish(video, take(clip, index), geometry.size, method)
            wanted[:] = np.asarray(finished)[0, : len(wanted)]
            self._advance()
        return restored

    def _encode_chunk(self, vae: Any, video: Video, cache: Any) -> tuple[Latent, Any]:
        return nnx.merge(self._vae_graph, vae).encode_chunk(video, cache)

    def _decode_chunk(self, vae: Any, latent: Latent, cache: Any) -> tuple[Video, Any]:
        return nnx.merge(self._vae_graph, vae).decode_chunk(latent, cache)

    def _sample_latent(
        self,
        model: Any,
        condition: Latent,
        texts: tuple[TextStates, TextStates | None],
        scales: tuple[Float[Array, ""], Float[Array, ""]],
        schedule: Schedule,
        seed: Array,
        tiling: Tiling,
    ) -> Latent:
        """One program from noise to x0; options are arguments, so that none compiles again."""
        velocity = make_velocity(
            nnx.merge(self._model_graph, model),
            condition,
            texts[0],
            tiling,
            negative=texts[1],
            guidance=scales[0],
            condition_scale=scales[1],
        )

        def reporting(z: Latent, timestep: Float[Array, ""]) -> Latent:
            v = velocity(z, timestep)
            jax.debug.callback(self._on_step, v[0, 0, 0, 0, 0])
            return v

        noise = initial_noise(jax.random.key(seed), condition.shape, self.card.sampler)
        return integrate(reporting, noise, schedule)

    def _on_step(self, _: Any) -> None:
        self._advance()


def check_options(
    scale: Any, steps: Any, seed: Any, method: Any, guidance: Any, condition_scale: Any
) -> None:
    """Raises InputError for the first option of `Restorer.restore` that is out of range."""
    _check_real("scale", scale)
    if scale < 1:
        raise InputError(f"scale is {scale}; give 1 or more")
    if steps is not None:
        _check_integer("steps", steps, 1)
    _check_integer("seed", seed, 0, 2**32 - 1)
    if method not in METHODS:
        raise InputError(f"unknown colour correction {method!r}{nearest(str(method), METHODS)}")
    if guidance is not None:
        _check_real("guidance", guidance)
        if guidance < 1:
            raise InputError(f"guidance is {guidance}; give 1 or more (1 is without)")
    _check_real("condition_scale", condition_scale)


def _check_real(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; give a number")


def _check_integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    whole = isinstance(value, numbers.Integral)
    if not whole or int(value) < low or (high is not None and int(value) > high):
        end = "" if high is None else f" up to {high}"
        raise InputError(f"{name} is {value!r}; give a whole number from {low}{end}")


class _Counter:
    """Tells `progress` of each part of the work as it is done."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress = progress
        self.done, self.total = 0, total

    def __call__(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
