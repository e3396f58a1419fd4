"""Scores the shipped weights on the four held-out clips, and writes the tables of the docs.

    python demo/score_held_out.py --held-out data/heldout --output out/held_out

A window of each clip is degraded by the paper's recipe at ×4 with the seeds 0 to 4. Against its
ground truth: our result with the weights' own sampler, bicubic, the round trip of the ground
truth through the VAE (the ceiling of whatever works in its latents) and, with --regressor, a
network that answers in one step. Then two checks that it is the low-quality clip that decides.
Scores are kept in OUTPUT/scores.jsonl, so that starting again scores only what is missing or has
other weights. With --write they go into docs/tiny.md.
"""

import argparse
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from run_demo import enlarge
from tqdm import tqdm

import realisvsr_jax
from realisvsr_jax.data.degradation import MARGIN, degrade_clip
from realisvsr_jax.errors import InputError, report
from realisvsr_jax.evals import pages
from realisvsr_jax.evals.fidelity import psnr
from realisvsr_jax.evals.ledger import Ledger
from realisvsr_jax.evals.report import COLUMNS, score_clip
from realisvsr_jax.resize import to_float
from realisvsr_jax.sampling.restore import find
from realisvsr_jax.video import read_clip
from realisvsr_jax.weights.release import release_hash

SCALE, FRAMES, SEEDS = 4, 9, (0, 1, 2, 3, 4)
OURS, BICUBIC, REGRESSOR, CEILING = "ours", "bicubic", "regressor, one step", "VAE alone (ceiling)"


@dataclass(frozen=True)
class Window:
    """What is scored of a clip: FRAMES frames from `start` and a part of each."""

    file: str
    start: int
    top: int
    left: int
    height: int
    width: int

    def truth(self, folder: Path) -> np.ndarray:
        """uint8 with MARGIN frames before the window, which the degradation needs."""
        clip = read_clip(folder / self.file, self.start - MARGIN, FRAMES + MARGIN)
        rows = slice(self.top, self.top + self.height)
        return clip.frames[:, rows, self.left : self.left + self.width]


WINDOWS = {
    "city": Window("city.mpg", 30, 120, 164, 256, 256),
    "bikes": Window("bikes.mp4", 60, 8, 192, 256, 256),
    "carphone": Window("carphone.mp4", 30, 0, 0, 144, 176),
    "phone": Window("phone.mp4", 16, 412, 832, 256, 256),
}


def main() -> None:
    """Reads the command line, scores and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--held-out", type=Path, required=True, help="demo/fetch_footage.py's")
    parser.add_argument("--checkpoint", default=None, help="RUN or release; default: shipped")
    parser.add_argument("--regressor", default=None, help="release of configs/tiny_regressor.py")
    parser.add_argument("--output", type=Path, default=Path("out/held_out"), help="folder to fill")
    parser.add_argument("--write", action="store_true", help="the tables of docs/tiny.md")
    flags = parser.parse_args()
    missing = [w.file for w in WINDOWS.values() if not (flags.held_out / w.file).is_file()]
    if missing:
        raise InputError(f"{flags.held_out} lacks {missing[0]}; run demo/fetch_footage.py")
    flags.output.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(flags.output / "scores.jsonl")
    scores = all_scores(flags.held_out, flags.checkpoint, flags.regressor, ledger)
    controls = all_controls(flags.held_out, flags.checkpoint, ledger)
    full = long_table(scores)
    sys.stdout.write(f"{full}\n{control_table(controls)}")
    if flags.write:
        pages.replace_between(Path("docs/tiny.md"), "held-out", full)
        pages.replace_between(Path("docs/tiny.md"), "controls", control_table(controls))


def all_scores(
    folder: Path, checkpoint: str | None, regressor: str | None, ledger: Ledger
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Scores of every seed by (clip, system)."""
    weights = {OURS: checkpoint, BICUBIC: "", REGRESSOR: regressor, CEILING: checkpoint}
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for clip, seed in tqdm([(c, s) for c in WINDOWS for s in SEEDS], desc="scoring", unit="clip"):
        low, truth = pair(folder, clip, seed)
        for system, folder_or_none in weights.items():
            if (system == REGRESSOR and regressor is None) or (
                system == CEILING and seed != SEEDS[0]
            ):
                continue  # not there; the same for every seed
            name = "" if system == BICUBIC else identity(folder_or_none)
            of = (system, name, clip, seed)
            make = functools.partial(score, system, folder_or_none, low, truth, seed)
            found.setdefault((clip, system), []).append(ledger.get(of, make))
    return found


def score(
    system: str, weights: str | None, low: np.ndarray, truth: np.ndarray, seed: int
) -> dict[str, float]:
    """What `system` makes of `low`, against `truth`."""
    if system == BICUBIC:
        restored = enlarge(low, *truth.shape[1:3])
    elif system == CEILING:
        restored = round_trip(weights, truth)
    else:
        restored = model(weights).restore(low, SCALE, seed=seed)
    return score_clip(restored, truth)


def all_controls(
    folder: Path, checkpoint: str | None, ledger: Ledger
) -> dict[str, dict[str, float]]:
    """By clip, PSNR without colour correction from its own input, and from others'.

    'other': the next clip's input, of the same size, in the place of its own. 'none': a
    condition scale of 0; 'remains' is the largest difference, in 8-bit steps, between the
    results of both inputs then.
    """
    found = {}
    names = list(WINDOWS)
    for name, neighbour in zip(names, names[1:] + names[:1]):
        low, truth = pair(folder, name, SEEDS[0])
        other = pair(folder, neighbour, SEEDS[0])[0]

        def make(low=low, other=other, truth=truth) -> dict[str, float]:
            height, width = (min(a.shape[i] for a in (low, other)) for i in (1, 2))
            own, foreign = (clip[:, :height, :width] for clip in (low, other))
            wanted = truth[:, : SCALE * height, : SCALE * width]
            restore = functools.partial(model(checkpoint).restore, scale=SCALE, color="none")
            nothing = [restore(clip, condition_scale=0) for clip in (own, foreign)]
            return {
                "own": psnr(restore(own), wanted),
                "other": psnr(restore(foreign), wanted),
                "none": psnr(nothing[0], wanted),
                "remains": float(np.abs(nothing[0].astype(int) - nothing[1]).max()),
            }

        found[name] = ledger.get(("controls", identity(checkpoint), name, SEEDS[0]), make)
    return found


def pair(folder: Path, clip: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The low-quality clip and its ground truth, uint8."""
    frames = WINDOWS[clip].truth(folder)
    rng = np.random.default_rng(seed)
    low = degrade_clip(frames, rng, SCALE, "paper", lead=MARGIN, margin=MARGIN)
    return low, frames[MARGIN:]


@functools.cache
def model(checkpoint: str | None) -> Any:
    """The restorer of a release or RUN."""
    return realisvsr_jax.load(checkpoint)


@functools.cache
def identity(checkpoint: str | None) -> str:
    """What tells one set of weights from another."""
    return release_hash(find(checkpoint))[:16]


def round_trip(checkpoint: str | None, truth: np.ndarray) -> np.ndarray:
    """The ground truth through encoder and decoder, as a stream."""
    vae = model(checkpoint).vae
    video = vae.decode(vae.encode(to_float(jnp.asarray(truth))[None]))[0]
    return np.asarray(jnp.rint((video + 1.0) * 127.5)).astype(np.uint8)


def long_table(scores: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """Markdown: a row a clip and system, mean ± deviation over seeds, the best in bold."""
    heads = ["clip", "", *(f"{name.upper()} {what}" for name, (what, _) in COLUMNS.items())]
    lines = []
    for clip in WINDOWS:
        rows = {s: r for (c, s), r in scores.items() if c == clip}
        rivals = {system: row for system, row in rows.items() if system != CEILING}
        for system, seeds in rows.items():
            cells = [_cell(seeds, name, rivals, system) for name in COLUMNS]
            lines.append([clip if system == OURS else "", system, *cells])
    return pages.table(heads, lines)


def _cell(
    seeds: list[dict[str, float]],
    name: str,
    rivals: dict[str, list[dict[str, float]]],
    system: str,
) -> str:
    what, decimals = COLUMNS[name]
    values = [row[name] for row in seeds]
    text = f"{np.mean(values):.{decimals}f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{decimals}f}"
    means = {other: np.mean([row[name] for row in rows]) for other, rows in rivals.items()}
    best = (max if "↑" in what else min)(means.values())
    return f"**{text}**" if means.get(system) == best else text


def control_table(controls: dict[str, dict[str, float]]) -> str:
    """Markdown: a row a clip."""
    heads = ["clip", "its own input", "another clip's", "condition scale 0", "what remains of it"]
    lines = []
    for clip, row in controls.items():
        psnrs = [f"{row[name]:.2f} dB" for name in ("own", "other", "none")]
        lines.append([clip, *psnrs, f"{row['remains']:.0f} of 255"])
    return pages.table(heads, lines)


if __name__ == "__main__":
    sys.exit(report(main))
