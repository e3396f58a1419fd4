"""A benchmark from its ground truth to its table: degrade, restore, score.

Everything lies in one folder: `truth` (where windows of clips are cut out), `low`, a folder of
`restored` for each system, `report`. What is there already is not made again, so that a run that
was stopped goes on.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from realisvsr_jax import video
from realisvsr_jax.data.degraded_set import Recipe, degrade_set
from realisvsr_jax.data.testset import find_clips, layout_named
from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import baselines
from realisvsr_jax.files import replacing

log = logging.getLogger(__name__)

NOTES = "benchmark.json"


@dataclass(frozen=True)
class Cut:
    """A window of a clip of the truth, in frames and pixels, under a name of its own."""

    name: str
    file: str
    start: int
    frames: int
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is scored, and against what.

    `truth` is the folder of the ground truth, or of `low_quality` footage that has none, by the
    `layout` of that name; with `cuts` only these windows of its files are taken. `ours` is how the
    table calls what `realisvsr_jax.upscale` makes with the flags `upscale`; "" leaves it out.
    `baselines` are names of `evals.baselines`.
    """

    truth: str = ""
    low_quality: str = ""
    layout: str = ""
    cuts: tuple[Cut, ...] = ()
    preset: str = "paper"
    seed: int = 0
    scale: int = 4
    ours: str = "ours"
    upscale: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("bicubic",)


@dataclass(frozen=True)
class Made:
    """The folders of a benchmark that is ready to be scored; no reference without a truth.

    The reference counts up to multiples of `scale`: the rest was cropped before it was degraded.
    """

    reference: Path | None
    restored: Mapping[str, Path]
    scale: int


def check(config: BenchmarkConfig) -> None:
    """Raises InputError for settings that do not go together."""
    if bool(config.truth) == bool(config.low_quality):
        raise InputError(
            "a benchmark has a folder of ground truth or one of low-quality footage: give "
            "--config.truth=DIR or --config.low_quality=DIR"
        )
    if config.layout and layout_named(config.layout).truth != bool(config.truth):
        wanted = "truth" if config.low_quality else "low_quality"
        raise InputError(f"{config.layout} is a folder for --config.{wanted}")
    if config.cuts and config.low_quality:
        raise InputError("cuts are windows of the truth; footage without one has none")
    for name in config.baselines:
        if name not in baselines.SYSTEMS:
            raise InputError(f"unknown baseline {name!r}; known: {', '.join(baselines.SYSTEMS)}")
    if config.scale != baselines.SCALE and config.baselines:
        raise InputError(f"baselines enlarge {baselines.SCALE}×, the scale is {config.scale}")
    if not (config.ours or config.baselines):
        raise InputError("no system to score: give config.ours a name, or name baselines")


def prepare(config: BenchmarkConfig, output: Path, workers: int | None = None) -> Made:
    """Makes what is missing of the low-quality and the restored clips.

    Raises InputError for folders that cannot serve, for an `output` of another benchmark, and
    where a system fails.
    """
    check(config)
    _begin(config, output)
    if config.low_quality:
        low, reference = find_clips(config.low_quality, config.layout or None), None
    else:
        reference = _truth(config, output)
        clips = find_clips(reference, None if config.cuts else config.layout or None)
        recipe = Recipe(config.preset, config.seed, config.scale)
        log.info("%d clips: %s", len(clips), output / "low")
        degrade_set(clips, output / "low", recipe, workers=workers)
        low = find_clips(output / "low")
    (output / "restored").mkdir(exist_ok=True)
    restored = {
        name: output / "restored" / name for name in (config.ours, *config.baselines) if name
    }
    for name in config.baselines:
        log.info("%s: %s", name, restored[name])
        enlarge = baselines.enlarger(name)
        baselines.enlarge_set(low, restored[name], name, enlarge, workers=workers)
    if config.ours:
        _restore(config, low, restored[config.ours])
    return Made(reference, restored, config.scale)


def _begin(config: BenchmarkConfig, output: Path) -> None:
    """Notes down what is made; raises InputError where something else was begun there."""
    wanted = json.loads(json.dumps(asdict(config)))
    notes = output / NOTES
    if notes.is_file():
        try:
            before = dict(json.loads(notes.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{notes} cannot be understood: {error}; remove it") from error
        for key, value in wanted.items():
            if key != "baselines" and before.get(key) != value:  # these may come and go
                raise InputError(
                    f"{output} has the benchmark with {key} {before.get(key)!r}, this is "
                    f"{value!r}; name another --output"
                )
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output} has other things in it; name another")
    output.mkdir(parents=True, exist_ok=True)
    with replacing(notes) as partial:
        partial.write_text(
            json.dumps(wanted, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def _truth(config: BenchmarkConfig, output: Path) -> Path:
    """The folder of the ground truth; of windows, once they are cut out."""
    source = Path(config.truth)
    if not config.cuts:
        return source
    target = output / "truth"
    target.mkdir(exist_ok=True)
    for cut in config.cuts:
        path = target / f"{cut.name}.mkv"
        if path.exists():
            continue
        clip = video.read_video(source / cut.file, cut.start, cut.frames)
        frames = clip.frames[:, cut.top : cut.top + cut.height, cut.left : cut.left + cut.width]
        if frames.shape[:3] != (cut.frames, cut.height, cut.width):
            raise InputError(
                f"{source / cut.file} is too small for the window {cut.name}: "
                f"{cut.frames} frames of {cut.width}×{cut.height} from frame {cut.start}, "
                f"({cut.left}, {cut.top})"
            )
        video.write_video(path, frames, clip.info.rate, lossless=True)
    return target


def _restore(config: BenchmarkConfig, low: Mapping[str, Path], target: Path) -> None:
    """By `realisvsr_jax.upscale`, a folder of videos in one process, frames clip by clip."""
    target.mkdir(parents=True, exist_ok=True)
    for source, result in _jobs(low, target):
        result.parent.mkdir(parents=True, exist_ok=True)
        log.info("%s: %s", config.ours, result)
        command = [sys.executable, "-m", "realisvsr_jax.upscale", "--lossless", "--resume"]
        command += [f"--input={source}", f"--output={result}", f"--scale={config.scale}"]
        status = subprocess.run([*command, *config.upscale], check=False).returncode
        if status:
            raise InputError(
                f"{config.ours}: restoring {source} ended with status {status}; its reason is above"
            )


def _jobs(low: Mapping[str, Path], target: Path) -> Iterator[tuple[Path, Path]]:
    """(input, output) of each call of `upscale`."""
    folders = set()
    for name, path in low.items():
        result = target / name
        if path.is_dir():
            if not result.exists():
                yield path, result
        elif path.parent not in folders:
            folders.add(path.parent)
            yield path.parent, result.parent
