"""Static shapes (T, H, W) that clips are cropped to, and which of them a step takes.

The named buckets keep an aspect's area near 480P or 720P; their tokens per latent frame (16 × 16
pixels each) divide by 8, so that a sequence axis of up to 8 devices needs no padding.
"""

from collections.abc import Sequence

import numpy as np

Bucket = tuple[int, int, int]

_SIZES_480P = ((480, 832), (512, 768), (544, 704), (624, 640))
_SIZES_720P = ((720, 1280), (768, 1184), (800, 1152), (832, 1088), (896, 1024))


def with_transposes(frames: int, sizes: Sequence[tuple[int, int]]) -> tuple[Bucket, ...]:
    """Each (H, W) as landscape and as portrait, with `frames` frames."""
    return tuple((frames, *size) for h, w in sizes for size in ((h, w), (w, h)))


def buckets_480p(frames: int = 49) -> tuple[Bucket, ...]:
    """The 480P scale of the paper's main model."""
    return with_transposes(frames, _SIZES_480P)


def buckets_720p(frames: int = 49) -> tuple[Bucket, ...]:
    """The 720P scale of the paper's single-pass model (Table 4)."""
    return with_transposes(frames, _SIZES_720P)


def bucket_at(step: int, count: int, seed: int) -> tuple[int, int]:
    """(which of `count` buckets, how many steps took it before): a function of (seed, step).

    Buckets are taken in turn, in an order that the seed draws, so that every host agrees.
    """
    order = np.random.default_rng([seed, 0]).permutation(count)
    return int(order[step % count]), step // count
