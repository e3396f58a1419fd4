"""Training clips from photographs (smooth synthetic motion) and from a film (no cut inside).

Frames are uint8 RGB `T H W 3`. Every draw comes from the source's name and the tile's
place, so a second run makes the same clips and skips those already there.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from footage_sources import Footage

from realisvsr_jax.files import replacing

FRAMES = 21
SIZE = 192
TILE = 320  # a photograph's tile: the clip's window and the room it moves in
TILES_PER_SCALE = 20  # of one photograph at one size, so that no picture dominates
VALIDATION_TILES = 4
STATIC_SHARE = 0.08
PHOTO_DETAIL = 5.0
FILM_DETAIL = 2.5
FILM_SECOND_DETAIL = 12.0  # a film window this detailed gets a companion elsewhere in the frame
FILM_STRETCHES = 24
FILM_FRAMES = (240, 11_760)  # without the opening titles and the credits
FILM_VALIDATION = 7  # the stretch kept for validation
CUT = 22.0


def detail(image: np.ndarray) -> float:
    """RMS, in grey levels, of what a four times smaller picture cannot hold; image `H W 3`."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = grey.shape
    small = cv2.resize(grey, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    back = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return float(np.sqrt(np.mean((grey - back) ** 2)))


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Stores frames losslessly (FFV1, RGB), under a temporary name until complete."""
    with replacing(path) as partial, av.open(str(partial), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def photo_clips(photo: Footage, file: Path, folder: Path) -> list[dict]:
    """Makes the clips of one photograph, at full and half size; returns manifest rows."""
    cv2.setNumThreads(1)
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        return []
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    rows = []
    most = VALIDATION_TILES if photo.validation else TILES_PER_SCALE
    for divisor in (1, 2):
        if divisor > 1:
            size = (image.shape[1] // divisor, image.shape[0] // divisor)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for y, x, value in _detailed_tiles(image)[:most]:
            name = f"{photo.name}_{divisor}_{y}_{x}.mkv"
            if not (folder / name).exists():
                rng = np.random.default_rng(zlib.crc32(name.encode()))
                write_clip(folder / name, animate(rng, image, y + TILE / 2, x + TILE / 2))
            rows.append(_row(folder / name, photo, value))
    return rows


def animate(rng: np.random.Generator, image: np.ndarray, y: float, x: float) -> np.ndarray:
    """A `FRAMES`×`SIZE`×`SIZE` clip of a camera that moves smoothly around the point (y, x)."""
    path = camera_path(rng)
    frames = []
    for dy, dx, zoom, angle in path:
        # maps the window's pixels to the photograph's: rotate and zoom about the centre, shift
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        centre = (SIZE - 1) / 2
        matrix = np.array(
            [
                [cos, -sin, x + dx - cos * centre + sin * centre],
                [sin, cos, y + dy - sin * centre - cos * centre],
            ]
        )
        flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
        frames.append(
            cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT)
        )
    return np.stack(frames)


def camera_path(rng: np.random.Generator) -> np.ndarray:
    """`[FRAMES, 4]`: vertical and horizontal shift (pixels), zoom, rotation (radians).

    A pan of up to 5 pixels a frame that speeds up or slows down, a slow sway, at times the
    tremble of a hand, a zoom of up to ±8% and a rotation of up to ±3° from end to end.
    """
    path = np.zeros((FRAMES, 4))
    path[:, 2] = 1.0
    if rng.random() < STATIC_SHARE:
        return path
    time = np.linspace(-0.5, 0.5, FRAMES)
    eased = time + rng.uniform(-0.5, 0.5) * (time**2 - 0.25)
    speed = 5 * rng.random() ** 1.5 * (FRAMES - 1)
    direction = rng.uniform(0, 2 * np.pi)
    sway = rng.uniform(0, 4, size=2)
    phase = rng.uniform(0, 2 * np.pi, size=2)
    for axis, share in enumerate((np.sin(direction), np.cos(direction))):
        path[:, axis] = speed * share * eased
        path[:, axis] += sway[axis] * np.sin(2 * np.pi * time * rng.uniform(0.3, 1.2) + phase[axis])
    if rng.random() < 0.3:
        tremble = rng.normal(0, 0.6, size=(FRAMES, 2))
        path[:, :2] += (tremble + np.roll(tremble, 1, axis=0)) / 2
    limit = (TILE - SIZE) / 2 - 8
    path[:, :2] = np.clip(path[:, :2], -limit, limit)
    path[:, 2] += rng.uniform(-0.08, 0.08) * 2 * time * (rng.random() < 0.5)
    path[:, 3] = np.deg2rad(rng.uniform(-3, 3)) * time * (rng.random() < 0.4)
    return path


def film_clips(film: Footage, file: Path, folders: tuple[Path, Path], stretch: int) -> list[dict]:
    """Makes the clips of one stretch of the film, halved in size; returns manifest rows.

    A stretch begins at its first cut and its predecessor runs on to that cut, so that no
    scene is shared; `folders` are those for training and for validation.
    """
    cv2.setNumThreads(1)
    folder = folders[stretch == FILM_VALIDATION]
    rows = []
    for first, frames in film_scenes(file, stretch):
        for y, x, value in _film_windows(frames[FRAMES // 2]):
            name = f"{film.name}_{first:05d}_{y}_{x}.mkv"
            if not (folder / name).exists():
                write_clip(folder / name, frames[:, y : y + SIZE, x : x + SIZE])
            rows.append(_row(folder / name, film, value))
    return rows


def film_scenes(file: Path, stretch: int) -> Iterator[tuple[int, np.ndarray]]:
    """Runs of `FRAMES` frames without a cut, `(number of the first, [T, H/2, W/2, 3])`."""
    start, end = FILM_FRAMES
    length = (end - start) // FILM_STRETCHES
    begin, stop = start + stretch * length, start + (stretch + 1) * length
    run: list[np.ndarray] = []
    previous = None
    inside = stretch == 0
    for number, frame in _halved_frames(file, begin):
        thumbnail = cv2.resize(frame, (64, 36), interpolation=cv2.INTER_AREA).astype(np.float32)
        cut = previous is not None and np.abs(thumbnail - previous).mean() > CUT
        previous = thumbnail
        if cut:
            run.clear()
            if number >= stop:
                return
            inside = True
        if inside:
            run.append(frame)
        if len(run) == FRAMES:
            yield number - FRAMES + 1, np.stack(run)
            run.clear()


def _halved_frames(file: Path, begin: int) -> Iterator[tuple[int, np.ndarray]]:
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        rate, base = stream.average_rate, stream.time_base
        assert rate is not None
        assert base is not None
        container.seek(int(begin / rate / base), stream=stream)
        for frame in container.decode(stream):
            number = round(frame.pts * base * rate) if frame.pts is not None else begin
            if number >= begin:
                image = frame.to_ndarray(format="rgb24")
                size = (frame.width // 2, frame.height // 2)
                yield number, cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            if number >= FILM_FRAMES[1]:
                return


def _detailed_tiles(image: np.ndarray) -> list[tuple[int, int, float]]:
    """Tiles `(y, x, detail)` with enough detail, the most detailed first; a third overlaps."""
    stride = TILE * 2 // 3
    tiles = []
    for y in range(0, image.shape[0] - TILE + 1, stride):
        for x in range(0, image.shape[1] - TILE + 1, stride):
            margin = (TILE - SIZE) // 2
            window = image[y + margin : y + TILE - margin, x + margin : x + TILE - margin]
            value = detail(window)
            if value >= PHOTO_DETAIL:
                tiles.append((y, x, value))
    return sorted(tiles, key=lambda tile: -tile[2])


def _film_windows(frame: np.ndarray) -> list[tuple[int, int, float]]:
    """The most detailed window of a frame; a second, disjoint one where there is much."""
    step = SIZE // 4
    windows = sorted(
        (-detail(frame[y : y + SIZE, x : x + SIZE]), y, x)
        for y in range(0, frame.shape[0] - SIZE + 1, step)
        for x in range(0, frame.shape[1] - SIZE + 1, step)
    )
    value, y, x = windows[0]
    chosen = [(y, x, -value)] if -value >= FILM_DETAIL else []
    for value, other_y, other_x in windows:
        apart = max(abs(other_y - y), abs(other_x - x)) >= SIZE
        if apart and -value >= FILM_SECOND_DETAIL:
            return [*chosen, (other_y, other_x, -value)]
    return chosen


def _row(path: Path, footage: Footage, value: float) -> dict:
    return {
        "clip": f"{path.parent.name}/{path.name}",
        "package": footage.package,
        "source": footage.path,
        "licence": footage.licence,
        "detail": round(value, 2),
    }
