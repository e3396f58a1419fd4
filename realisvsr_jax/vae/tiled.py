"""The VAE on pictures too large for the device: bounded memory, and the result of the whole.

The layers of the latent's resolution, with their attention over a frame, run whole. All others run
tile by tile: tiles in the outer loop, time in the inner one, so that of the causal caches those of
one tile alone lie on the device. Every tile has the same shapes, so the layers compile twice: for
the first chunk of a stream and for later ones. What passes from one part to the other, and the
result, lie in the host's memory.

A clip is decoded and encoded in windows of a stream. What one leaves to the next is a `Carry`;
how much that is, and so whether the result is exact, is the caller's choice or a budget's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from realisvsr_jax.vae.causal_conv import Features, Resized
from realisvsr_jax.vae.regions import (
    Grid,
    Sides,
    changes_resolution,
    make_grid,
    whole_and_tiled,
)
from realisvsr_jax.vae.tile_plan import Carried, carried_bytes, describe, kind_within
from realisvsr_jax.vae.wan_vae import WanVAE

Host = Any
"""[B, T, H, W, …] in the host's memory: a NumPy array, or what is sliced and assigned like one."""
Chunk = tuple[Host, slice]
"""Frames that go through the layers at once: `array[:, frames]`."""
Piece = tuple[jax.Array, tuple[slice, slice, slice]]
"""A core's pixels or features, and the frames, rows and columns where they belong."""


@jax.tree_util.register_dataclass
@dataclass
class Carry:
    """What a stream leaves to its next window, as NumPy arrays; it is used up by that window.

    `whole` are the caches of the layers that run whole, `tiles` those of each tile. Without
    `tiles` the next window starts them anew on `recent`, the input that they saw last, and drops
    what comes out; without `whole` either, all layers start anew on `recent`, the stream's input.
    """

    whole: Any = None
    tiles: list[Any] | None = None
    recent: np.ndarray | None = None


class _Stream:
    """What decoder and encoder share: programs, geometry, and what is carried."""

    _decoding: ClassVar[bool]

    def __init__(
        self,
        vae: WanVAE,
        size: Sides,
        tile: Sides,
        *,
        carry: Carried | int | None = None,
        warm_up: int = 8,
    ):
        """For pictures of `size` (H, W).

        Args:
          tile: the core that a tile keeps, at most, in latent positions (h, w).
          carry: what a window leaves to the next. "caches": all, so that windows give exactly what
            one would. "features": the caches of the layers that run whole; tiles start anew in
            each window, `warm_up` latent frames before it. "inputs": no caches; all layers start
            anew. A number is a budget in bytes of host memory: the first of these that fits it,
            or the last. None is "caches".
          warm_up: in latent frames, of which the encoder takes the frames. Its error falls with it,
            as `benchmarks/vae_tiles.py` measures; with "features" and `tile_plan.exact_warm_up`
            frames there is none.

        Raises ValueError for a size that the spatial factor does not divide.
        """
        factor = vae.config.spatial_factor
        if size[0] % factor or size[1] % factor:
            raise ValueError(f"the VAE takes multiples of {factor} pixels, not {size[0]}×{size[1]}")
        if warm_up < 1:
            raise ValueError(f"a warm-up of {warm_up} latent frames; give 1 or more")
        self.config = vae.config
        self.size, self.latent_size = size, (size[0] // factor, size[1] // factor)
        half = vae.decoder if self._decoding else vae.encoder
        self.grid = make_grid(whole_and_tiled(half)[1], self.latent_size, tile)
        self.carry: Carried | int | None = carry
        self.warm_up = warm_up
        self.progress: Callable[[int, int], object] = lambda done, total: None
        """Called in each window with the tiles that are done, and how many there are."""
        self._graph, self._state = nnx.split(vae)
        self._offsets = [np.array(self.grid.offsets(core), np.int32) for core in self.grid.cores()]
        self._whole = jax.jit(self._whole_step, donate_argnames="older")
        self._tile = jax.jit(self._tile_chunk, donate_argnames="cache")

    def carried(self, batch: int = 1) -> Carried:
        """What this stream carries: as it was told, or the most exact that fits the budget."""
        if isinstance(self.carry, str):
            return self.carry
        found = carried_bytes(
            self.config, self.latent_size, self.grid, self.warm_up, decoding=self._decoding
        )
        return kind_within({kind: needed * batch for kind, needed in found.items()}, self.carry)

    def lowered(self, batch: int = 1, sharding: Any = None) -> dict[str, Any]:
        """The programs of a chunk within a stream, by the names of the parts: "whole" and "tile".

        `lowered()["tile"].compile().memory_analysis()` says what a tile takes. The VAE may be of
        shapes without numbers (`nnx.eval_shape`), and `sharding` on a device that is not here.
        """

        def on(*trees: Any) -> Any:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), trees
            )

        region, features = self.grid.sizes()[0], describe(self.config, self._decoding).channels
        frames, channels = (1, features) if self._decoding else (self.config.temporal_factor, 3)
        offsets = jax.ShapeDtypeStruct(self._offsets[0].shape, self._offsets[0].dtype)

        def pixels(*shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((batch, *shape), np.float32)

        x = pixels(1, *self.latent_size, self.config.z_dim if self._decoding else features)
        _, caches = jax.eval_shape(self._whole_step, self._state, x, None, None)
        first = pixels(1, *region, channels)
        _, cache = jax.eval_shape(self._tile_chunk, self._state, first, None, offsets)
        tile = pixels(frames, *region, channels)
        return {
            "whole": self._whole.lower(*on(self._state, x, *caches)),
            "tile": self._tile.lower(*on(self._state, tile, cache, offsets)),
        }

    def _whole_chunk(self, state: Any, x: Features, cache: Any) -> tuple[Resized, Any]:
        raise NotImplementedError

    def _tile_chunk(
        self, state: Any, x: Features, cache: Any, offsets: Int[Array, "crops 2"]
    ) -> tuple[Resized, Any]:
        raise NotImplementedError

    def _halves(self, state: Any) -> tuple[WanVAE, list[Any], list[Any]]:
        vae = nnx.merge(self._graph, state)
        return vae, *whole_and_tiled(vae.decoder if self._decoding else vae.encoder)

    def _run_whole(self, chunks: Iterable[Host], carry: Carry) -> Iterator[np.ndarray]:
        """What the whole layers make of each chunk; leaves their caches in `carry`."""
        (older, newer), carry.whole = _uploaded(carry.whole) or (None, None), None
        for chunk in chunks:
            x = np.asarray(chunk, np.float32)
            first = older is None
            y, newest = self._whole(self._state, x, older, newer)
            older, newer = newest if first else (newer, newest)
            yield np.asarray(y)
        carry.whole = jax.device_get((older, newer))

    def _whole_step(self, state: Any, x: Features, older: Any, newer: Any) -> tuple[Resized, Any]:
        """`_whole_chunk` of one frame; the two frames of each cache come apart.

        As one array they would move by a frame in place, for which the compiler copies all.
        Gives both at the stream's start, after it the newest alone, which takes the older's place.
        """
        if older is None:
            y, cache = self._whole_chunk(state, x, None)
            return y, (jax.tree.map(lambda c: c[:, :1], cache), _newest(cache))
        cache = jax.tree.map(lambda *frames: jnp.concatenate(frames, axis=1), older, newer)
        y, cache = self._whole_chunk(state, x, cache)
        return y, _newest(cache)

    def _run_tiles(self, chunks: Sequence[Chunk], drop: int, carry: Carry) -> Iterator[Piece]:
        """The cores of each tile, but of the first `drop` chunks; leaves caches in `carry`."""
        keep = self.carried(chunks[0][0].shape[0]) == "caches"
        old = carry.tiles or [None] * self.grid.count
        new, carry.tiles = [], None
        for i, core in enumerate(self.grid.cores()):
            read, kept = self.grid.places(core)
            (cache, old[i]), done = (_uploaded(old[i]), None), 0
            for t, (array, frames) in enumerate(chunks):
                x = np.ascontiguousarray(array[:, frames, *read], np.float32)
                y, cache = self._tile(self._state, x, cache, self._offsets[i])
                if t >= drop:
                    yield y, (slice(done, done + y.shape[1]), *kept)
                    done += y.shape[1]
            if keep:
                new.append(jax.device_get(cache))
            cache = None  # before the next tile's is uploaded
            self.progress(i + 1, self.grid.count)
        carry.tiles = new if keep else None


class TiledDecoder(_Stream):
    """`WanVAE.decode_chunk` for pictures of one size, window by window of a stream."""

    _decoding = True

    def decode(
        self, latent: Any, carry: Carry | None = None, out: Host | None = None
    ) -> tuple[Host, Carry]:
        """The next window of a stream, [B, T, H, W, 3] in [−1, 1], and what to carry on.

        `latent` is [b, t, h, w, c], normalised; `carry` None at the stream's start, else what the
        window before left, which this call uses up. `out` receives the pixels, part by part
        (`out[:, frames, rows, columns] = …`); None makes a float32 array. Raises ValueError for
        latents of another size.
        """
        if latent.shape[2:4] != self.latent_size:
            raise ValueError(
                f"this decoder is for latents of {self.latent_size[0]}×{self.latent_size[1]}, "
                f"not {latent.shape[2]}×{latent.shape[3]}"
            )
        frames = self.config.video_frames(latent.shape[1])
        if carry is not None:
            frames += self.config.temporal_factor - 1
        carry = carry or Carry()
        recent = [] if carry.recent is None else _each(carry.recent)
        inputs, warm = _each(latent), carry.whole is not None
        if not warm:
            inputs = recent + inputs
        features = list(self._run_whole(inputs, carry))
        if warm:
            features = recent + features
        pieces = self._run_tiles([(one, slice(None)) for one in features], len(recent), carry)
        out = _collect(pieces, (frames, *self.size), out)
        kind = self.carried(latent.shape[0])
        last = inputs if kind == "inputs" else features
        carry.recent = None if kind == "caches" else _joined(last[-self.warm_up :])
        carry.whole = None if kind == "inputs" else carry.whole
        return out, carry

    def _whole_chunk(self, state: Any, x: Features, cache: Any) -> tuple[Resized, Any]:
        vae, layers, _ = self._halves(state)
        offset, scale = vae.statistics()
        return _through(layers, vae.from_latent.valid(x * scale + offset), cache)

    def _tile_chunk(
        self, state: Any, x: Features, cache: Any, offsets: Int[Array, "crops 2"]
    ) -> tuple[Resized, Any]:
        _, _, layers = self._halves(state)
        video, cache = _through_region(layers, x, cache, self.grid, offsets)
        return jnp.clip(video, -1.0, 1.0), cache


class TiledEncoder(_Stream):
    """`WanVAE.encode_chunk` for pictures of one size, window by window of a stream."""

    _decoding = False

    def encode(self, video: Host, carry: Carry | None = None) -> tuple[np.ndarray, Carry]:
        """The next window of a stream: normalised latents [b, t, h, w, c], and what to carry on.

        `video` is [B, T, H, W, 3] in [−1, 1], of 1 + f·k frames at the stream's start (`carry`
        None) and f·k later, f being the temporal factor; `video[:, frames, rows, columns]` is all
        that is asked of it. `carry` is used up. Raises ValueError for another number of frames or
        another size.
        """
        factor, frames = self.config.temporal_factor, video.shape[1]
        if tuple(video.shape[2:4]) != self.size:
            raise ValueError(
                f"this encoder is for frames of {self.size[0]}×{self.size[1]}, "
                f"not {video.shape[2]}×{video.shape[3]}"
            )
        if carry is None:
            self.config.latent_frames(frames)
        elif not frames or frames % factor:
            raise ValueError(f"chunks of a stream have a multiple of {factor} frames, not {frames}")
        new = _chunks(video, carry is None, factor)
        carry = carry or Carry()
        recent = carry.recent
        old = [] if recent is None else _chunks(recent, True, factor)
        # Where the whole layers start anew too, they need the features of the warm-up.
        drop = 0 if carry.whole is None else len(old)
        pieces = self._run_tiles([*old, *new], drop, carry)
        made = (len(old) + len(new) - drop, *self.latent_size)
        features = _each(_collect(pieces, made))
        latents = list(self._run_whole(features, carry))[-len(new) :]
        kind = self.carried(video.shape[0])
        carry.recent = None
        if kind != "caches":
            carry.recent = _last_frames(recent, video, 1 + factor * (self.warm_up - 1))
        carry.whole = None if kind == "inputs" else carry.whole
        return _joined(latents), carry

    def _whole_chunk(self, state: Any, x: Features, cache: Any) -> tuple[Resized, Any]:
        vae, layers, _ = self._halves(state)
        offset, scale = vae.statistics()
        x, cache = _through(layers, x, cache)
        mean, _ = jnp.split(vae.to_moments.valid(x), 2, axis=-1)
        return (mean - offset) / scale, cache

    def _tile_chunk(
        self, state: Any, x: Features, cache: Any, offsets: Int[Array, "crops 2"]
    ) -> tuple[Resized, Any]:
        return _through_region(self._halves(state)[2], x, cache, self.grid, offsets)


def _through(layers: Sequence[Any], x: Features, cache: Any) -> tuple[Resized, Any]:
    """One layer after the other; caches are a tuple in their order."""
    new = []
    for layer, old in zip(layers, cache or (None,) * len(layers)):
        x, kept = layer(x, old)
        new.append(kept)
    return x, tuple(new)


def _through_region(
    layers: Sequence[Any], x: Features, cache: Any, grid: Grid, offsets: Int[Array, "crops 2"]
) -> tuple[Resized, Any]:
    """As `_through`, cropped to the next level's region where the resolution changes."""
    sizes, level, new = grid.sizes(), 0, []
    for layer, old in zip(layers, cache or (None,) * len(layers)):
        x, kept = layer(x, old)
        new.append(kept)
        if changes_resolution(layer):
            x, level = _crop(x, offsets[level], sizes[level + 1]), level + 1
    return _crop(x, offsets[-1], sizes[-1]), tuple(new)


def _crop(x: Features, offset: Int[Array, "2"], size: Sides) -> Float[Array, "b t y x c"]:
    if x.shape[2:4] == size:
        return x
    start = (0, 0, offset[0], offset[1], 0)
    return lax.dynamic_slice(x, start, (*x.shape[:2], *size, x.shape[-1]))


def _collect(pieces: Iterable[Piece], size: tuple[int, int, int], out: Host | None = None) -> Host:
    """Puts pieces where they belong, one late, so that the device does not wait for the host."""
    before = None
    for piece in pieces:
        array, _ = piece
        if out is None:
            out = np.empty((array.shape[0], *size, array.shape[-1]), np.float32)
        array.copy_to_host_async()
        if before is not None:
            _put(out, *before)
        before = piece
    if before is not None:
        _put(out, *before)
    return out


def _put(out: Host, array: jax.Array, place: tuple[slice, slice, slice]) -> None:
    out[:, *place] = np.asarray(array)


def _newest(cache: Any) -> Any:
    return jax.tree.map(lambda c: c[:, 1:], cache)


def _uploaded(cache: Any) -> Any:
    """Copies, since what the host still holds cannot be donated."""
    return jax.tree.map(jnp.array, cache)


def _each(array: Host) -> list[Host]:
    return [array[:, t : t + 1] for t in range(array.shape[1])]


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(array) for array in arrays], axis=1)


def _chunks(video: Host, first: bool, factor: int) -> list[Chunk]:
    """The frames behind each latent frame; the one that starts a stream stands alone."""
    frames = video.shape[1]
    starts = [0, *range(1, frames, factor)] if first else [*range(0, frames, factor)]
    return [(video, slice(a, b)) for a, b in zip(starts, [*starts[1:], frames])]


def _last_frames(recent: np.ndarray | None, video: Host, frames: int) -> np.ndarray:
    """The last `frames` of both, or all if they are fewer."""
    last = np.array(video[:, -frames:], np.float32)
    missing = frames - last.shape[1]
    return last if recent is None or not missing else _joined([recent[:, -missing:], last])
