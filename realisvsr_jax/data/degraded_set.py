"""Test sets by the degradation: a folder of clips in, low-quality clips and a manifest out.

A clip's plan is drawn from the seed and the clip's name alone, so that neither other clips nor
the number of processes has a say in it. What is in the manifest: `set_manifest`.
"""

import concurrent.futures
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realisvsr_jax.data.degradation import MARGIN, apply_plan, sample_plan
from realisvsr_jax.data.degradation.apply import Frames, mirror_lead
from realisvsr_jax.data.set_folder import (
    UNFINISHED,
    check_target,
    make_way,
    output_path,
    remove_clip,
    unfinished,
)
from realisvsr_jax.data.set_manifest import (
    FORMAT,
    MANIFEST,
    difference,
    file_digest,
    frames_digest,
    read_manifest,
    versions,
    write_manifest,
)
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import list_frames, probe, read_video, write_video
from realisvsr_jax.video.writing import room

log = logging.getLogger(__name__)

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Recipe:
    """What decides a set, besides its clips and the versions of what makes it."""

    preset: str = "paper"
    seed: int = 0
    scale: int = 4


def degrade_set(
    clips: Mapping[str, Path],
    target: Path,
    recipe: Recipe = Recipe(),
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Makes the low-quality clip of each in `clips`; returns the manifest.

    Folders of frames become folders of PNGs, videos become lossless .mkv; each takes its name
    when it is whole, and what `target` has of the same recipe already is not made again. The
    bytes do not depend on `workers` (processes; as many as cores if None). `progress` is given
    how many clips are done, and of how many.

    Raises InputError, before anything is written, for clips that cannot be used and for a
    target that was made with another recipe or by something else, unless `overwrite`; at the
    end for clips that broke off, with the others made.
    """
    _survey(clips, recipe.scale)
    check_target(clips, target)
    with unfinished(target) as folder:
        manifest = _begin(clips, target, recipe, overwrite)
        left = [name for name in clips if not _is_done(target, manifest, name, clips[name])]
        if left:
            _check_versions(target, manifest, len(left) < len(clips))
        failed: dict[str, InputError] = {}
        progress(len(clips) - len(left), len(clips))
        jobs = [
            (name, clips[name], recipe, folder / f"{number:06}") for number, name in enumerate(left)
        ]
        for done, (name, made) in enumerate(_made(jobs, workers), 1 + len(clips) - len(left)):
            if isinstance(made, InputError):
                failed[name] = made
            else:
                _keep(target, manifest, name, *made)
            progress(done, len(clips))
    if failed:
        name, error = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(clips)} clips are not made, {name} first: {error}")
    return manifest


def draw(recipe: Recipe, name: str) -> np.random.Generator:
    """The generator of a clip's plan: of the seed and the name, of nothing else."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), "<u4")
    return np.random.default_rng([recipe.seed, *words.tolist()])


def degrade_one(name: str, frames: Frames, recipe: Recipe) -> tuple[np.ndarray, dict[str, Any]]:
    """The low-quality clip of `frames` by its name, uint8 [T, h, w, 3], and its plan as JSON.

    The sides of `frames` divide by the scale. The plan is for MARGIN frames more, before the
    first, which are the clip's own mirrored in time.
    """
    count, height, width, _ = frames.shape
    rng = draw(recipe, name)
    plan = sample_plan(rng, count + MARGIN, height, width, recipe.scale, recipe.preset)
    return apply_plan(plan, mirror_lead(frames, MARGIN))[MARGIN:], json.loads(plan.to_json())


def _survey(clips: Mapping[str, Path], scale: int) -> None:
    """Raises InputError for the first clip that cannot be used, as far as a look at it shows."""
    uneven: list[str] = []
    deep = 0
    for name, path in clips.items():
        for above in Path(name).parents:
            outer = clips.get(above.as_posix())
            if outer is not None and outer.is_dir():
                raise InputError(
                    f"{outer} has pictures of its own and the clip {path} in it; take one away"
                )
        info = probe(path)
        for picture in list_frames(path) if path.is_dir() else ():
            if _is_deep(picture):
                raise InputError(
                    f"{picture} has 16 bits a channel, and scores are of 8: convert the frames "
                    "to 8 bits first and take them as the truth"
                )
        if min(info.height, info.width) < scale:
            raise InputError(
                f"{path}: frames of {info.width}×{info.height} are below scale {scale}"
            )
        if info.height % scale or info.width % scale:
            uneven.append(name)
        deep += info.bit_depth > 8
    if uneven:
        log.info(
            "%d of %d clips, %s first, have sides that %d does not divide: their last rows and "
            "columns are left out; `evaluate --mod_crop %d` leaves them out of the truth",
            *(len(uneven), len(clips), uneven[0], scale, scale),
        )
    if deep:
        log.info("%d clips have more than 8 bits a channel, and are read as 8", deep)


def _is_deep(picture: Path) -> bool:
    """Whether a picture has 16 bits a channel, by its header where that says it."""
    if picture.suffix.lower() == ".png":
        with picture.open("rb") as file:
            return file.read(25)[24:] == b"\x10"
    if picture.suffix.lower() in (".tif", ".tiff"):
        content = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
        return content is not None and content.dtype != np.uint8
    return False


def _begin(
    clips: Mapping[str, Path], target: Path, recipe: Recipe, overwrite: bool
) -> dict[str, Any]:
    """The manifest to go on with, on the disk."""
    manifest: dict[str, Any] | None = None
    if (target / MANIFEST).exists():
        manifest = read_manifest(target)
        before = {key: manifest[key] for key in asdict(recipe)}
        if overwrite:
            for clip in filter(None, manifest["clips"].values()):
                remove_clip(target / clip["output"]["path"])
            manifest = None
        elif before != asdict(recipe):
            key = next(key for key, value in asdict(recipe).items() if before[key] != value)
            raise InputError(
                f"{target} was made with {key} {before[key]}, not {asdict(recipe)[key]}; name "
                "another --output, or add --overwrite"
            )
    elif not overwrite and any(path.name != UNFINISHED for path in target.iterdir()):
        raise InputError(
            f"--output {target} is not empty and has no {MANIFEST}; name another, or add "
            "--overwrite"
        )
    known = manifest["clips"] if manifest else {}
    strangers = {name: path for name, path in clips.items() if not known.get(name)}
    make_way(strangers, target, "set", overwrite)
    for name in known.keys() - clips.keys():
        log.warning("%s has the clip %s, which the input has not", target, name)
    start = {"format": FORMAT, **asdict(recipe), "versions": versions()}
    names = sorted(known.keys() | clips.keys())
    manifest = {**(manifest or start), "clips": {name: known.get(name) for name in names}}
    write_manifest(target, manifest)
    return manifest


def _is_done(target: Path, manifest: Mapping[str, Any], name: str, path: Path) -> bool:
    """Whether a clip need not be made; InputError where it is not what the manifest says."""
    clip = manifest["clips"][name]
    if clip is None or not (target / clip["output"]["path"]).exists():
        return False
    if clip["input"]["sha256"] != file_digest(path):
        raise InputError(
            f"{path} has changed since {target} was made of it; name another --output, or add "
            "--overwrite"
        )
    if reason := difference(target / clip["output"]["path"], clip["output"]):
        raise InputError(
            f"{target}: the clip {name} {reason} by {MANIFEST}; remove it to have it made again"
        )
    return True


def _check_versions(target: Path, manifest: dict[str, Any], begun: bool) -> None:
    """Clips of one set are made by the same versions."""
    before, now = manifest["versions"], versions()
    if not begun:
        manifest["versions"] = now
        return
    for key, value in now.items():
        if before.get(key) != value:
            raise InputError(
                f"{target} was begun with {key} {before.get(key)}, this is {value}; --overwrite "
                "makes all of it again"
            )


def _made(jobs: Sequence[tuple[Any, ...]], workers: int | None) -> Iterator[tuple[str, Any]]:
    """(name, what `_make` returned or the InputError that it raised) of each, as they come."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers <= 1:
        yield from map(_tried, jobs)
        return
    # Not forked: the threads of FFmpeg and OpenCV do not survive it.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _prepare_worker)
    try:
        for future in concurrent.futures.as_completed([pool.submit(_tried, job) for job in jobs]):
            yield future.result()
    except concurrent.futures.BrokenExecutor as error:
        raise InputError(
            "a worker process ended, perhaps for want of memory; what is done is kept: give the "
            "same command with fewer --workers"
        ) from error
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """One thread a process; a worker ends with the process that started it, however that ends."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _tried(job: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return job[0], _make(*job)
    except InputError as error:
        return job[0], error


def _make(name: str, path: Path, recipe: Recipe, part: Path) -> tuple[Path, dict[str, Any]]:
    """The finished clip under its temporary name, and its entry in the manifest."""
    digest = file_digest(path)
    clip = read_video(path, threads=1)
    count, height, width, _ = clip.frames.shape
    cropped = (height - height % recipe.scale, width - width % recipe.scale)
    truth = clip.frames[:, : cropped[0], : cropped[1]]
    degraded, plan = degrade_one(name, truth, recipe)
    output = output_path(name, path)
    part = part if path.is_dir() else part.with_suffix(".mkv")
    with room(part):
        write_video(part, degraded, clip.info.rate, lossless=True)
    decoded = read_video(part, threads=1).frames
    if not np.array_equal(decoded, degraded):
        raise RuntimeError(f"{output} does not read back as it was written")
    return part, {
        "input": {"sha256": digest, **_sizes(count, height, width)},
        "truth": {"height": cropped[0], "width": cropped[1]},
        "output": {
            "path": output.as_posix(),
            "sha256": file_digest(part),
            "frames_sha256": frames_digest(decoded),
            **_sizes(*decoded.shape[:3]),
        },
        "plan": plan,
    }


def _sizes(frames: int, height: int, width: int) -> dict[str, int]:
    return {"frames": frames, "height": height, "width": width}


def _keep(
    target: Path, manifest: dict[str, Any], name: str, part: Path, clip: dict[str, Any]
) -> None:
    """Writes down a clip, then gives it its name: a kill between leaves one that is missing."""
    manifest["clips"][name] = clip
    write_manifest(target, manifest)
    output = target / clip["output"]["path"]
    output.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, output)
