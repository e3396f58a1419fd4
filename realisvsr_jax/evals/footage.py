"""The clips of an evaluation: what each is, which belong together, and their frames one by one.

All that can be wrong with sizes and numbers of frames is found here, before anything is scored.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realisvsr_jax.data.testset import find_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import count_frames, list_frames, probe, stream_video
from realisvsr_jax.video.info import opened, video_stream

_LOSSLESS = {
    *("ffv1", "png", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "qtrle", "bmp", "tiff", "qoi"),
    *("magicyuv", "lagarith", "zmbv", "apng", "r210", "v210", "v410", "mjpegls", "jpegls"),
}


@dataclass(frozen=True)
class Footage:
    """One clip of one side: a video or a folder of pictures.

    `lossy` says what was lost when it was written, "" where nothing was. `version` changes when
    the files do: their paths, sizes and times. `deep` is more than 8 bits a channel. Its frames
    are `height` × `width`, cropped to that at the bottom and the right from `whole`, if that is
    another size.
    """

    path: Path
    frames: int
    height: int
    width: int
    deep: bool
    lossy: str
    version: str
    whole: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def cropped(self) -> bool:
        """Whether the file's frames are larger than what is taken of them."""
        return self.whole not in (None, self.size)


@dataclass(frozen=True)
class Pair:
    """A restored clip and its reference, if there is one; `height` × `width` is scored."""

    restored: Footage
    reference: Footage | None

    @property
    def enlarged(self) -> bool:
        """Whether the restored clip is bicubic from its own size up to the reference's."""
        return self.reference is not None and self.restored.size != self.reference.size

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is scored."""
        return (self.reference or self.restored).size


def look(path: Path, mod_crop: int = 1) -> Footage:
    """What a clip is, its sides cropped to multiples of `mod_crop`.

    Raises InputError for whatever is no readable video or folder, or smaller than that.
    """
    info = probe(path)
    if path.is_dir():
        pictures = list_frames(path)
        frames, files = len(pictures), pictures
        bad = sorted({p.suffix.lower() for p in pictures} & {".jpg", ".jpeg", ".webp"})
        lossy = ", ".join(bad).replace(".", "").upper()
    else:
        frames, files, lossy = count_frames(path), [path], _lost(path, info.pix_fmt)
    deep = info.bit_depth > 8
    whole = info.height, info.width
    height, width = _multiples(whole, mod_crop)
    if not (height and width):
        raise InputError(
            f"{path} is {info.width}×{info.height}, smaller than --mod_crop {mod_crop}"
        )
    version = _version(files) if (height, width) == whole else f"{_version(files)}-{mod_crop}"
    return Footage(path, frames, height, width, deep, lossy, version, whole)


def matched(
    systems: Mapping[str, Path],
    reference: Path | None,
    layout: str | None = None,
    only: tuple[str, ...] = (),
) -> tuple[dict[str, dict[str, Path]], dict[str, Path] | None]:
    """The clips of every system and of the reference, by name; all sides have the same names.

    `only` takes some of them. Raises InputError that names what is missing or too many.
    """
    found = {system: find_clips(folder) for system, folder in systems.items()}
    truth = None if reference is None else find_clips(reference, layout)
    first = next(iter(systems))
    base, where = (found[first], systems[first]) if truth is None else (truth, reference)
    if unknown := [name for name in only if name not in base]:
        raise InputError(f"{where} has no clip {unknown[0]!r}; it has {_some(sorted(base))}")
    names = list(only) or list(base)
    for system, clips in found.items():
        missing = [name for name in names if name not in clips]
        extra = [] if only else [name for name in clips if name not in base]
        if missing or extra:
            told = [f"lacks {_some(missing)}"] * bool(missing) + [
                f"has also {_some(extra)}"
            ] * bool(extra)
            raise InputError(
                f"{systems[system]} ({len(clips)} clips) and {where} ({len(base)}) do not have the "
                f"same clips: the first {' and '.join(told)}; make them equal, or name some by "
                "--clips"
            )
    chosen = {system: {name: clips[name] for name in names} for system, clips in found.items()}
    return chosen, truth and {name: truth[name] for name in names}


def pair(name: str, restored: Footage, reference: Footage | None, enlarge: bool = False) -> Pair:
    """Two clips that can be compared; raises InputError with both numbers where they cannot.

    With `enlarge`, a restored clip that is smaller in the same proportions is one as well.
    """
    if reference is None:
        return Pair(restored, None)
    if restored.frames != reference.frames:
        raise InputError(
            f"clip {name}: {restored.path} has {restored.frames} frames, {reference.path} has "
            f"{reference.frames}; clips of different lengths cannot be compared"
        )
    if restored.size != reference.size:
        (h, w), (height, width) = restored.size, reference.size
        smaller = h <= height and w <= width
        same = abs(h * width - w * height) <= max(height, width)
        advice = "; --upscale_bicubic enlarges it" if smaller and same else ""
        divisors = (n for n in (4, 2, 3, 8, 16) if _multiples(reference.size, n) == restored.size)
        if divisor := next(divisors, 0):
            advice = f"; --mod_crop {divisor} crops the reference to that"
        if not (enlarge and smaller and same):
            raise InputError(
                f"clip {name}: {restored.path} is {w}×{h}, {reference.path} is {width}×{height}; "
                f"clips of different sizes cannot be compared{advice}"
            )
    return Pair(restored, reference)


def frames_of(clips: Pair) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Frames of both, side by side: uint8 RGB, or float32 in [−1, 1] where one side is deeper.

    Raises InputError for a clip that ends early, and for 16-bit files with 8-bit values in them.
    """
    deep = clips.restored.deep or (clips.reference is not None and clips.reference.deep)
    restored = _frames(clips.restored, deep)
    if clips.enlarged:
        restored = map(_bicubic(*clips.size), restored)
    if clips.reference is None:
        yield from zip(restored, itertools.repeat(None))
        return
    yield from zip(restored, _frames(clips.reference, deep), strict=True)


def to_bytes(frame: np.ndarray) -> np.ndarray:
    """uint8 [0, 255] of a frame."""
    if frame.dtype == np.uint8:
        return frame
    return np.round((np.clip(frame, -1, 1) + 1) * 127.5).astype(np.uint8)


def _frames(footage: Footage, deep: bool) -> Iterator[np.ndarray]:
    _, stream = stream_video(footage.path, deep=deep)
    count, largest = 0, 0
    for frame, _ in stream:
        count += 1
        if frame.shape[:2] != (footage.whole or footage.size):
            raise InputError(
                f"{footage.path}: frame {count - 1} is {frame.shape[1]}×{frame.shape[0]}"
            )
        frame = frame[: footage.height, : footage.width]
        if deep:
            largest = max(largest, int(frame.max()))
            frame = frame.astype(np.float32) / 32767.5 - 1
        yield frame
    if footage.deep and 0 < largest <= 255:
        raise InputError(
            f"{footage.path} is of 16 bits with no value above {largest}: 8-bit values in 16-bit "
            "files; write them as 8-bit files"
        )
    if count != footage.frames:
        raise InputError(f"{footage.path} has {footage.frames} frames, {count} could be read")


def _bicubic(height: int, width: int):
    """The project's own, jitted, of one frame."""
    import jax
    import jax.numpy as jnp

    from realisvsr_jax.resize import bicubic, to_float

    def enlarge(frame):
        return bicubic(to_float(frame)[None, None], height, width)[0, 0]

    jitted = jax.jit(enlarge)

    def apply(frame: np.ndarray) -> np.ndarray:
        large = np.clip(np.asarray(jitted(jnp.asarray(frame))), -1, 1)
        return to_bytes(large) if frame.dtype == np.uint8 else large

    return apply


def _lost(path: Path, pix_fmt: str) -> str:
    """A video's codec and pixel format where they lose something of RGB; else ""."""
    with opened(path) as container:
        stream = video_stream(container, path)
        codec, extra = stream.codec_context.name, stream.codec_context.extradata or b""
    rgb = pix_fmt.startswith(("gbr", "rgb", "bgr", "argb", "0rgb", "pal8", "gray", "x2rgb"))
    exact = codec in _LOSSLESS or (codec in ("h264", "libx264") and lossless_h264(extra))
    if exact and rgb:
        return ""
    name = {"h264": "H.264", "hevc": "H.265", "mpeg4": "MPEG-4", "mpeg1video": "MPEG-1"}
    return f"{name.get(codec, codec)} {pix_fmt}"


def lossless_h264(extradata: bytes) -> bool:
    """Whether a sequence parameter set says qpprime_y_zero_transform_bypass (H.264, 7.3.2.1.1).

    x264 sets it for quantiser 0 alone.
    """
    at = extradata.find(b"\x67")
    while at >= 0:
        data = extradata[at + 1 : at + 64].replace(b"\x00\x00\x03", b"\x00\x00")
        if len(data) > 4 and data[0] in (100, 110, 122, 244, 44):
            bits = iter("".join(f"{byte:08b}" for byte in data[3:]))
            try:
                _golomb(bits)  # its number
                if _golomb(bits) == 3:
                    next(bits)
                for _ in ("luma", "chroma"):
                    _golomb(bits)  # its depth
                if next(bits) == "1":
                    return True
            except StopIteration:
                pass
        at = extradata.find(b"\x67", at + 1)
    return False


def _golomb(bits: Iterator[str]) -> int:
    zeros = 0
    while next(bits) == "0":
        zeros += 1
        if zeros > 31:
            raise StopIteration
    return (1 << zeros) - 1 + int("0" + "".join(next(bits) for _ in range(zeros)), 2)


def _multiples(size: tuple[int, int], of: int) -> tuple[int, int]:
    """Both sides rounded down."""
    return size[0] - size[0] % of, size[1] - size[1] % of


def _version(files: list[Path]) -> str:
    digest = hashlib.sha256(str(files[0].resolve().parent).encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
