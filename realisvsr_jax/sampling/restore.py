"""Restores a clip: bicubic to the target size, VAE, sampling, VAE, colours, exact crop.

A clip is one scene here; `scene` restores it window by window, `jobs` whole files.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.frames import check_frames, enough_memory, plan_geometry
from realisvsr_jax.sampling.options import Number, Options, check_options
from realisvsr_jax.sampling.programs import Programs
from realisvsr_jax.sampling.scene import SceneRestorer
from realisvsr_jax.text.encoding import TextEncoder
from realisvsr_jax.weights.release import CARD, RUN_FILE, Release, load_card, load_release

__all__ = ["Restorer", "check_options", "find", "load"]

Progress = Callable[[int, int], object]


def load(
    path: str | Path | None = None,
    text_encoder: str | Path | None = None,
    vae_precision: str | None = None,
) -> "Restorer":
    """The model of a release folder, of a RUN (its averaged weights) or of a PyTorch checkpoint.

    None is the shipped one; what is no path is the id of a model on the hub. `text_encoder`
    encodes prompts that the weights' cache lacks: a release, a checkpoint or a hub id; where
    the release has one itself, it need not be named. `vae_precision` ("highest" or "high", see
    `vae.causal_conv.Lowering`) takes the place of what the weights say. Raises InputError for what
    is none of these, for weights that do not fit their settings, and for those that cannot restore.
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
    if vae_precision is not None:
        assert release.card.vae is not None
        how = dataclasses.replace(release.card.vae, precision=vae_precision)
        release.card = dataclasses.replace(release.card, vae=how)
        release.vae = release.vae.configured(how)
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


class Restorer(Programs):
    """Restores clips with the networks and the settings of one release."""

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
        options = Options(
            scale=scale,
            steps=steps,
            seed=seed,
            color=color,
            guidance=guidance,
            prompt=prompt,
            negative_prompt=negative_prompt,
            condition_scale=condition_scale,
        )
        count, height, width, _ = clip.shape
        scene = SceneRestorer(self, height, width, options)
        windows, state, done = scene.windows(count), None, 0
        parts = [scene.parts(window, count) for window in windows]
        geometry = plan_geometry(clip.shape, float(scale), self.vae_config, self.patch)
        with enough_memory(geometry):
            restored = np.empty((count, *scene.size, 3), clip.dtype)
            for window, own in zip(windows, parts):
                read, written = (slice(x.start, x.stop) for x in (window.reads, window.writes))

                def advance(part: int, _: int, before: int = done) -> None:
                    if progress is not None:
                        progress(before + part, sum(parts))

                restored[written], state = scene.restore(
                    window,
                    clip[read],
                    state,
                    frames_in_scene=count,
                    first_frame=0,
                    progress=advance,
                )
                done += own
        return restored
