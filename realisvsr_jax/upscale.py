"""Restores a video: `python -m realisvsr_jax.upscale --input clip.mp4 --output restored.mp4`.

Input and output are video files or folders of frames. Frame count, timestamps, sound and
subtitles stay; the sides are `--scale` times the input's. Without `--checkpoint` the weights that
ship with the package serve.
"""

import logging
import time
from fractions import Fraction
from typing import Any

from absl import flags

from realisvsr_jax.errors import InputError, program
from realisvsr_jax.video import Clip, check_output, probe, read_video, write_video

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("input", None, "A video, or a folder of frames.", **_here)
flags.DEFINE_string(
    "output", None, "The restored video (.mp4, .mov or .mkv), or a folder for frames.", **_here
)
flags.DEFINE_string(
    "checkpoint", None, "A RUN, a release, a PyTorch checkpoint or a hub id.", **_here
)
flags.DEFINE_float("scale", 4.0, "Enlargement; 1 restores alone.", 1.0, **_here)
flags.DEFINE_integer("steps", None, "Of the sampler; what the weights say if absent.", 1, **_here)
flags.DEFINE_integer("seed", 0, "Of the noise.", 0, 2**32 - 1, **_here)
flags.DEFINE_enum("color", "wavelet", ["wavelet", "adain", "none"], "Colour correction.", **_here)
flags.DEFINE_string("prompt", None, "What the clip shows; what the weights say if absent.", **_here)
flags.DEFINE_string(
    "text_encoder", None, "Encodes what the cache lacks: release, checkpoint or hub id.", **_here
)
flags.DEFINE_string("negative_prompt", "", "What guidance above 1 leads away from.", **_here)
flags.DEFINE_float(
    "guidance",
    None,
    "1: none; above: two forwards a step. What the weights say if absent.",
    **_here,
)
flags.DEFINE_float("condition_scale", 1.0, "Of the control branch; 0 leaves it out.", **_here)
flags.DEFINE_integer("start", 0, "The first frame.", 0, **_here)
flags.DEFINE_integer("frames", None, "How many frames; to the end if absent.", 1, **_here)
flags.DEFINE_bool("overwrite", False, "Replace an output that exists.", **_here)


def main() -> None:
    """Restores what the flags say; whatever is wrong shows before the weights are read."""
    if FLAGS.input is None or FLAGS.output is None:
        raise InputError("give --input CLIP and --output FILE")
    began = time.monotonic()
    check_output(FLAGS.output, inputs=[FLAGS.input], overwrite=FLAGS.overwrite)
    info = probe(FLAGS.input)
    from realisvsr_jax.sampling import frames, restore

    restore.check_options(
        *(FLAGS.scale, FLAGS.steps, FLAGS.seed, FLAGS.color, FLAGS.guidance, FLAGS.condition_scale)
    )
    frames.check_size(info.height, info.width, FLAGS.scale)
    folder = restore.find(FLAGS.checkpoint)
    clip, end = read_part(FLAGS.input, FLAGS.start, FLAGS.frames)
    restored = restore_clip(restore.load(folder, FLAGS.text_encoder), clip)
    write_video(
        FLAGS.output,
        restored,
        times=clip.times,
        info=clip.info,
        source=FLAGS.input,
        start=clip.times[0] if clip.start else Fraction(0),
        end=end,
        overwrite=FLAGS.overwrite,
    )
    count, height, width, _ = restored.shape
    size, seconds = f"{width}×{height}", time.monotonic() - began
    log.info("%s: %d frames of %s in %.1f s", FLAGS.output, count, size, seconds)


def read_part(path: str, start: int, frames: int | None) -> tuple[Clip, Fraction | None]:
    """The frames asked for, and when the one after them is shown, None at the clip's end."""
    if frames is None:
        return read_video(path, start), None
    clip = read_video(path, start, frames + 1)
    count = len(clip.frames)
    if count < frames:
        log.info("%s has only %d of the %d frames asked for from %d on", path, count, frames, start)
    if count <= frames:
        return clip, None
    return Clip(clip.frames[:frames], clip.times[:frames], clip.info, start), clip.times[frames]


def restore_clip(model: Any, clip: Clip) -> Any:
    """uint8 frames through the restorer, as the flags say, with a progress bar on stderr."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with logging_redirect_tqdm(), tqdm(desc="restoring", unit="part") as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return model.restore(
            clip.frames,
            FLAGS.scale,
            steps=FLAGS.steps,
            seed=FLAGS.seed,
            color=FLAGS.color,
            guidance=FLAGS.guidance,
            prompt=FLAGS.prompt,
            negative_prompt=FLAGS.negative_prompt,
            condition_scale=FLAGS.condition_scale,
            progress=advance,
        )


def run() -> None:
    """The console script `realisvsr-upscale`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
