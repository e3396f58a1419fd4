"""The clips of a test set by their names, and how the benchmarks of this field lie on a disk.

Ground truth, low-quality input and what a system made of it are folders of clips; a clip is a
video file or a folder of pictures, and clips of equal names belong together.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from realisvsr_jax.data.sources import clip_paths
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import count_frames, list_frames

log = logging.getLogger(__name__)

Found = tuple[tuple[str, ...], Path]  # a clip: the parts of its name, and where it is


@dataclass(frozen=True)
class Layout:
    """A benchmark: how many clips of how many frames it has, and where.

    `frames` are the fewest and the most that a clip has, None where nobody says. `places` are
    names of folders, in small letters, at any depth, that hold the clips; the first of them that
    is there counts, and without any of them all clips do. `inner` is the folder inside each
    clip's that has its pictures, beside others. Without `truth` the clips are low-quality footage
    that nobody has seen in better quality.
    """

    clips: int
    frames: tuple[int, int] | None
    places: tuple[str, ...]
    truth: bool = True
    inner: str | None = None


# GT and LQ, GT-Video and LQ-Video: the archives of DOVE (datasets/README.md), which has SPMCS,
# UDM10, YouHQ40 and VideoLQ; GT beside BIx4 and BDx4: mmagic (tools/dataset_converters).
_GT = ("gt", "gt-video", "hq")
LAYOUTS: dict[str, Layout] = {
    # val_sharp.zip of the REDS page holds val/val_sharp/000 … 029, 100 frames each.
    "reds": Layout(30, (100, 100), ("val_sharp", *_GT)),
    # The authors' archive (jiangsutx/SPMC_VideoSR) has truth beside input2, input3 and input4 in
    # each clip's folder, "30 different videos, each of them contains 31 frames".
    "spmcs": Layout(30, (31, 31), _GT, inner="truth"),
    # PFNL's archive has truth beside blur4 in each clip's folder.
    "udm10": Layout(10, (32, 32), _GT, inner="truth"),
    # YouHQ40-Test of Upscale-A-Video: "40 video clips, each of which has around 32 frames".
    "youhq40": Layout(40, (24, 40), ("youhq40-test", *_GT)),
    # mmagic's meta_info_Vid4_GT.txt: calendar 41, city 34, foliage 49, walk 47.
    "vid4": Layout(4, (34, 49), _GT),
    # RealBasicVSR's archive holds VideoLQ/000 … 049, up to 100 frames each.
    "videolq": Layout(50, (33, 100), ("videolq", "lq", "lq-video"), truth=False),
    # realisvsr_4k_test.zip of the authors' data set holds test/origin/*.mp4; 140 by the paper.
    "realisvideo-4k": Layout(140, None, ("origin", *_GT, "test")),
    # Made from the same 140 by whoever needs it (data/realisvideo.py), so in any folder.
    "realisvideo-720p": Layout(140, None, (*_GT, "test")),
}


def layout_named(name: str) -> Layout:
    """The layout of that name; raises InputError that lists the known ones."""
    if name not in LAYOUTS:
        raise InputError(f"unknown layout {name!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def find_clips(folder: str | Path, layout: str | None = None) -> dict[str, Path]:
    """The clips of a test set by name, in the order of the names: videos or folders of pictures.

    Without a layout these are all at any depth, each named by its path in `folder` without a
    video's suffix: `GT/a/clip.mp4` in `GT` is `a/clip`. Pictures that lie in `folder` itself are
    one clip with the folder's name where nothing else is there, and left out otherwise, as is
    what begins with a dot or lies in `__MACOSX`. A layout is one of `LAYOUTS` (which says where
    each was read off): its clips are those in its place, named from there, and a number of clips
    or frames that is not the benchmark's is a warning with both numbers.

    Raises InputError for a folder that cannot be read or has no clips, for two clips of one name,
    and for an unknown layout.
    """
    benchmark = None if layout is None else layout_named(layout)
    folder = Path(folder)
    _check_folder(folder)
    found = list(_relative(folder))
    if not found:
        raise InputError(f"{folder} has no clips; expected videos or folders of pictures in it")
    if benchmark is not None:
        found = _placed(found, benchmark)
    clips: dict[str, Path] = {}
    for parts, path in sorted(found):
        name = "/".join(parts)
        if name in clips:
            raise InputError(
                f"{clips[name]} and {path} are both the clip {name!r}; take one of them away"
            )
        clips[name] = path
    if benchmark is not None:
        _compare(folder, str(layout), benchmark, clips)
    return dict(sorted(clips.items()))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; name a folder of clips")
    try:
        os.listdir(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _relative(folder: Path) -> Iterator[Found]:
    """Where the clips of a folder are in it, by parts of their names' paths."""
    paths = [path for path in clip_paths(folder) if _counts(path.relative_to(folder))]
    if paths == [folder]:
        yield (folder.resolve().name,), folder
        return
    if folder in paths:
        log.warning("%s: the pictures beside the clips are left out", folder)
        paths.remove(folder)
    for path in paths:
        inside = path.relative_to(folder)
        yield (inside if path.is_dir() else inside.with_suffix("")).parts, path


def _counts(inside: Path) -> bool:
    """Whether a path in the folder is no rubbish of an archive or a system."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in inside.parts)


def _placed(found: Sequence[Found], benchmark: Layout) -> list[Found]:
    """The clips in the benchmark's place, named from there."""
    if benchmark.inner is not None:
        # Inside the clips' own folders, beside what was made of them.
        inner = [
            (parts[:-1], path)
            for parts, path in found
            if len(parts) > 1 and parts[-1] == benchmark.inner
        ]
        found = inner or found
    for place in benchmark.places:
        below = []
        for parts, path in found:
            folders = [part.lower() for part in parts[:-1]]
            if place in folders:
                below.append((parts[folders.index(place) + 1 :], path))
        if below:
            return below
    # Named from the folder that all of them share, wherever above it the user pointed.
    above = [PurePosixPath("/", *parts[:-1]) for parts, _ in found]
    shared = len(PurePosixPath(os.path.commonpath(above)).parts) - 1
    return [(parts[shared:], path) for parts, path in found]


def _compare(folder: Path, layout: str, benchmark: Layout, clips: Mapping[str, Path]) -> None:
    """Warns of a number of clips or frames that the benchmark does not have."""
    if len(clips) != benchmark.clips:
        log.warning("%s has %d clips, %s has %d", folder, len(clips), layout, benchmark.clips)
    if benchmark.frames is None:
        return
    low, high = benchmark.frames
    usual = str(low) if low == high else f"{low} to {high}"
    for name, path in clips.items():
        frames = len(list_frames(path)) if path.is_dir() else count_frames(path)
        if not low <= frames <= high:
            log.warning("%s: %s has %d frames, %s has %s", folder, name, frames, layout, usual)
