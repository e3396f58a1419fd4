"""Datasets that TFDS prepared as ArrayRecord, read with neither TFDS nor TensorFlow.

Those of `realisvsr_jax.data.realisvideo`: an example is an encoded video with its name and
caption, and `metadata.json` has the sizes of all, so that no example is read to index them.
"""

import hashlib
import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.data import shards
from realisvsr_jax.data.clips import SourceClip
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import read_clip
from realisvsr_jax.video.reading import Encoded

log = logging.getLogger(__name__)

SPLIT = "train"
_VARINT, _BYTES = 0, 2  # wire types of protocol buffers


def holds_dataset(folder: Path) -> bool:
    """Whether TFDS prepared this folder."""
    return (folder / "dataset_info.json").is_file() and (folder / "features.json").is_file()


def index_dataset(folder: Path) -> tuple[list[SourceClip], int]:
    """The clips of the split `train` that can be read, and how many there should be.

    Shards that are missing or cut off are named in the log with what is lost. Raises InputError
    for another storage format and where the dataset does not say the clips' sizes.
    """
    files = _files(folder)
    rows = _rows(folder)
    total = sum(length for _, length in files)
    if total != len(rows):
        raise InputError(
            f"data.sources: {folder} has {total} examples, metadata.json says {len(rows)}; "
            "prepare the dataset again"
        )
    clips: list[SourceClip] = []
    left = iter(rows)
    for path, length in files:
        count = min(shards.count_records(path), length)
        if count < length:
            log.warning(
                "left out of the data: %s is missing or damaged: %d of its %d clips are lost; "
                "copy the shard again",
                *(path, length - count, length),
            )
        for position, row in enumerate(itertools.islice(left, length)):
            if position < count:
                name, caption, frames, height, width = row
                sizes = (frames, height, width)
                clips.append(TfdsClip(folder / name, *sizes, caption, path, position))
    return clips, total


def _files(folder: Path) -> list[tuple[Path, int]]:
    """The shards of the split, and how many examples each has."""
    path = folder / "dataset_info.json"
    try:
        info = json.loads(path.read_text())
        name, kind = info["name"], info["fileFormat"]
        splits = {split["name"]: split["shardLengths"] for split in info["splits"]}
        lengths = [int(length) for length in splits.get(SPLIT, ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"data.sources: {path} is damaged; prepare the dataset again") from error
    if kind != "array_record":
        raise InputError(
            f"data.sources: {folder} is stored as {kind}; prepare it with file_format=array_record"
        )
    if not lengths:
        raise InputError(f"data.sources: {folder} has no split {SPLIT!r}; name one that has")
    stem = f"{name}-{SPLIT}.{kind}"
    return [
        (folder / f"{stem}-{k:05}-of-{len(lengths):05}", length) for k, length in enumerate(lengths)
    ]


def _rows(folder: Path) -> list[tuple[str, str, int, int, int]]:
    """Name, caption, frames, height and width of each clip of the split."""
    path = folder / "metadata.json"
    try:
        rows = json.loads(path.read_text())["clips"][SPLIT]
        return [(str(a), str(b), int(t), int(h), int(w)) for a, b, t, h, w in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"data.sources: {path} does not say the sizes of the clips of split {SPLIT!r}; "
            "data.sources reads what realisvsr_jax.data.realisvideo prepares"
        ) from error


@dataclass(frozen=True, slots=True)
class TfdsClip(SourceClip):
    """A clip that is an example of a dataset; its path is the dataset's with the clip's name."""

    shard: Path = Path()
    position: int = 0

    def read(self, start: int, frames: int) -> np.ndarray:
        """As SourceClip's; of the clip's bytes the hash is checked each time."""
        try:
            example = parse_example(shards.read_record(self.shard, self.position))
            (video,), (digest,) = example["video"], example["sha256"]
        except (KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.shard}: record {self.position} is no example of this dataset; "
                "prepare the dataset again"
            ) from error
        if hashlib.sha256(video).hexdigest().encode() != digest:
            raise InputError(f"{self.path}: the checksum does not match; copy the shard again")
        return read_clip(Encoded(str(self.path), video), start, frames).frames


def parse_example(data: bytes) -> dict[str, list[Any]]:
    """The features of a serialized `tf.train.Example`: lists of bytes, or of ints ≥ 0.

    Raises ValueError for what is none, and for a list of floats.
    """
    features: dict[str, list[Any]] = {}
    for _, group in _fields(memoryview(data)):
        for _, entry in _fields(group):
            parts = dict(_fields(entry))
            features[str(parts[1], "utf-8")] = [
                value for kind, values in _fields(parts[2]) for value in _values(kind, values)
            ]
    return features


def _values(kind: int, values: Any) -> Iterator[Any]:
    """The elements of a BytesList (1) or an Int64List (3)."""
    if kind not in (1, 3):
        raise ValueError(f"a list of kind {kind}")
    for _, value in _fields(values):
        if kind == 1:
            yield bytes(value)
        elif isinstance(value, int):
            yield value
        else:  # packed
            place = 0
            while place < len(value):
                number, place = _varint(value, place)
                yield number


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Number and content of each field of a message: an int, or a part of `data`."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        value, place = _varint(data, place)
        if tag & 7 == _BYTES:
            length, value = value, data[place : place + value]
            if len(value) < length:
                raise ValueError("the message ends early")
            place += length
        elif tag & 7 != _VARINT:
            raise ValueError(f"a field of wire type {tag & 7}")
        yield tag >> 3, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = shift = 0
    while place < len(data):
        byte = data[place]
        number |= (byte & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if byte < 0x80:
            return number, place
    raise ValueError("the message ends early")
