"""One scene, window by window: what goes in, what comes out, what the next window needs.

The low-quality clip is encoded as one stream and the result decoded as one, so that every latent
but the scene's first stands for the VAE's full number of frames; between them each window is
sampled as a continuation of the one before it.
"""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from realisvsr_jax.sampling.denoise import Known
from realisvsr_jax.sampling.frames import (
    Frames,
    Geometry,
    check_frames,
    enough_memory,
    finish,
    take,
)
from realisvsr_jax.sampling.layout import Layout, make_layout
from realisvsr_jax.sampling.options import Options
from realisvsr_jax.sampling.plan import batch_within, evened
from realisvsr_jax.sampling.programs import Programs, tiles_at_once, tiles_per_call
from realisvsr_jax.sampling.solvers import make_schedule
from realisvsr_jax.sampling.streams import Decoder, Encoder
from realisvsr_jax.sampling.tiles import Tiling
from realisvsr_jax.sampling.windows import Span, Window, chunks, scene_noise
from realisvsr_jax.vae.tiled import Carry

__all__ = ["Options", "SceneRestorer", "State", "Window", "state_arrays", "state_from"]

Progress = Callable[[int, int], object]
log = logging.getLogger(__name__)


@jax.tree_util.register_dataclass
@dataclass
class State:
    """What a window leaves to the next, in the host's memory; it may be used again.

    `window` is the number of the next one. `latents` and `condition` [1, t, h, w, c] are the
    restored and the low-quality latents that it knows; `encoder` and `decoder` are what the VAE's
    streams carry. After the last window nothing is left.
    """

    window: int
    latents: np.ndarray | None = None
    condition: np.ndarray | None = None
    encoder: Any = None
    decoder: Any = None


class SceneRestorer:
    """Restores scenes with frames of one size."""

    def __init__(self, restorer: Programs, height: int, width: int, options: Options):
        """`height` and `width` are those of the frames that go in.

        Raises InputError for options that do not fit the release or the size.
        """
        card = restorer.card
        sampler = dataclasses.replace(
            card.sampler,
            steps=card.sampler.steps if options.steps is None else int(options.steps),
            guidance=card.sampler.guidance if options.guidance is None else float(options.guidance),
        )
        self.restorer, self.options, self.sampler = restorer, options, sampler
        self.layout = make_layout(card, height, width, options)
        self.size = self.layout.size
        self.calls: Counter[str] = Counter()
        """Device programs dispatched so far: "encode", "sample", "decode"."""
        self._together = options.batch
        """Tiles in one call, as `Options.batch`."""
        self._fitted = options.batch > 0 or options.sampler_memory is None
        self._texts = restorer.texts(options.prompt, options.negative_prompt, sampler.guidance)
        self._schedule = make_schedule(sampler)
        self._encoder = Encoder(restorer, self.layout, options)
        self._decoder = Decoder(restorer, self.layout, options)

    def windows(self, frames: int) -> list[Window]:
        """Of a scene of `frames` frames; each is restored in its turn."""
        return self.layout.windows(frames)

    def parts(self, window: Window, frames_in_scene: int) -> int:
        """How many parts `progress` is told of for a window."""
        span = self.layout.spans(frames_in_scene)[window.index]
        encoded, decoded = span.size - span.known, span.end - span.start - span.known
        return encoded + self._ticks(span) + decoded

    def restore(
        self,
        window: Window,
        frames: Any,
        state: State | None,
        *,
        frames_in_scene: int,
        first_frame: int,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, State]:
        """The frames `window.writes`, [n, h, w, 3] of the kind of `frames`, and the next state.

        Args:
          frames: [n, H, W, 3] RGB, those of `window.reads`; uint8, or any float in [−1, 1].
          state: what the window before gave; None for the scene's first.
          first_frame: the number of the scene's first frame in the clip, for the noise.
          progress: called with (done, total) after each latent frame through the VAE, there and
            back, and each step of the sampler.

        Raises InputError for frames that are none, for another number of them, and for want of
        memory; ValueError for the state of another window.
        """
        clip = check_frames(frames)
        self._check(window, clip, state)
        spans = self.layout.spans(frames_in_scene)
        span, following = spans[window.index], [*spans, None][window.index + 1]
        parts = _Parts(progress, self.parts(window, frames_in_scene), self.calls)
        state = state or State(0)
        with enough_memory(self._geometry(len(clip), span)):
            new = range(span.start + span.known, span.start + span.size)
            condition, encoder = self._encoder(
                clip,
                chunks(new, self.layout.factor),
                state.encoder,
                parts.of("encode"),
                keep=following is not None,
            )
            if state.condition is not None:
                condition = np.concatenate([state.condition, condition], axis=1)
            latents = self._sample(span, condition, state, first_frame, parts)
            fresh = latents[:, span.known : span.end - span.start]
            finisher = _Finisher(clip, span, self.layout, self.options.color)
            decoder = self._decoder(
                fresh, state.decoder, finisher, parts.of("decode"), keep=following is not None
            )
        if following is None:
            return finisher.restored, State(window.index + 1)
        keep = slice(following.start - span.start, None)
        left = State(window.index + 1, latents[:, keep], condition[:, keep], encoder, decoder)
        return finisher.restored, left

    def _check(self, window: Window, clip: Frames, state: State | None) -> None:
        if len(clip) != len(window.reads):
            raise ValueError(f"window {window.index} reads {len(window.reads)} frames: {len(clip)}")
        found = 0 if state is None else state.window
        if found != window.index:
            raise ValueError(f"the state is that of window {found}, not of {window.index}")

    def _geometry(self, frames: int, span: Span) -> Geometry:
        layout = self.layout
        return Geometry(
            frames, layout.size, layout.padded, (span.size, *layout.latent), layout.factor
        )

    def _ticks(self, span: Span) -> int:
        """Steps of the sampler that are told of."""
        tiles = self.layout.tiling(span.size).count
        rounds = 1 if self.options.fuse == "steps" else -(-tiles // self._batch(span))
        return self.sampler.steps * rounds

    def _batch(self, span: Span) -> int:
        """Tiles in one call; the first call decides where it is the memory's to say."""
        devices, tiling = len(self.restorer.devices), self.layout.tiling(span.size)
        if not self._fitted:
            self._together, self._fitted = self._fitting(span, tiling), True
        return tiles_per_call(self._together, devices, tiling.count)

    def _fitting(self, span: Span, tiling: Tiling) -> int:
        """The largest batch, from the formula's down, whose compiled program fits."""
        memory, devices = self.options.sampler_memory, len(self.restorer.devices)
        assert memory is not None
        least = tiles_at_once(devices, tiling.count)
        latent = (span.size, *self.layout.latent)
        batch = batch_within(
            self.restorer.card, tiling, latent, self.options, devices, jax.default_backend()
        )
        z = jax.ShapeDtypeStruct((1, *latent, self.restorer.vae_config.z_dim), np.float32)
        known = Known(z, jax.ShapeDtypeStruct((span.size,), np.float32))  # pyright: ignore
        while batch > least:
            needed = self.restorer.sample_bytes(
                *self._inputs(z, z, known), tiling=tiling, batch=batch, fusing=self.options.fuse
            )
            if needed <= memory:
                break
            fewer = evened(batch // least // 2, least, tiling.count)
            log.info("%d tiles at once take %s bytes of a device: %d", batch, needed, fewer)
            batch = fewer
        return batch

    def _inputs(self, condition: Any, noise: Any, known: Known) -> tuple[Any, ...]:
        scales = (self.sampler.guidance, float(self.options.condition_scale))
        return condition, noise, known, self._texts, scales, self._schedule

    def _sample(
        self, span: Span, condition: np.ndarray, state: State, first_frame: int, parts: "_Parts"
    ) -> np.ndarray:
        """The restored latents of a window, those that were known among them."""
        tiling = self.layout.tiling(span.size)
        known: Any = np.zeros_like(condition)
        if state.latents is not None:
            known[:, : span.known] = state.latents
        mask: Any = np.float32(np.arange(span.size) < span.known)
        noise = scene_noise(
            self.options.seed,
            first_frame,
            range(span.start, span.start + span.size),
            condition.shape[2:],
            self.sampler.noise,
        )
        self.calls["sample"] += 1
        self.restorer.on_step = parts.advance
        latents = self.restorer.sample(
            *self._inputs(condition, noise, Known(known, mask)),
            tiling=tiling,
            batch=self._batch(span),
            fusing=self.options.fuse,
        )
        found = np.asarray(latents)
        jax.effects_barrier()
        return found


def state_arrays(state: State) -> dict[str, np.ndarray]:
    """`state` as arrays for `np.savez`, bit by bit; its structure is JSON in bytes."""
    arrays: dict[str, np.ndarray] = {}
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    structure = json.dumps(_taken_apart(fields, arrays)).encode()
    return arrays | {"structure": np.frombuffer(structure, np.uint8)}


def state_from(arrays: Mapping[str, np.ndarray]) -> State:
    """What `state_arrays` took apart; also from what `np.load` gives."""
    structure = json.loads(bytes(np.asarray(arrays["structure"])))
    return State(**_put_together(structure, arrays))


def _taken_apart(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON in which arrays are names in `arrays`, beside their containers' kinds."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Carry):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"carry": _taken_apart(fields, arrays)}
    if isinstance(value, dict):
        return {"dict": {name: _taken_apart(one, arrays) for name, one in value.items()}}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_taken_apart(one, arrays) for one in value]}
    name = f"a{len(arrays)}"
    arrays[name] = np.asarray(value)
    return name


def _put_together(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return np.asarray(arrays[value])
    ((kind, parts),) = value.items()
    if kind == "carry":
        return Carry(**_put_together(parts, arrays))
    if kind == "dict":
        return {name: _put_together(one, arrays) for name, one in parts.items()}
    found = [_put_together(one, arrays) for one in parts]
    return found if kind == "list" else tuple(found)


class _Finisher:
    """Gathers the frames of a window as they are decoded: cropped, coloured, of the clip's kind."""

    def __init__(self, clip: Frames, span: Span, layout: Layout, method: str):
        self.clip, self.size, self.method = clip, layout.size, method
        self.chunks = chunks(range(span.start + span.known, span.end), layout.factor)
        self.restored = np.empty((len(clip), *layout.size, 3), clip.dtype)

    def __call__(self, t: int, video: Any) -> None:
        index = self.chunks[t]
        wanted = self.restored[index[0] : index[-1] + 1]
        finished = finish(video, take(self.clip, index), self.size, self.method)
        wanted[:] = np.asarray(finished)[0, : len(wanted)]


class _Parts:
    """Counts programs, and tells `progress` of each part of the work as it is done."""

    def __init__(self, progress: Progress | None, total: int, calls: Counter[str]):
        self.progress, self.calls = progress, calls
        self.done, self.total = 0, total

    def advance(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)

    def of(self, kind: str) -> Callable[[int], None]:
        """For programs of one kind: called with how many were dispatched."""

        def advance(programs: int) -> None:
            self.calls[kind] += programs
            self.advance()

        return advance
