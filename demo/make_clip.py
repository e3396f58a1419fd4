"""Makes the clip that ships for the demo from held-out footage; it has been run already.

    python demo/make_clip.py --held-out data/heldout --output realisvsr_jax/assets/demo

A window of Kivy's cityCC0.mpg (CC0) is the ground truth, gt.mkv, without loss. lq.mp4 is the
same, degraded by the paper's recipe at ×4 with seed 7, without further loss, with a tone for
sound, since the footage has none. plan.json says what was done to it.
"""

import argparse
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from realisvsr_jax.data.degradation import MARGIN, apply_plan, sample_plan
from realisvsr_jax.errors import InputError, report
from realisvsr_jax.video import read_clip, write_video

START, FRAMES = 30, 17
TOP, LEFT, HEIGHT, WIDTH = 120, 100, 256, 384
SCALE, SEED = 4, 7  # of seeds 0–20 the median by bicubic's PSNR, which spans 13.7–18.6 dB
RATE, TONE, LOUDNESS = 48_000, 220.0, 0.2


def main() -> None:
    """Reads the command line and writes the three files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--held-out", type=Path, required=True, help="demo/fetch_footage.py's")
    parser.add_argument("--output", type=Path, required=True, help="folder to fill")
    flags = parser.parse_args()
    if not flags.output.parent.is_dir():
        raise InputError(f"{flags.output.parent}: no such folder; create it first")
    flags.output.mkdir(exist_ok=True)
    frames = read_clip(flags.held_out / "city.mpg", START - MARGIN, FRAMES + MARGIN).frames
    frames = frames[:, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    plan = sample_plan(np.random.default_rng(SEED), *frames.shape[:3], scale=SCALE, preset="paper")
    low = apply_plan(plan, frames)[MARGIN:]
    (flags.output / "plan.json").write_text(plan.to_json() + "\n")
    write_video(flags.output / "gt.mkv", frames[MARGIN:], lossless=True, overwrite=True)
    write_video(flags.output / "silent.mp4", low, lossless=True, overwrite=True)
    add_tone(flags.output / "silent.mp4", flags.output / "lq.mp4")
    os.remove(flags.output / "silent.mp4")


def add_tone(silent: Path, output: Path) -> None:
    """Copies the pictures of `silent` and puts a tone of the same length beside them."""
    seconds = Fraction(FRAMES, 25)
    times = np.arange(int(seconds * RATE)) / RATE
    fade = np.minimum(1, 20 * np.minimum(times, times[::-1]))
    wave = (LOUDNESS * fade * np.sin(2 * np.pi * TONE * times)).astype(np.float32)
    with av.open(str(silent)) as source, av.open(str(output), "w") as target:
        pictures = source.streams.video[0]
        video = target.add_stream_from_template(pictures)
        sound = target.add_stream("aac", rate=RATE, layout="mono")
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        target.mux(sound.encode(frame))
        target.mux(sound.encode(None))


if __name__ == "__main__":
    sys.exit(report(main))
