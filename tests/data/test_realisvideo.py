"""Datasets of TFDS: read without it, from bytes that stand here, and made by it where it is."""

import hashlib
import importlib
import importlib.util
import json
import pickle
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax.data import shards
from realisvsr_jax.data.sources import index_clips
from realisvsr_jax.data.tfds_source import parse_example
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import read_video, write_video

FOOTAGE = Path(__file__).parent.parent / "footage"
NAMES = ("mouse", "squirrel")

needs_tfds = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is None,
    reason="tensorflow-datasets is not installed; the rest reads what it would have written",
)


def varint(number):
    low = [number >> shift & 0x7F for shift in range(0, 64, 7) if not shift or number >> shift]
    return bytes([byte | 0x80 for byte in low[:-1]] + low[-1:])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features):
    """A serialized tf.train.Example, of bytes and of numbers."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        else:
            feature = field(3, field(1, varint(value)))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def video_example(path):
    video = path.read_bytes()
    digest = hashlib.sha256(video).hexdigest().encode()
    return example({"frames": 16, "video": video, "sha256": digest, "name": path.name.encode()})


@pytest.fixture
def dataset(tmp_path):
    """What TFDS writes of two videos in two shards."""
    folder = tmp_path / "realis_video" / "4k" / "1.0.0"
    folder.mkdir(parents=True)
    rows = []
    for k, name in enumerate(NAMES):
        path = FOOTAGE / f"{name}.mp4"
        shard = folder / f"realis_video-train.array_record-{k:05}-of-00002"
        shards.write_shard(shard, [video_example(path)])
        width = 128 + 32 * k
        rows.append([path.name, path.with_suffix(".txt").read_text().strip(), 16, 128, width])
    split = {"name": "train", "shardLengths": ["1", "1"], "numBytes": "24765"}
    info = {"name": "realis_video", "fileFormat": "array_record", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text("{}")
    (folder / "metadata.json").write_text(json.dumps({"clips": {"train": rows}}))
    return folder


def test_an_example_is_understood_byte_by_byte():
    features = {"a": b"\x00\xff", "long": bytes(300), "zero": 0, "n": 300, "é": b""}
    assert parse_example(example(features)) == {key: [value] for key, value in features.items()}
    packed = field(3, field(1, varint(1) + varint(300) + varint(7)))
    strings = field(1, field(1, b"a") + field(1, b"bc"))
    entries = (field(1, b"ids") + field(2, packed), field(1, b"name") + field(2, strings))
    given = field(1, b"".join(field(1, entry) for entry in entries))
    assert parse_example(given) == {"ids": [1, 300, 7], "name": [b"a", b"bc"]}
    assert parse_example(b"") == {}
    # As TFDS wrote it.
    assert parse_example(b"\n\x11\n\x0f\n\x06frames\x12\x05\x1a\x03\n\x01\x10") == {"frames": [16]}
    floats = field(1, field(1, field(1, b"f") + field(2, field(2, b"\0\0\0\0"))))
    for bad in (given[:-1], floats, b"\x0d\0\0\0\0", b"\x80"):
        with pytest.raises(ValueError, match=r"the message ends early|a list of kind|wire type"):
            parse_example(bad)


def test_a_dataset_is_read_without_tfds(dataset, monkeypatch):
    for name in ("tensorflow", "tensorflow_datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    clips = index_clips([dataset])
    assert [clip.path for clip in clips] == [dataset / f"{name}.mp4" for name in NAMES]
    assert [clip.caption for clip in clips] == [
        "a chinchilla beside a rock",
        "a red squirrel in front of a burrow",
    ]
    assert [(clip.num_frames, clip.height, clip.width) for clip in clips] == [
        (16, 128, 128),
        (16, 128, 160),
    ]
    for clip, name in zip(pickle.loads(pickle.dumps(clips)), NAMES):
        whole = read_video(FOOTAGE / f"{name}.mp4").frames
        np.testing.assert_array_equal(clip.read(9, 4), whole[9:13])
    with pytest.raises(InputError, match=r"mouse\.mp4 has 16 frames; 4 from 14 on are too many"):
        clips[0].read(14, 4)


def test_damaged_shards_are_said_and_the_rest_is_read(dataset, caplog):
    first, second = sorted(dataset.glob("*array_record*"))
    whole = first.read_bytes()
    first.write_bytes(whole[:5000])
    assert [clip.path.name for clip in index_clips([dataset])] == ["squirrel.mp4"]
    assert f"{first} is missing or damaged: 1 of its 1 clips are lost" in caplog.text
    first.unlink()
    assert [clip.path.name for clip in index_clips([dataset])] == ["squirrel.mp4"]
    second.unlink()
    with pytest.raises(InputError, match=r"no readable clip in .*1\.0\.0 \(2 tried\)"):
        index_clips([dataset])


def test_an_example_that_is_another_than_was_written(dataset):
    (clip, _) = index_clips([dataset])
    shard = next(iter(sorted(dataset.glob("*array_record*"))))
    good = video_example(FOOTAGE / "mouse.mp4")
    for record, message in (
        (good.replace(b"ftyp", b"ftyq"), r"mouse\.mp4: the checksum does not match; copy the"),
        (good[:-3], r"-00000-of-00002: record 0 is no example of this dataset; prepare"),
        (example({"image": b"x"}), r"record 0 is no example of this dataset; prepare"),
    ):
        shard.unlink()
        shards.write_shard(shard, [record])
        with pytest.raises(InputError, match=message):
            clip.read(0, 1)
    shard.write_bytes(b"x" * 70_000)
    with pytest.raises(InputError, match=r"record 0 is damaged; copy the shard again"):
        clip.read(0, 1)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dataset_info", {"fileFormat": "tfrecord"}, r"is stored as tfrecord; prepare it with"),
        ("dataset_info", {"splits": []}, r"1\.0\.0 has no split 'train'; name one that has"),
        ("dataset_info", {"splits": 3}, r"dataset_info\.json is damaged; prepare the dataset"),
        ("metadata", {"clips": {}}, r"metadata\.json does not say the sizes of the clips of"),
        ("metadata", {"clips": {"train": [["a", "b", 1]]}}, r"does not say the sizes of the clips"),
        ("metadata", {"clips": {"train": []}}, r"has 2 examples, metadata\.json says 0; prepare"),
    ],
)
def test_datasets_that_cannot_serve_are_one_clear_line(dataset, name, change, message):
    path = dataset / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        index_clips([dataset])


def test_without_tfds_preparing_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "realisvsr_jax.data.realisvideo", raising=False)
    with pytest.raises(InputError, match="takes tensorflow-datasets: pip install tensorflow-data"):
        importlib.import_module("realisvsr_jax.data.realisvideo")


@pytest.fixture
def videos(tmp_path):
    """A training video of 1440×1920 and one that is too small for 720P; one held out."""
    folder = tmp_path / "videos"
    (folder / "test").mkdir(parents=True)
    (folder / "train" / "day").mkdir(parents=True)
    field = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), np.uint8)
    frames = np.stack([cv2.resize(f, (1920, 1440), interpolation=cv2.INTER_CUBIC) for f in field])
    path = folder / "train" / "day" / "one.mkv"
    write_video(path, frames, Fraction(24), lossless=True)
    path.with_suffix(".txt").write_text("noise é", encoding="utf-8")
    for name in ("train/bad.mp4", "test/held.mp4"):
        (folder / name).write_bytes((FOOTAGE / "mouse.mp4").read_bytes())
    (folder / "train" / "bad.mp4").write_text("not a video")
    return folder, frames


@needs_tfds
def test_the_files_as_they_are(videos, tmp_path, caplog):
    from realisvsr_jax.data.realisvideo import prepare

    folder, _ = videos
    made = prepare("4k", folder, tmp_path / "tfds")
    assert made == tmp_path / "tfds" / "realis_video" / "4k" / "1.0.0"
    (clip,) = index_clips([made])
    path = folder / "train" / "day" / "one.mkv"
    assert (clip.path, clip.caption) == (made / "day" / "one.mkv", "noise é")
    assert (clip.num_frames, clip.height, clip.width) == (3, 1440, 1920)
    np.testing.assert_array_equal(clip.read(1, 2), read_video(path, 1, 2).frames)
    assert "bad.mp4 is not a video" in caplog.text
    record = shards.read_record(clip.shard, clip.position)
    assert parse_example(record)["video"] == [path.read_bytes()]
    assert "tensorflow" not in sys.modules
    assert set(json.loads((made / "metadata.json").read_text())["clips"]) == {"train", "test"}


@needs_tfds
def test_the_twin_is_averaged_over_areas(videos, tmp_path):
    from realisvsr_jax.data.realisvideo import prepare

    folder, frames = videos
    (folder / "test" / "held.mp4").unlink()
    (folder / "test").rmdir()
    (clip,) = index_clips([prepare("720p", folder, tmp_path / "tfds")])
    assert (clip.num_frames, clip.height, clip.width) == (3, 720, 960)
    areas = frames.reshape(3, 720, 2, 960, 2, 3).mean((2, 4))
    assert np.abs(clip.read(0, 3) - areas).max() <= 0.5
    with pytest.raises(InputError, match="nowhere is no folder; name one with the videos"):
        prepare("4k", tmp_path / "nowhere", tmp_path / "tfds")
    small = tmp_path / "small"
    small.mkdir()
    (small / "a.mp4").write_bytes((FOOTAGE / "mouse.mp4").read_bytes())
    with pytest.raises(InputError, match="has no video that can be read; name the videos' folder"):
        prepare("720p", small, tmp_path / "none")
