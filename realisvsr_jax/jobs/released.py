"""The weights of a release, a RUN or a checkpoint, as a job needs them."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs.scene import Needs, Outlook
from realisvsr_jax.sampling import restore
from realisvsr_jax.sampling.layout import Layout, make_layout
from realisvsr_jax.sampling.options import Options
from realisvsr_jax.sampling.plan import ScenePlan, plan
from realisvsr_jax.sampling.programs import check_prompts
from realisvsr_jax.sampling.scene import SceneRestorer, state_arrays, state_from
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.video import VideoInfo
from realisvsr_jax.weights.release import CARD, load_card, load_prompts

WHOLE = 2**20  # pixels or frames, more than there are


class Released:
    """Opens scenes with the weights at `folder`, which are read at the first one.

    `height` is that of the result, in place of the options' scale; `vae_precision` as in
    `restore.load`.
    """

    def __init__(
        self,
        folder: Path,
        text_encoder: str | None,
        options: Options,
        height: int | None = None,
        vae_precision: str | None = None,
    ):
        self.folder, self._text_encoder, self._precision = folder, text_encoder, vae_precision
        self._options, self._height = options, height
        self._opened: tuple[Any, SceneOf] | None = None

    def outlook(self, info: VideoInfo) -> Outlook:
        """For a video; reads a release's card alone, other weights whole."""
        options = self._options_for(info)
        layout = self.layout(info)
        self._check_prompts(options)
        needs = functools.partial(self._needs, info, options)
        return Outlook(layout.size, layout.windows, functools.lru_cache(needs))

    def layout(self, info: VideoInfo) -> Layout:
        """Sizes, tiles and windows for a video; reads what `outlook` reads."""
        return make_layout(self._card, info.height, info.width, self._options_for(info))

    def scene(self, info: VideoInfo) -> "SceneOf":
        """For a video; those of the last size stay compiled."""
        key = (info.height, info.width)
        if self._opened is None or self._opened[0] != key:
            self._opened = None
            self._opened = (key, SceneOf(self._restorer, *key, self._options_for(info)))
        return self._opened[1]

    def untiled(self, info: VideoInfo) -> "SceneOf":
        """As `scene`, with the whole picture as one tile."""
        options = dataclasses.replace(self._options_for(info), tile=(WHOLE, WHOLE))
        return SceneOf(self._restorer, info.height, info.width, options)

    @functools.cached_property
    def _restorer(self) -> Any:
        return restore.load(self.folder, self._text_encoder, self._precision)

    @functools.cached_property
    def _card(self) -> Any:
        if (self.folder / CARD).is_file():
            card = load_card(self.folder)
            if card.vae is not None and card.model is not None:
                return card
        return self._restorer.card  # or the error that says what is missing

    @functools.cached_property
    def _prompts(self) -> PromptCache | None:
        """Those that the weights bring; None where an encoder makes whatever is asked for."""
        card = self._card
        if self._text_encoder is not None or card.text_encoder is not None:
            return None
        if (self.folder / CARD).is_file():
            return load_prompts(self.folder, card.model.dit)
        return self._restorer.prompts

    def _check_prompts(self, options: Options) -> None:
        card = self._card
        guidance = card.sampler.guidance if options.guidance is None else options.guidance
        prompt = card.prompt if options.prompt is None else options.prompt
        check_prompts(self._prompts, prompt, options.negative_prompt, guidance)

    def _options_for(self, info: VideoInfo) -> Options:
        if self._height is None:
            return self._options
        if self._height < info.height:
            raise InputError(
                f"--height {self._height} is less than the input's {info.height}; give that or more"
            )
        return dataclasses.replace(self._options, scale=self._height / info.height)

    def _needs(self, info: VideoInfo, options: Options, frames: int) -> Needs:
        found = plan(
            self._card,
            info.height,
            info.width,
            frames,
            options,
            devices=jax.local_device_count(),
            itemsize=4 if info.bit_depth > 8 else 1,
        )
        sampler = self._card.sampler
        guidance = sampler.guidance if options.guidance is None else options.guidance
        layout = self.layout(info)
        tiles = sum(layout.tiling(span.size).count for span in layout.spans(frames))
        return Needs(
            passes=tiles * found.steps * (1 if guidance == 1 else 2),
            tiles=self._tiles(found),
            host=found.host_bytes,
            state=found.state_bytes,
            device=max(found.device_bytes.values()),
            device_limit=device_memory(),
        )

    def _tiles(self, found: ScenePlan) -> str:
        if found.tiling.count == 1:
            return "untiled"
        rows, columns = (len(starts) for starts in found.tiling.starts[1:])
        height, width = (side * self._card.vae.spatial_factor for side in found.tiling.size[1:])
        return f"{rows}×{columns} tiles of {height}×{width}, {found.batch} at once"


def device_memory() -> int | None:
    """Bytes that a device of this process has; None where it shares the host's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit")


class SceneOf(SceneRestorer):
    """A restorer of scenes whose state can be kept."""

    def state_arrays(self, state: Any) -> dict[str, np.ndarray]:
        """A state as arrays, bit by bit."""
        return state_arrays(state)

    def state_from(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """What `state_arrays` took apart."""
        return state_from(arrays)
