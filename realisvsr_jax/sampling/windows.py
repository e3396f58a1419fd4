"""A scene in windows along time: each continues from latents that the one before it restored.

A window's network call has one of a few static sizes. Its first latent frames are known, which
the sampler holds fast; the last window is shifted back, so that it has its full size and knows
more. Noise belongs to a latent frame of the scene, whatever the window that it is seen in.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array

from realisvsr_jax.errors import InputError
from realisvsr_jax.numerics import round_up

LADDER = (1, 2, 3, 5, 9, 13)
STRIDE = 8  # of the sizes beyond
SIZE, OVERLAP = 13, 3  # latent frames, where a release says nothing; Wan's 49 frames, and 12
NOISE = 16  # latent frames whose noise is drawn at once


@dataclass(frozen=True)
class Window:
    """Numbers of frames within the scene: `reads` are new here and go in, `writes` come out."""

    index: int
    reads: range
    writes: range


@dataclass(frozen=True)
class Span:
    """Latent frames of one window: `size` from `start` on, the first `known` already restored.

    Those from `end` on are the repeated end of a scene that is shorter than any size.
    """

    start: int
    size: int
    known: int
    end: int


def plan_spans(latents: int, size: int, overlap: int, whole: int = 1) -> list[Span]:
    """Windows of `size` latent frames over a scene of `latents`, each knowing `overlap` at least.

    A scene shorter than that gets the smallest size of LADDER, or beyond it, that holds it. Sizes
    are multiples of `whole`, the network's patch in time. Raises InputError where the overlap is
    not smaller than the window.
    """
    if size < whole or not 0 <= overlap < size:
        raise InputError(
            f"windows of {size} latent frames cannot overlap by {overlap}; the overlap must be "
            f"smaller than the window, which takes {whole} latent frames or more"
        )
    size -= size % whole
    if latents <= size:
        rungs = (*LADDER, LADDER[-1] + round_up(max(latents - LADDER[-1], 0), STRIDE))
        size = min(size, *(round_up(rung, whole) for rung in rungs if rung >= latents))
        return [Span(0, size, 0, latents)]
    starts = [*range(0, latents - size, max(size - overlap, 1)), latents - size]
    ends = [0, *(start + size for start in starts)]
    return [
        Span(start, size, before - start, start + size) for start, before in zip(starts, ends[:-1])
    ]


def frames_of(latents: range, factor: int) -> range:
    """The frames behind a stretch of latent frames; the scene's first latent stands for one."""
    return range(_first(latents.start, factor), _first(latents.stop, factor))


def chunks(latents: range, factor: int) -> list[np.ndarray]:
    """The numbers of the frames behind each latent frame, counted from the stretch's first."""
    start = _first(latents.start, factor)
    return [np.array(frames_of(range(t, t + 1), factor)) - start for t in latents]


def scene_noise(
    seed: int, first_frame: int, latents: range, shape: Sequence[int], deviation: float = 1.0
) -> np.ndarray:
    """Noise [1, t, h, w, c] of some latent frames of the scene that begins at `first_frame`.

    `shape` is (h, w, c). A clip's first scene begins with what `initial_noise` draws from the
    seed's own key.
    """
    blocks = range(latents.start // NOISE, (latents.stop - 1) // NOISE + 1)
    parts = []
    for block in blocks:
        key = jax.random.key(np.uint32(seed))
        if first_frame or block:
            for number in (first_frame, block):
                key = jax.random.fold_in(key, np.uint32(number))
        drawn = deviation * _draw(key, (1, NOISE, *shape))
        first = block * NOISE
        parts.append(np.asarray(drawn)[:, max(latents.start - first, 0) : latents.stop - first])
    return np.concatenate(parts, axis=1)


@functools.partial(jax.jit, static_argnames="shape")
def _draw(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape)


def _first(latent: int, factor: int) -> int:
    return 0 if latent == 0 else 1 + (latent - 1) * factor
