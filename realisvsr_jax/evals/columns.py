"""The metrics by name: what each needs, what its column says, which way is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from realisvsr_jax.errors import InputError

REFERENCE, FRAMES, MOTION, BORDERS, PYIQA, DOVER = (
    "reference",
    "frames",
    "motion",
    "borders",
    "pyiqa",
    "dover",
)


@dataclass(frozen=True)
class Metric:
    """A column. `detail` states colour space, network, variant or flow; `better` is ↑, ↓ or "".

    `needs` is a reference, frames alone, two frames in a row, borders of windows, or a program in
    an environment of its own. `smallest` is the least height and width.
    """

    label: str
    detail: str
    better: str
    decimals: int
    needs: str
    smallest: int = 1


METRICS: dict[str, Metric] = {
    "psnr_rgb": Metric("PSNR", "RGB, dB", "↑", 2, REFERENCE),
    "psnr_y": Metric("PSNR", "Y, dB", "↑", 2, REFERENCE),
    "ssim_rgb": Metric("SSIM", "RGB", "↑", 4, REFERENCE, 11),
    "ssim_y": Metric("SSIM", "Y", "↑", 4, REFERENCE, 11),
    "lpips_alex": Metric("LPIPS", "AlexNet", "↓", 4, REFERENCE, 31),
    "lpips_vgg": Metric("LPIPS", "VGG16", "↓", 4, REFERENCE, 16),
    "dists": Metric("DISTS", "VGG16", "↓", 4, REFERENCE, 16),
    "niqe": Metric("NIQE", "MATLAB's Y", "↓", 2, FRAMES, 96),
    "musiq": Metric("MUSIQ", "pyiqa musiq, 0–100", "↑", 2, PYIQA),
    "clipiqa": Metric("CLIP-IQA", "pyiqa clipiqa, 0–1", "↑", 4, PYIQA),
    "dover": Metric("DOVER", "overall, ×100", "↑", 2, DOVER),
    "dover_technical": Metric("DOVER", "technical, ×100", "↑", 2, DOVER),
    "dover_aesthetic": Metric("DOVER", "aesthetic, ×100", "↑", 2, DOVER),
    "ewarp": Metric("E_warp", "DIS flow, ×10⁻³", "↓", 2, MOTION, 32),
    "flicker": Metric("Flicker", "borders : elsewhere", "", 3, BORDERS),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "paper": (
        *("psnr_rgb", "ssim_y", "lpips_alex", "dists", "dover", "musiq", "niqe", "clipiqa"),
        "ewarp",
    ),
    "fast": ("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y"),
    "all": tuple(METRICS),
}
DEFAULT = (
    *("psnr_rgb", "psnr_y", "ssim_rgb", "ssim_y", "lpips_alex", "dists", "dover", "musiq", "niqe"),
    *("clipiqa", "ewarp"),
)


def default(reference: object) -> tuple[str, ...]:
    """What is scored where nothing is named: without a reference, what needs none."""
    return tuple(name for name in DEFAULT if reference or METRICS[name].needs != REFERENCE)


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Names of metrics and groups as metrics, each once; raises InputError that lists them."""
    found: dict[str, None] = {}
    for name in names:
        if name not in METRICS and name not in GROUPS:
            raise InputError(
                f"unknown metric {name!r}; known: {', '.join(METRICS)}; groups: {', '.join(GROUPS)}"
            )
        found.update(dict.fromkeys(GROUPS.get(name, (name,))))
    if not found:
        raise InputError(f"no metric is named; known: {', '.join(METRICS)}")
    return tuple(found)


def too_small(name: str, height: int, width: int) -> str:
    """Why frames of this size have no such score; "" where they have."""
    least = METRICS[name].smallest
    if min(height, width) < least:
        return f"needs frames of {least}×{least} or more"
    if name == "niqe" and (height // 96) * (width // 96) < 2:
        return "needs frames of 192×96 or more: two blocks of 96×96"
    return ""


def cell(name: str, value: float) -> str:
    """A score as the tables print it."""
    return "∞" if math.isinf(value) else f"{value:.{METRICS[name].decimals}f}"


def ranks(name: str, values: Sequence[float | None]) -> list[int]:
    """1 for the best, 2 for the second best, else 0, as printed: what looks equal is equal.

    Where only one system has a score, or none is better, there is nothing to mark.
    """
    better = METRICS[name].better
    rounded = [None if v is None else round(v, METRICS[name].decimals) for v in values]
    present = sorted({v for v in rounded if v is not None}, reverse=better == "↑")
    if not better or sum(v is not None for v in rounded) < 2:
        return [0] * len(rounded)
    return [present.index(v) + 1 if v in present[:2] else 0 for v in rounded]
