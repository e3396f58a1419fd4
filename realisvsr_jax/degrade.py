"""Degrades a clip: `python -m realisvsr_jax.degrade --input clip.mp4 --output low.mkv`.

By the two-order recipe (docs/degradation.md). Input and output are video files or folders of
frames; the output is lossless RGB without sound. What `--plan` keeps, `--from_plan` does again.

A folder of clips (`--input GT --output LQ`) becomes a test set: each clip under its name, and
manifest.json with plans, versions and checksums; the same command goes on where it was stopped.
`--verify LQ` says whether a set is still what its manifest says.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags
from jaxtyping import UInt8

from realisvsr_jax import video
from realisvsr_jax.data.degradation import (
    MARGIN,
    PRESETS,
    DegradationPlan,
    apply_plan,
    preset_named,
    sample_plan,
)
from realisvsr_jax.data.degradation.apply import Frames, mirror_lead
from realisvsr_jax.data.degradation.picture import contact_sheet
from realisvsr_jax.data.degraded_set import Recipe, degrade_set
from realisvsr_jax.data.set_folder import check_beside
from realisvsr_jax.data.set_manifest import MANIFEST, verify
from realisvsr_jax.data.testset import LAYOUTS, find_clips, layout_named
from realisvsr_jax.errors import InputError, program
from realisvsr_jax.files import replacing
from realisvsr_jax.progress import over_clips
from realisvsr_jax.video.encoding import FORMATS
from realisvsr_jax.video.folders import is_picture

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("input", None, "A video, a folder of frames, or a folder of clips.", **_here)
flags.DEFINE_string(
    "output", None, "The degraded video (.mp4 or .mkv, lossless), or a folder.", **_here
)
flags.DEFINE_string("layout", None, f"A test set of a name: {', '.join(LAYOUTS)}.", **_here)
flags.DEFINE_integer(
    "workers", None, "Processes for a folder of clips; as there are cores if absent.", 1, **_here
)
flags.DEFINE_string("verify", None, "A set to compare with its manifest; nothing is made.", **_here)
flags.DEFINE_string("manifest", None, "Another set's manifest, to --verify against.", **_here)
flags.DEFINE_string("preset", "paper", f"The recipe: {', '.join(PRESETS)}.", **_here)
flags.DEFINE_integer("seed", 0, "Of all that is drawn; it decides the clip.", 0, **_here)
flags.DEFINE_integer("scale", 4, "How many times smaller the result is.", 1, **_here)
flags.DEFINE_integer("start", 0, "The first frame.", 0, **_here)
flags.DEFINE_integer("frames", None, "How many frames; to the end if absent.", 1, **_here)
flags.DEFINE_string("plan", None, "A JSON file for what was done to the clip.", **_here)
flags.DEFINE_string("from_plan", None, "Do what such a file says, draw nothing.", **_here)
flags.DEFINE_string("picture", None, "A PNG of the last frame behind each operation.", **_here)
flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.", **_here)


def main() -> None:
    """Degrades what the flags say; all is checked before anything is written."""
    if FLAGS.verify:
        _verify()
        return
    if FLAGS.manifest:
        raise InputError("--manifest goes with --verify LQ_DIR")
    if FLAGS.input is None or FLAGS.output is None:
        raise InputError(
            "give --input CLIP and --output FILE, or folders of clips for both, or --verify FOLDER"
        )
    preset_named(FLAGS.preset)
    if FLAGS.layout or _holds_clips(Path(FLAGS.input)):
        _degrade_set()
        return
    if FLAGS.workers:
        raise InputError(f"--workers is for a folder of clips; {FLAGS.input} is one clip")
    _degrade_clip()


def _holds_clips(path: Path) -> bool:
    """Whether the input is a test set: a folder without pictures of its own, which is one clip."""
    try:
        return path.is_dir() and not any(map(is_picture, path.iterdir()))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _verify() -> None:
    for name in ("input", "output", "layout", "workers"):
        if FLAGS[name].present:
            raise InputError(f"--verify only reads a set; leave --{name} out")
    folder = Path(FLAGS.verify)
    if not folder.is_dir():
        raise InputError(f"--verify {folder} is no folder; name one with a manifest.json in it")
    count = verify(folder, Path(FLAGS.manifest) if FLAGS.manifest else None)
    log.info("%s: %d clips, all as the manifest says", folder, count)


def _degrade_set() -> None:
    """A folder of clips."""
    for name in ("plan", "from_plan", "picture", "start", "frames"):
        if FLAGS[name].present:
            raise InputError(f"--{name} is for one clip, {FLAGS.input} is a folder of them")
    if FLAGS.layout and not layout_named(FLAGS.layout).truth:
        raise InputError(
            f"{FLAGS.layout} is low-quality footage without a truth: there is nothing to degrade; "
            "restore it as it is"
        )
    clips = find_clips(FLAGS.input, FLAGS.layout)
    recipe = Recipe(FLAGS.preset, FLAGS.seed, FLAGS.scale)
    target = Path(FLAGS.output)
    if target.suffix.lower() in FORMATS:
        raise InputError(f"--output {target}: {FLAGS.input} is a folder of clips; name a folder")
    check_beside(target, Path(FLAGS.input))
    with over_clips(len(clips)) as progress:
        degrade_set(
            *(clips, target, recipe),
            workers=FLAGS.workers,
            overwrite=FLAGS.overwrite,
            progress=progress,
        )
    log.info("%s: %d clips, %s", target, len(clips), target / MANIFEST)


def _degrade_clip() -> None:
    if not Path(FLAGS.input).exists():
        raise InputError(f"--input {FLAGS.input} does not exist")
    kept = _read_plan(FLAGS.from_plan) if FLAGS.from_plan else None
    video.check_output(FLAGS.output, inputs=[FLAGS.input], overwrite=FLAGS.overwrite)
    _check_beside()
    frames, rate = _read(FLAGS.scale if kept is None else kept.scale)
    num_frames, height, width, _ = frames.shape
    if kept is None:
        rng = np.random.default_rng(FLAGS.seed)
        plan = sample_plan(rng, num_frames, height, width, FLAGS.scale, FLAGS.preset)
    else:
        plan = kept
        if (plan.num_frames, plan.height, plan.width) != (num_frames, height, width):
            raise InputError(
                f"{FLAGS.from_plan} is for {plan.num_frames - MARGIN} frames of {plan.width}×"
                f"{plan.height}, these are {num_frames - MARGIN} of {width}×{height}; name the "
                "clip, --start and --frames that it was made with"
            )
    degraded = apply_plan(plan, frames)[MARGIN:]
    beside = {}
    if FLAGS.plan:
        beside[Path(FLAGS.plan)] = (plan.to_json() + "\n").encode()
    if FLAGS.picture:
        beside[Path(FLAGS.picture)] = _png(contact_sheet(plan, frames))
    _write(degraded, rate, beside)
    num_frames, height, width, _ = degraded.shape
    log.info("%s: %d frames of %d×%d", FLAGS.output, num_frames, width, height)


def _read_plan(path: str) -> DegradationPlan:
    for name in ("preset", "seed", "scale"):
        if FLAGS[name].present:
            raise InputError(f"--from_plan decides the {name}; leave --{name} out")
    try:
        plan = DegradationPlan.from_json(Path(path).read_text())
    except OSError as error:
        raise InputError(f"--from_plan: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--from_plan: {path}: {error}") from error
    if not isinstance(plan.scale, int) or plan.scale < 1:
        raise InputError(f"--from_plan: {path}: its scale is {plan.scale!r}")
    return plan


def _check_beside() -> None:
    """Raises InputError where --plan or --picture cannot or must not be written."""
    inputs = [path for path in (FLAGS.input, FLAGS.from_plan) if path]
    taken = {os.path.realpath(FLAGS.output): "output"}
    for name in ("plan", "picture"):
        path = FLAGS[name].value
        if not path:
            continue
        target = Path(os.path.realpath(path))
        if name == "picture" and target.suffix.lower() != ".png":
            raise InputError(f"the picture is a PNG: name it .png, not {Path(path).name!r}")
        for other in (str(target), *map(str, target.parents)):
            if other in taken:
                raise InputError(f"--{name} {path} collides with --{taken[other]}; name another")
        taken[str(target)] = name
        if not target.parent.is_dir():
            raise InputError(
                f"--{name} {path}: the folder {Path(path).parent} does not exist; create it first"
            )
        if any(target == Path(os.path.realpath(source)) for source in inputs):
            raise InputError(f"--{name} {path} is an input; name another file")
        if target.exists() and not (FLAGS.overwrite and target.is_file()):
            hint = ", or add --overwrite" if target.is_file() else ""
            raise InputError(f"--{name} {path} exists; name another file{hint}")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise InputError(f"--{name} {path} may not be written; check its folder's permissions")


def _read(scale: int) -> tuple[Frames, Any]:
    """The frames asked for behind MARGIN more, in a size that divides by `scale`; their rate."""
    start, lead = FLAGS.start, min(FLAGS.start, MARGIN)
    if start:
        video.read_video(FLAGS.input, start, 1)  # its error names this start, not the margin's
    count = None if FLAGS.frames is None else FLAGS.frames + lead
    clip = video.read_video(FLAGS.input, start - lead, count)
    if count is not None and len(clip.frames) < count:
        have = len(clip.frames) - lead
        log.info("%s has only %d of the %d frames asked for", FLAGS.input, have, FLAGS.frames)
    return mirror_lead(_cropped(clip.frames, scale), MARGIN - lead), clip.info.rate


def _cropped(frames: Frames, scale: int) -> UInt8[np.ndarray, "T h w 3"]:
    """Without the last rows and columns that make no whole pixel of the result."""
    height, width = (length - length % scale for length in frames.shape[1:3])
    if not height or not width:
        raise InputError(f"frames of {frames.shape[2]}×{frames.shape[1]} are below scale {scale}")
    if (height, width) != frames.shape[1:3]:
        log.info("cropped to %d×%d, which divides by %d", width, height, scale)
    return frames[:, :height, :width]


def _png(rgb: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _write(degraded: np.ndarray, rate: Any, beside: Mapping[Path, bytes]) -> None:
    """All files or none: those beside the video get their names once it is whole."""
    with contextlib.ExitStack() as stack:
        for path, content in beside.items():
            try:
                stack.enter_context(replacing(path)).write_bytes(content)
            except OSError as error:
                raise InputError(f"cannot write {path}: {error.strerror}") from error
        video.write_video(FLAGS.output, degraded, rate, lossless=True, overwrite=FLAGS.overwrite)


def run() -> None:
    """The console script `realisvsr-degrade`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
