"""Records read as the files are that they were packed from, and what happens to damaged ones."""

import dataclasses
import json
import logging
import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax.data import records, shards
from realisvsr_jax.data.packing import Options, pack
from realisvsr_jax.data.pipeline import DataConfig, PairMaker, make_batches
from realisvsr_jax.data.precomputed import make_shards, open_shards
from realisvsr_jax.data.records import read_pictures
from realisvsr_jax.data.sources import index_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import read_video

FOOTAGE = Path(__file__).parent.parent / "footage"
CONFIG = DataConfig(
    sources=(str(FOOTAGE),), buckets=((5, 96, 96), (1, 96, 128)), batch_size=2, seed=4
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The footage, a clip a shard: mouse, seeds (pictures), squirrel."""
    folder = tmp_path_factory.mktemp("packed") / "records"
    pack(FOOTAGE, folder, Options(clips=1))
    return folder


@pytest.fixture
def copied(packed, tmp_path):
    """Records of the test's own."""
    return Path(shutil.copytree(packed, tmp_path / "records"))


def same(a: dict, b: dict) -> bool:
    return a["caption"] == b["caption"] and all(
        np.array_equal(a[name], b[name]) for name in ("gt", "lq", "index")
    )


def from_records(config: DataConfig, folder: Path) -> DataConfig:
    return dataclasses.replace(config, sources=(str(folder),))


def test_clips_are_those_of_the_folder(packed):
    files, found = index_clips([FOOTAGE]), index_clips([packed])
    for file, clip in zip(files, found, strict=True):
        for name in ("num_frames", "height", "width", "caption"):
            assert getattr(clip, name) == getattr(file, name)
        assert clip.path.name == file.path.name
        assert clip.path.parent.name.endswith(".array_record")
        np.testing.assert_array_equal(clip.read(3, 2), file.read(3, 2))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "ts", "mpg", "webm"])
def test_crops_are_those_of_the_file_bit_for_bit(kind, tmp_path):
    path = tmp_path / "videos" / f"clip.{kind}"
    path.parent.mkdir()
    whole = read_video(FOOTAGE / "squirrel.mp4")
    codec = {"mpg": "mpeg2video", "avi": "mpeg4", "webm": "libvpx-vp9"}.get(kind, "libx264")
    write(path, whole.frames, codec)
    pack(path.parent, tmp_path / "records")
    (file,), (clip,) = index_clips([path.parent]), index_clips([tmp_path / "records"])
    assert clip.num_frames == file.num_frames == 16
    for start in (0, 5, 13):
        np.testing.assert_array_equal(clip.read(start, 3), file.read(start, 3))
    for reader in (clip, file):
        with pytest.raises(InputError, match=rf"clip\.{kind} has 16 frames; 3 from 14 on are too"):
            reader.read(14, 3)


def write(path, frames, codec):
    """A video with a keyframe in the middle."""
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream(codec, Fraction(25), {"g": "8"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def test_training_is_given_the_same_batches_and_goes_on_exactly(packed):
    whole = list(make_batches(CONFIG, num_steps=6))
    config = from_records(CONFIG, packed)
    for batch, wanted in zip(make_batches(config, num_steps=6), whole, strict=True):
        assert same(batch, wanted)
        assert not any(batch["replaced"])
    workers = dataclasses.replace(config, workers=1)
    resumed = make_batches(workers, start_step=3, num_steps=3)
    for batch, wanted in zip(resumed, whole[3:], strict=True):
        assert same(batch, wanted)
        assert all(".array_record/" in name for name in batch["clip"])


def test_pairs_made_ahead_are_the_same(packed, tmp_path):
    config = dataclasses.replace(CONFIG, buckets=((3, 96, 96),))
    make_shards(tmp_path / "files", config, 4, 4)
    make_shards(tmp_path / "records", from_records(config, packed), 4, 4)
    (wanted,), (found,) = open_shards(tmp_path / "files"), open_shards(tmp_path / "records")
    for name in ("gt", "lq"):
        np.testing.assert_array_equal(found[name], wanted[name])


def test_a_worker_process_is_handed_next_to_nothing(packed):
    clips = index_clips([packed])
    text = pickle.dumps(clips * 100)
    assert len(text) < 3000
    for clip, again in zip(clips * 100, pickle.loads(text), strict=True):
        assert (again.path, again.caption) == (clip.path, clip.caption)
    np.testing.assert_array_equal(pickle.loads(text)[1].read(2, 3), clips[1].read(2, 3))


def test_names_and_captions_of_any_script(tmp_path):
    names = ["плёнка.mp4", b"caf\xe9.mp4".decode("utf-8", "surrogateescape")]
    clips = [
        {"name": name, "caption": "鼠 " * k, "sha256": f"{k:064x}"}
        | {"frames": k + 1, "height": 2, "width": 3}
        for k, name in enumerate(names)
    ]
    shards.write_shard(
        tmp_path / "a.array_record", (records.pack_record(clip, b"") for clip in clips)
    )
    size = (tmp_path / "a.array_record").stat().st_size
    shard = {"name": "a.array_record", "clips": 2, "bytes": size}
    manifest = {"format": records.FORMAT, "shards": [shard]}
    (tmp_path / "records.json").write_text(json.dumps(manifest))
    records.write_index(tmp_path, clips)
    found = index_clips([tmp_path])
    assert [clip.path.name for clip in found] == names
    assert [clip.caption for clip in found] == ["", "鼠 "]
    assert [clip.num_frames for clip in found] == [1, 2]


def test_records_in_front_of_a_cut_are_read(tmp_path):
    """Wherever a file of nine records ends, in blocks of 64 KiB of the format or between."""
    rng = np.random.default_rng(0)
    wanted = [rng.bytes(n) for n in (10, 0, 70_000, 3, 131_000, 65_400, 65_536, 1, 9000)]
    path, cut = tmp_path / "whole", tmp_path / "cut"
    shards.write_shard(path, wanted)
    data = path.read_bytes()
    assert shards.count_records(path) == 9
    assert [shards.read_record(path, k) for k in range(9)] == wanted
    counts = []
    for end in [*range(0, len(data), 4999), 65_536, 65_560, len(data) - 1]:
        cut.write_bytes(data[:end])
        counts.append(min(shards.count_records(cut), 9))
        assert [shards.read_record(cut, k) for k in range(counts[-1])] == wanted[: counts[-1]]
        # What the bytes in front of the cut can hold is found.
        held = sum(np.cumsum([len(record) + 50 for record in wanted]) + 2000 < end)
        assert counts[-1] >= held
    assert counts[0] == 0
    assert counts[-1] == 9
    cut.write_bytes(data[:200_000])
    with pytest.raises(InputError, match="record 7 is damaged; copy the shard again"):
        shards.read_record(cut, 7)


def test_a_shard_that_is_cut_short_loses_what_is_behind_the_cut(tmp_path, caplog):
    pack(FOOTAGE, tmp_path)
    (shard,) = tmp_path.glob("*.array_record")
    wanted = index_clips([FOOTAGE])
    size = shard.stat().st_size
    # The first clip is whole in 20 of 131 KB, the second one (of 30 KB) is not.
    with shard.open("r+b") as file:
        file.truncate(20_000)
    (clip,) = index_clips([tmp_path])
    assert caplog.messages == [
        f"left out of the data: {shard} is cut short at 20,000 of {size:,} bytes: "
        "2 of its 3 clips are lost; copy the shard again"
    ]
    assert clip.caption == wanted[0].caption
    np.testing.assert_array_equal(clip.read(2, 5), wanted[0].read(2, 5))


def test_missing_and_foreign_shards_are_said_and_the_rest_is_read(copied, caplog):
    names = sorted(path.name for path in copied.glob("*.array_record"))
    (copied / names[0]).unlink()
    with (copied / names[1]).open("ab") as file:
        file.write(b"more")
    assert [clip.path.name for clip in index_clips([copied])] == ["squirrel.mp4"]
    assert f"{names[0]} is missing: 1 of its 1 clips are lost" in caplog.text
    assert f"{names[1]} has 131,076 bytes in place of 131,072: 1 of its 1 clips" in caplog.text
    (copied / names[2]).write_bytes(b"no record")
    with pytest.raises(InputError, match=r"no readable clip in .*records \(3 tried\)"):
        index_clips([copied])


def test_a_damaged_record_is_replaced_by_another_clip(copied):
    clips = index_clips([copied])
    bad = clips[0].path.parent
    data = bytearray(bad.read_bytes())
    data[9000] ^= 1
    bad.write_bytes(data)
    with pytest.raises(InputError, match=r"record 0 is damaged; copy the shard again"):
        clips[0].read(0, 2)
    bad.write_bytes(b"x" * len(data))  # nothing of the format in it
    with pytest.raises(InputError, match=r"record 0 is damaged; copy the shard again"):
        clips[0].read(0, 2)
    maker = PairMaker(dataclasses.replace(CONFIG, buckets=((5, 96, 96),)), clips)
    pairs = [maker(index) for index in range(3)]
    assert any("record 0 is damaged" in reason for pair in pairs for reason in pair["replaced"])
    assert not any("mouse" in pair["clip"] for pair in pairs)


def test_a_record_that_is_another_than_the_index_says(copied):
    clips = index_clips([copied])
    first, _, last = sorted(copied.glob("*.array_record"))
    shutil.copy(last, first)  # of the same size
    with pytest.raises(InputError, match=r"mouse\.mp4: the checksum does not match; copy"):
        clips[0].read(0, 2)
    first.unlink()
    with pytest.raises(InputError, match=r"array_record: no such file; copy the shard again"):
        clips[0].read(0, 2)


def test_an_unfinished_packing_is_one_clear_line(copied):
    (copied / "records.json").unlink()
    with pytest.raises(InputError, match=r"has records but no records\.json: packing did not end"):
        index_clips([copied])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"records\.json is damaged; copy it again"),
        ("[]", r"records\.json is damaged; copy it again"),
        ('{"format": 1, "shards": [{"name": "a"}]}', r"records\.json is damaged"),
        ('{"format": 2}', r"is of format 2, this version reads 1; take the version"),
    ],
)
def test_a_manifest_that_is_not_understood(copied, content, message):
    (copied / "records.json").write_text(content)
    with pytest.raises(InputError, match=message):
        index_clips([copied])


def test_an_index_that_does_not_fit(copied, packed):
    index = copied / "index.safetensors"
    manifest = records.read_manifest(packed)
    (copied / "records.json").write_text(json.dumps(manifest | {"shards": manifest["shards"][:2]}))
    with pytest.raises(InputError, match=r"is of 3 clips, records\.json of 2; copy both again"):
        index_clips([copied])
    (copied / "records.json").write_text(json.dumps(manifest))
    for damage in (b"", index.read_bytes()[:100], b"x" * 400):
        index.write_bytes(damage)
        with pytest.raises(InputError, match="is missing or damaged; copy it again or pack anew"):
            index_clips([copied])
    index.unlink()
    with pytest.raises(InputError, match="is missing or damaged; copy it again or pack anew"):
        index_clips([copied])


def test_pictures_that_cannot_be_read():
    large, small = (
        cv2.imencode(".png", np.full((side, 8, 3), 9, np.uint8))[1].tobytes() for side in (8, 6)
    )
    pictures = [("0.png", len(large)), ("1.png", len(small)), ("2.png", 3)]
    payload = large + small + b"bad"
    assert read_pictures(Path("clip"), pictures, payload, 0, 1).shape == (1, 8, 8, 3)
    for start, count, message in (
        (0, 2, "clip: 1.png has another size than the one before"),
        (2, 1, "clip/2.png is not a picture that can be read"),
        (1, 3, "clip has 3 frames; 3 from 1 on are too many"),
    ):
        with pytest.raises(InputError, match=message):
            read_pictures(Path("clip"), pictures, payload, start, count)


def test_a_video_in_memory_that_is_none():
    from realisvsr_jax.video.reading import Encoded, count_frames, read_clip

    with pytest.raises(InputError, match="film is not a video that FFmpeg can read"):
        read_clip(Encoded("film", b"not a video"), 0, 1)
    assert count_frames(Encoded("film", (FOOTAGE / "mouse.mp4").read_bytes())) == 16


def test_clips_smaller_than_the_bucket_are_counted(packed, caplog):
    caplog.set_level(logging.INFO)
    config = dataclasses.replace(from_records(CONFIG, packed), buckets=((8, 96, 160),))
    batch = next(make_batches(config, num_steps=1))
    assert set(batch["caption"]) == {"a red squirrel in front of a burrow"}
    assert "2 of 3 clips are smaller" in caplog.text
