"""Degrades a clip by the two-order recipe: `python -m realisvsr_jax.degrade --help`."""

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from realisvsr_jax import video
from realisvsr_jax.data.degradation import MARGIN, PRESETS, apply_plan, preset_named, sample_plan
from realisvsr_jax.data.degradation.apply import Frames, mirror_lead
from realisvsr_jax.data.degradation.picture import contact_sheet
from realisvsr_jax.errors import InputError, program

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("input", None, "A video, or a folder of frames.", **_here)
flags.DEFINE_string(
    "output", None, "The degraded video (.mp4 or .mkv, lossless), or a folder.", **_here
)
flags.DEFINE_string("preset", "paper", f"The recipe: {', '.join(PRESETS)}.", **_here)
flags.DEFINE_integer("seed", 0, "Of all that is drawn; it decides the clip.", 0, **_here)
flags.DEFINE_integer("scale", 4, "How many times smaller the result is.", 1, **_here)
flags.DEFINE_integer("start", 0, "The first frame.", 0, **_here)
flags.DEFINE_integer("frames", None, "How many frames; to the end if absent.", 1, **_here)
flags.DEFINE_string("plan", None, "A JSON file for what was done to the clip.", **_here)
flags.DEFINE_string("picture", None, "A PNG of the last frame behind each operation.", **_here)
flags.DEFINE_bool("overwrite", False, "Replace an output that exists.", **_here)


def main() -> None:
    """Degrades what the flags say."""
    if FLAGS.input is None or FLAGS.output is None:
        raise InputError("give --input CLIP and --output FILE")
    preset_named(FLAGS.preset)
    video.check_output(FLAGS.output, inputs=[FLAGS.input], overwrite=FLAGS.overwrite)
    picture = Path(FLAGS.picture) if FLAGS.picture else None
    if picture and picture.suffix.lower() != ".png":
        raise InputError(f"the picture is a PNG: name it .png, not {picture.name!r}")
    lead = min(FLAGS.start, MARGIN)
    count = None if FLAGS.frames is None else FLAGS.frames + lead
    clip = video.read_video(FLAGS.input, FLAGS.start - lead, count)
    if len(clip.frames) <= lead:
        raise InputError(f"{FLAGS.input} ends before frame {FLAGS.start}")
    frames = mirror_lead(_cropped(clip.frames, FLAGS.scale), MARGIN - lead)
    rng = np.random.default_rng(FLAGS.seed)
    plan = sample_plan(rng, *frames.shape[:3], scale=FLAGS.scale, preset=FLAGS.preset)
    degraded = apply_plan(plan, frames)[MARGIN:]
    video.write_video(
        FLAGS.output, degraded, clip.info.rate, lossless=True, overwrite=FLAGS.overwrite
    )
    num_frames, height, width, _ = degraded.shape
    log.info("%s: %d frames of %dx%d", FLAGS.output, num_frames, width, height)
    if FLAGS.plan:
        _write(Path(FLAGS.plan), (plan.to_json() + "\n").encode())
    if picture:
        sheet = cv2.cvtColor(contact_sheet(plan, frames), cv2.COLOR_RGB2BGR)
        _write(picture, cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def _cropped(frames: Frames, scale: int) -> Frames:
    """Without the last rows and columns that make no whole pixel of the result."""
    height, width = (length - length % scale for length in frames.shape[1:3])
    if not height or not width:
        raise InputError(f"frames of {frames.shape[2]}x{frames.shape[1]} are below scale {scale}")
    if (height, width) != frames.shape[1:3]:
        log.info("cropped to %dx%d, which divides by %d", width, height, scale)
    return frames[:, :height, :width]


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def run() -> None:
    """The console script `realisvsr-degrade`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
