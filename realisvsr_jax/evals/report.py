"""What a table says of a restored clip: PSNR, SSIM, LPIPS and DISTS against ground truth."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from realisvsr_jax.evals import fidelity, perceptual
from realisvsr_jax.resize import to_float

# name -> (what the column's second line states, decimals)
COLUMNS = {
    "psnr": ("RGB, dB ↑", 2),
    "ssim": ("Y ↑", 4),
    "lpips": ("Alex ↓", 4),
    "dists": ("VGG ↓", 4),
}
_PIXELS_AT_ONCE = 2**19  # some 1 GB of VGG16 features for both images


def score_clip(
    restored: Any, reference: Any, progress: Callable[[int], object] | None = None
) -> dict[str, float]:
    """Means over frames: PSNR on RGB, SSIM on Y, LPIPS with AlexNet, DISTS.

    Both are `T H W 3`, uint8 or float in [−1, 1]. `progress` is given the number of
    frames each time some are done. Raises InputError for clips of different sizes, or
    when the weights of a metric are not installed.
    """
    restored, reference = fidelity.same_frames(restored, reference)
    lpips, dists = _metrics()
    count, height, width = restored.shape[:3]
    size = min(count, max(1, _PIXELS_AT_ONCE // (height * width)))
    sums = dict.fromkeys(COLUMNS, 0.0)
    for start in range(0, count, size):
        a, b = restored[start : start + size], reference[start : start + size]
        sums["psnr"] += len(a) * fidelity.psnr(a, b)
        sums["ssim"] += len(a) * fidelity.ssim(a, b)
        pair = _to_network(a, size), _to_network(b, size)
        sums["lpips"] += float(jnp.sum(lpips(*pair)[: len(a)]))
        sums["dists"] += float(jnp.sum(dists(*pair)[: len(a)]))
        if progress:
            progress(len(a))
    return {name: total / count for name, total in sums.items()}


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The scores of several systems as text, one line a system; a star marks the best.

    `scores` is what `score_clip` gives, by the system's name.
    """
    width = max(len(name) for name in scores)
    lines = [" " * width + "".join(f"{name.upper():>12}" for name in COLUMNS)]
    lines.append(" " * width + "".join(f"{what:>12}" for what, _ in COLUMNS.values()))
    for system, row in scores.items():
        cells = (_cell(row[name], name, scores) for name in COLUMNS)
        lines.append(f"{system:<{width}}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cell(value: float, name: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    what, decimals = COLUMNS[name]
    best = (max if "↑" in what else min)(row[name] for row in scores.values())
    return f"{value:.{decimals}f}" + ("*" if math.isclose(value, best) else " ")


@functools.cache
def _metrics() -> tuple[perceptual.Lpips, perceptual.Dists]:
    return perceptual.load_lpips("alex"), perceptual.load_dists()


def _to_network(frames: np.ndarray, size: int) -> jnp.ndarray:
    """float32 in [−1, 1], the last frame repeated up to `size`: one shape, one compilation."""
    frames = np.concatenate([frames, np.repeat(frames[-1:], size - len(frames), axis=0)])
    return to_float(jnp.asarray(frames))
