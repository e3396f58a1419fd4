"""RealisVideo-4K and its 720P twin as a TFDS dataset; made with TFDS, read without it.

The videos are those that a user has downloaded, in any folders, with `name.txt` beside `name.mp4`
as caption. Below the folders `train` and `test`, if there are any, they are splits of these
names; else all are `train`. The configuration `4k` keeps the files as they are; `720p` averages
over areas down to 720 lines (3×3 pixels from 2160) and stores H.264 that is lossless in RGB.

    from realisvsr_jax.data.realisvideo import RealisVideo, prepare
    prepare("720p", manual_dir="videos", data_dir="tfds")    # the folder that data.sources takes
    tfds.data_source("realis_video/720p", data_dir="tfds")   # anywhere, without this package
"""

import hashlib
import importlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realisvsr_jax.data.sources import clip_paths, describe_clip
from realisvsr_jax.data.tfds_source import SPLIT
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import VideoWriter, stream_video

try:
    tfds: Any = importlib.import_module("tensorflow_datasets")
except ImportError as missing:
    raise InputError(
        "to prepare this dataset takes tensorflow-datasets: pip install tensorflow-datasets; to "
        "read it, data.sources takes nothing more"
    ) from missing
log = logging.getLogger(__name__)

LINES = 720


class RealisVideo(tfds.core.GeneratorBasedBuilder):
    """1,000 videos of 2160×3840 with captions (RealisVSR, section "RealisVideo-4K")."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="4k", description="The files as they are."),
        tfds.core.BuilderConfig(name="720p", description="Averaged down to 720 lines, lossless."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir is a folder with the videos of RealisVideo-4K."

    def _info(self) -> Any:
        scalars = {name: np.int32 for name in ("frames", "height", "width")}
        texts = {name: tfds.features.Text() for name in ("name", "caption", "sha256")}
        video = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=(__doc__ or "").split("\n")[0],
            features=tfds.features.FeaturesDict({"video": video, **texts, **scalars}),
            # Examples stand in the order of `clips`, which has a row for each: see tfds_source.py.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(clips={}),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        folder = Path(dl_manager.manual_dir)
        splits = {name: folder / name for name in (SPLIT, "test") if (folder / name).is_dir()} or {
            SPLIT: folder
        }
        return {name: self._generate_examples(name, path) for name, path in splits.items()}

    def _generate_examples(self, split: str, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = self.info.metadata["clips"].setdefault(split, [])
        for path in clip_paths(folder):
            if path.is_dir():
                continue  # pictures beside the videos
            try:
                example = _example(path, folder, self.builder_config.name == "720p")
            except InputError as error:
                log.warning("left out of the data: %s", error)
                continue
            rows.append([example[key] for key in ("name", "caption", "frames", "height", "width")])
            yield len(rows), example
        if not rows:
            raise InputError(f"{folder} has no video that can be read; name the videos' folder")


def prepare(config: str, manual_dir: str | Path, data_dir: str | Path) -> Path:
    """Makes the dataset, unless it is there, and returns its folder, which `data.sources` takes."""
    if not Path(manual_dir).is_dir():
        raise InputError(f"{manual_dir} is no folder; name one with the videos")
    builder = RealisVideo(config=config, data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    )
    return Path(builder.data_dir)


def _example(path: Path, folder: Path, small: bool) -> dict[str, Any]:
    clip = describe_clip(path)
    name, size = path.relative_to(folder), (clip.height, clip.width)
    if small:
        video, size = _reduced(path)
        name = name.with_suffix(".mp4")
    else:
        video = path.read_bytes()
    return {
        "video": video,
        "name": name.as_posix(),
        "caption": clip.caption,
        "sha256": hashlib.sha256(video).hexdigest(),
        "frames": clip.num_frames,
        "height": size[0],
        "width": size[1],
    }


def _reduced(path: Path) -> tuple[bytes, tuple[int, int]]:
    """A video whose shorter side is 720, as a lossless file; its height and width."""
    info, frames = stream_video(path)
    ratio = LINES / min(info.height, info.width)
    if ratio > 1:
        raise InputError(f"{path} is {info.width}×{info.height}, smaller than 720P")
    height, width = (2 * round(length * ratio / 2) for length in (info.height, info.width))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "reduced.mp4")
        with VideoWriter(made, info, lossless=True) as writer:
            for frame, time in frames:
                writer.write(cv2.resize(frame, (width, height), None, 0, 0, cv2.INTER_AREA), time)
        return made.read_bytes(), (height, width)
