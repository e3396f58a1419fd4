"""The manifest of a degraded set: what decides it, what became of it, and whether that still holds.

`manifest.json` has the preset, the seed, the scale, versions, and by clip: `input` (SHA-256,
frames, height, width), `truth` (the height and width that the input is cropped to at its top
left, so that they divide by the scale), `output` (path, SHA-256 of the file and of the decoded
frames, frames, height, width), `plan`. A clip that is not made yet is null.

A video's SHA-256 is that of its file; that of a folder of frames is of the lines that
`sha256sum` prints for its pictures, in their order. That of decoded frames is of their bytes:
uint8, [T, H, W, 3], RGB.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from realisvsr_jax.data.degradation import ops
from realisvsr_jax.data.degradation.apply import Frames
from realisvsr_jax.data.testset import find_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.files import replacing
from realisvsr_jax.video import list_frames, read_video
from realisvsr_jax.video.writing import room

MANIFEST = "manifest.json"
FORMAT = 1


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a set's folder, or a file of one; raises InputError for anything else."""
    path = path / MANIFEST if path.is_dir() else path
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise InputError(f"{path} is of format {manifest['format']!r}, not {FORMAT}")
        if missing := {"preset", "seed", "scale", "versions"} - manifest.keys():
            raise LookupError(f"it has no {min(missing)}")
        for name, clip in manifest["clips"].items():
            where = Path(clip["output"]["path"]) if clip else Path(name)
            if where.is_absolute() or ".." in where.parts:
                raise ValueError(f"{where} is no path in the set")
            if clip is not None and not (clip["truth"]["height"] and clip["output"]["sha256"]):
                raise ValueError(f"{name} has no sizes")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no manifest of a degraded set: {error}") from error
    return manifest


def write_manifest(target: Path, manifest: Mapping[str, Any]) -> None:
    """Puts the manifest into a set's folder, a clip a line."""
    head = [f"{_json(key)}: {_json(value)}" for key, value in manifest.items() if key != "clips"]
    clips = [f"{_json(name)}: {_json(clip)}" for name, clip in manifest["clips"].items()]
    text = "{\n" + ",\n".join([*head, '"clips": {\n' + ",\n".join(clips) + "\n}"]) + "\n}\n"
    with room(target), replacing(target / MANIFEST) as partial:
        partial.write_text(text, encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def verify(folder: Path, against: Path | None = None) -> int:
    """Compares a set with its manifest, or another one's; returns the number of its clips.

    Where a file's bytes differ but its decoded frames do not, the clip is the same. Raises
    InputError that names the clips that are missing, too many, or differ.
    """
    path = against or folder / MANIFEST
    manifest = read_manifest(path)
    wrong = []
    for name, clip in manifest["clips"].items():
        if clip is None:
            wrong.append(f"{name} was never made")
        elif reason := difference(folder / clip["output"]["path"], clip["output"]):
            wrong.append(f"{name} {reason}")
    known = {folder / clip["output"]["path"] for clip in manifest["clips"].values() if clip}
    wrong += [f"{name} is not in it" for name, p in _present(folder).items() if p not in known]
    if wrong:
        several = f" ({len(wrong)} clips in all)" if len(wrong) > 1 else ""
        raise InputError(f"{folder} is not the set of {path}: {', '.join(wrong[:5])}{several}")
    return len(manifest["clips"])


def versions() -> dict[str, str]:
    """Of what has a say in the bytes."""
    packages = ("realisvsr-jax", "numpy", "scipy", "opencv-python-headless", "av")
    found = {name: _version(name) for name in packages}
    found["degradation"] = str(ops.REVISION)
    found["opencv"] = cv2.__version__
    for name in ("libavcodec", "libavformat", "libavutil", "libswscale"):
        found[name] = ".".join(map(str, av.library_versions[name]))
    return {**found, "machine": platform.machine()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"  # OpenCV goes by several names


def difference(path: Path, output: Mapping[str, Any]) -> str:
    """In what a clip is not the one that was written down; "" where it is."""
    if not path.exists():
        return "is missing"
    try:
        if file_digest(path) == output["sha256"]:
            return ""
        same = frames_digest(read_video(path).frames) == output["frames_sha256"]
    except InputError:
        return "cannot be read"
    return "" if same else "has other frames"


def _present(folder: Path) -> dict[str, Path]:
    try:
        return find_clips(folder)
    except InputError:
        return {}  # none, or one twice, which has no place in a manifest


def file_digest(path: Path) -> str:
    """SHA-256 of a video, or a folder of frames, as it lies on the disk (see the module)."""
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        lines = [f"{file_digest(picture)}  {picture.name}\n" for picture in list_frames(path)]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def frames_digest(frames: Frames) -> str:
    """SHA-256 of decoded frames (see the module)."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()
