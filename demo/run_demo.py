"""Restores the clip that ships with the project and says where it stands against bicubic.

    python demo/run_demo.py --output out/demo

The clip is real footage that the weights were never trained on, degraded by the paper's
recipe, with its ground truth beside it. Leaves in OUTPUT: restored.mp4 (with the clip's
sound), comparison.png (bicubic / restored / ground truth, with zoomed crops) and
metrics.json; the scores, taken before encoding, go to stdout as a table. Needs the `demo`
extra (Pillow) and the weights of LPIPS and DISTS; `make demo` sets up both.
"""

import argparse
import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import realisvsr_jax
from realisvsr_jax.errors import InputError, report
from realisvsr_jax.evals.picture import comparison_picture
from realisvsr_jax.evals.report import score_clip, table
from realisvsr_jax.resize import bicubic_bytes
from realisvsr_jax.video import read_video, write_video


def main() -> None:
    """Reads the command line, restores, scores and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder to fill")
    parser.add_argument("--checkpoint", default=None, help="RUN or release; default: shipped")
    parser.add_argument("--steps", type=int, default=None, help="default: what the weights say")
    flags = parser.parse_args()
    with resources.as_file(resources.files(realisvsr_jax) / "assets" / "demo") as clips:
        low, truth = read_video(clips / "lq.mp4"), read_video(clips / "gt.mkv")
        model = realisvsr_jax.load(flags.checkpoint)
        with tqdm(desc="restoring", unit="part") as bar:
            restored = model.restore(
                low.frames, scale=4, steps=flags.steps, progress=lambda *done: advance(bar, *done)
            )
        flags.output.mkdir(parents=True, exist_ok=True)
        write_video(
            flags.output / "restored.mp4", restored, source=clips / "lq.mp4", overwrite=True
        )
    scores = compare(low.frames, restored, truth.frames, flags.output)
    sys.stdout.write(f"\n{table(scores)}\n{', '.join(written(flags.output))} in {flags.output}\n")


def advance(bar: Any, done: int, total: int) -> None:
    """Moves a tqdm bar to `done` of `total`, which only the restorer knows."""
    bar.total = total
    bar.update(done - bar.n)


def compare(
    low: np.ndarray, restored: np.ndarray, truth: np.ndarray, output: Path
) -> dict[str, dict[str, float]]:
    """Scores `restored` and bicubic against `truth`; writes metrics.json and comparison.png.

    All uint8 `T H W 3`; `low` is smaller by the scale. The picture shows the middle frame.
    Raises InputError when the restored clip and the ground truth differ in size.
    """
    if restored.shape != truth.shape:
        raise InputError(f"restored {restored.shape}, but the ground truth is {truth.shape}")
    enlarged = enlarge(low, *truth.shape[1:3])
    with tqdm(desc="scoring", unit="frame", total=2 * len(truth)) as bar:
        scores = {
            "ours": score_clip(restored, truth, progress=bar.update),
            "bicubic": score_clip(enlarged, truth, progress=bar.update),
        }
    (output / "metrics.json").write_text(json.dumps(scores, indent=2) + "\n")
    middle = len(truth) // 2
    frames = {"input, bicubic": enlarged, "restored": restored, "ground truth": truth}
    notes = {"input, bicubic": note(scores["bicubic"]), "restored": note(scores["ours"])}
    picture = comparison_picture({name: f[middle] for name, f in frames.items()}, notes=notes)
    cv2.imwrite(str(output / "comparison.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return scores


def enlarge(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 `t h w 3` by the project's own bicubic, the baseline of the table."""
    return np.asarray(bicubic_bytes(jnp.asarray(frames), height, width))


def note(scores: dict[str, float]) -> str:
    """The picture's second line: the whole clip's scores, not those of the frame shown."""
    psnr, ssim, lpips, dists = (scores[name] for name in ("psnr", "ssim", "lpips", "dists"))
    return f"PSNR {psnr:.2f} · SSIM {ssim:.3f} · LPIPS {lpips:.3f} · DISTS {dists:.3f}"


def written(output: Path) -> list[str]:
    """The demo's files, by name."""
    return [f for f in ("restored.mp4", "comparison.png", "metrics.json") if (output / f).exists()]


if __name__ == "__main__":
    sys.exit(report(main))
