"""Restores a video: `python -m realisvsr_jax.upscale --input clip.mp4 --output restored.mp4`.

Input and output are video files, folders of frames, PNG pictures, or folders of videos. Frame
count, timestamps, sound, subtitles, chapters and metadata stay; the sides are `--scale` times the
input's. A job that was stopped goes on with `--resume`. Without `--checkpoint` the weights that
ship with the package serve (docs/restoring.md).
"""

import logging
import re
import sys
from importlib import metadata
from typing import Any

from absl import flags

from realisvsr_jax.errors import InputError, program

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string(
    "input", None, "A video, a picture, a folder of frames, or a folder of videos.", **_here
)
flags.DEFINE_string(
    "output",
    None,
    "The restored video (.mp4, .mov or .mkv), a .png, or a folder for frames or videos.",
    **_here,
)
flags.DEFINE_string(
    "checkpoint", None, "A RUN, a release, a PyTorch checkpoint or a hub id.", **_here
)
flags.DEFINE_float("scale", None, "Enlargement, 4 if absent; 1 restores alone.", 1.0, **_here)
flags.DEFINE_integer("height", None, "Of the result, in place of --scale.", 1, **_here)
flags.DEFINE_string("tile", None, "What the network sees at once, as 480x832 pixels.", **_here)
flags.DEFINE_integer("window", None, "How many frames it sees at once.", 1, **_here)
flags.DEFINE_integer("batch", 0, "Tiles in one call; 0: what memory allows.", 0, **_here)
flags.DEFINE_enum(
    "fuse", "steps", ["steps", "end"], "Tiles are blended at every step, or at the end.", **_here
)
flags.DEFINE_string(
    "memory",
    None,
    "Of a device for a program of the VAE, as 16GB; a part of it if absent.",
    **_here,
)
flags.DEFINE_string(
    "carry", "2GB", "Of the host for what the VAE hands from window to window.", **_here
)
flags.DEFINE_enum("scenes", "auto", ["auto", "off"], "Look for cuts, or take one scene.", **_here)
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
flags.DEFINE_enum(
    "vae_precision",
    None,
    ["highest", "high"],
    "Of the VAE's products: float32, or TF32 on NVIDIA's GPUs; what the weights say if absent.",
    **_here,
)
flags.DEFINE_string("codec", "libx264", "FFmpeg's encoder of the output.", **_here)
flags.DEFINE_integer("crf", 16, "Its quality; smaller is better.", 0, **_here)
flags.DEFINE_string("preset", None, "Its preset, as slow.", **_here)
flags.DEFINE_string("pix_fmt", None, "Its pixel format, as yuv420p10le.", **_here)
flags.DEFINE_bool("lossless", False, "Store RGB that reads back bit by bit.", **_here)
flags.DEFINE_integer("start", 0, "The first frame.", 0, **_here)
flags.DEFINE_integer("frames", None, "How many frames; to the end if absent.", 1, **_here)
flags.DEFINE_bool("dry_run", False, "Print the plan and stop.", **_here)
flags.DEFINE_bool(
    "explain_seams",
    False,
    "Score the tiles' borders in the first window against no tiles, and stop.",
    **_here,
)
flags.DEFINE_bool("resume", False, "Go on with a job that was stopped.", **_here)
flags.DEFINE_bool("overwrite", False, "Replace an output, or a job, that exists.", **_here)
flags.DEFINE_integer("num_processes", None, "Of a folder: how many share it.", 1, **_here)
flags.DEFINE_integer("process_id", None, "Of a folder: which of them this is.", 0, **_here)


def main() -> int:
    """Restores what the flags say; whatever is wrong shows before the weights are read."""
    if FLAGS.explain_seams and FLAGS.input is not None:
        return _explain_seams()
    missing = [
        f"--{name} {kind}"
        for name, kind in (("input", "CLIP"), ("output", "FILE"))
        if FLAGS[name].value is None
    ]
    if FLAGS.input is None or missing:
        raise InputError(f"give {' and '.join(missing)}")
    from realisvsr_jax.jobs import folder, single

    request, weights = _request()
    share = _share()
    try:
        with _Bar() as bar:
            several = folder.holds_videos(FLAGS.input)
            if not several and single.nothing_left(request):
                log.info(
                    "%s is there, and no job of it is unfinished: nothing to do; --overwrite "
                    "restores it anew",
                    FLAGS.output,
                )
            elif FLAGS.dry_run:
                (folder if several else single).check_place(request)
                _show_plans(folder.requests(request), weights)
            elif several:
                folder.restore_folder(request, weights, share=share, progress=bar, say=bar.say)
            elif share.index:
                log.info("one video: process 0 restores it, this one has nothing to do")
            else:
                report = single.restore_file(request, weights, progress=bar)
                bar.say(request.output, report)
                if report.damage:
                    reason = report.damage.partition(";")[0]
                    raise InputError(f"{reason}; these are restored in {request.output}")
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is done is kept, --resume goes on\n")
        return 130
    return 0


def _explain_seams() -> int:
    from realisvsr_jax.jobs import explain

    for line in explain.explain_seams(*_request()):
        sys.stdout.write(f"{line}\n")
    return 0


def _request() -> tuple[Any, Any]:
    """What is asked for, and whoever restores it."""
    from realisvsr_jax.jobs.journal import fingerprint
    from realisvsr_jax.jobs.released import Released
    from realisvsr_jax.jobs.single import Request
    from realisvsr_jax.sampling import restore
    from realisvsr_jax.video.encoding import Coding

    options = _options()
    found = restore.find(FLAGS.checkpoint)
    names = ("realisvsr-jax", "jax", "av", "scenedetect-headless")
    settings = {
        "options": {**vars(options), "height": FLAGS.height, "encoder": FLAGS.text_encoder},
        "VAE's precision": FLAGS.vae_precision,
        "weights": fingerprint(found),
        "version of": {name: metadata.version(name) for name in names},
    }
    coding = Coding(FLAGS.codec, FLAGS.crf, FLAGS.preset, FLAGS.pix_fmt, FLAGS.lossless)
    for name in ("codec", "crf", "pix_fmt") if FLAGS.lossless else ():
        if FLAGS[name].present:
            raise InputError(
                f"--lossless stores RGB bit by bit; leave out --{name.replace('_', '-')}"
            )
    request = Request(
        *(
            FLAGS.input,
            FLAGS.output or "",
            FLAGS.start,
            FLAGS.frames,
            FLAGS.scenes == "auto",
            coding,
        ),
        settings=settings,
        resume=FLAGS.resume,
        overwrite=FLAGS.overwrite,
    )
    return request, Released(found, FLAGS.text_encoder, options, FLAGS.height, FLAGS.vae_precision)


def _options() -> Any:
    from realisvsr_jax.sampling.options import Options

    if FLAGS.scale is not None and FLAGS.height is not None:
        raise InputError("--scale and --height both say how large the result is; give one of them")
    vae_memory, sampler_memory = _memory()
    return Options(
        scale=4.0 if FLAGS.scale is None else FLAGS.scale,
        steps=FLAGS.steps,
        seed=FLAGS.seed,
        color=FLAGS.color,
        guidance=FLAGS.guidance,
        prompt=FLAGS.prompt,
        negative_prompt=FLAGS.negative_prompt,
        condition_scale=FLAGS.condition_scale,
        tile=_tile(FLAGS.tile),
        window=FLAGS.window,
        batch=FLAGS.batch,
        fuse=FLAGS.fuse,
        vae_memory=vae_memory,
        sampler_memory=sampler_memory,
        carry=_bytes("carry", FLAGS.carry),
    )


def _memory() -> tuple[int, int | None]:
    """Bytes of a device for a program of the VAE and for the sampler, the same at each start.

    On a CPU, which many tiles at once make no faster, the sampler has no say.
    """
    from realisvsr_jax.jobs.plan import host_memory
    from realisvsr_jax.jobs.released import device_memory

    limit = device_memory()
    if FLAGS.memory is not None:
        asked = _bytes("memory", FLAGS.memory)
        return asked, None if limit is None else asked
    return (host_memory() // 3, None) if limit is None else (2 * limit // 5, 4 * limit // 5)


def _bytes(name: str, text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if found is None:
        raise InputError(f"--{name} is {text!r}; give bytes, as 16GB or 500MB")
    return int(float(found[1]) * 1000 ** ("", "k", "m", "g", "t").index(found[2]))


def _tile(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)[x×](\d+)", text.strip().lower())
    if found is None:
        raise InputError(f"--tile is {text!r}; give HEIGHTxWIDTH in pixels, as 480x832")
    return int(found[1]), int(found[2])


def _share() -> Any:
    """Which of several processes this is; a TPU slice knows by itself."""
    from realisvsr_jax.jobs.folder import Share, share_of

    share = share_of(FLAGS.process_id, FLAGS.num_processes)
    if share is None:
        import jax

        share = Share(jax.process_index(), jax.process_count())
    return share


def _show_plans(requests: list[Any], weights: Any) -> None:
    """The plan of each video on stdout, or why it would be refused."""
    from realisvsr_jax.jobs.single import dry_run

    refused = 0
    for request in requests:
        try:
            for line in dry_run(request, weights):
                sys.stdout.write(f"{line}\n")
        except InputError as error:
            if len(requests) == 1:
                raise
            refused += 1
            sys.stdout.write(f"refused: {error}\n")
    if refused:
        raise InputError(f"{refused} of {len(requests)} files would be refused")


class _Bar:
    """A progress bar on stderr for each stage; messages stand on lines of their own."""

    def __enter__(self) -> "_Bar":
        from tqdm.contrib.logging import logging_redirect_tqdm

        self._stage, self._bar = "", None
        self._redirected = logging_redirect_tqdm()
        self._redirected.__enter__()
        return self

    def __call__(self, stage: str, done: int | float, total: int | None) -> None:
        from tqdm import tqdm

        if self._bar is None or stage != self._stage or done < self._bar.n:
            self._end()
            form = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
            form = form if total else None
            self._bar = tqdm(desc=stage, unit=" frames", total=total, bar_format=form)
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def say(self, output: str, report: Any) -> None:
        """The last line of a video."""
        from realisvsr_jax.jobs.plan import counted

        self._end()
        height, width = report.size
        made = f"{counted(report.frames, 'frame')} of {width}×{height}"
        log.info("%s: %s in %.1f s", output, made, report.seconds)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __exit__(self, *error: Any) -> None:
        self._end()
        self._redirected.__exit__(*error)


def run() -> None:
    """The console script `realisvsr-upscale`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
