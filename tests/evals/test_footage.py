"""What belongs together is found, and what cannot be compared stops with both numbers."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.footage import frames_of, look, matched, pair
from realisvsr_jax.resize import bicubic
from realisvsr_jax.video import write_video
from realisvsr_jax.video.folders import write_picture


def clip(frames=3, height=32, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def folder(path, frames):
    path.mkdir(parents=True)
    for k, frame in enumerate(frames):
        write_picture(path / f"{k:03}.png", frame)
    return path


@pytest.mark.parametrize(
    ("name", "options", "lossy"),
    [
        ("a.mkv", {"lossless": True}, ""),
        ("a.mp4", {"lossless": True}, ""),
        ("b.mp4", {}, "H.264 yuv420p"),
    ],
)
def test_a_lossy_video_is_known(tmp_path, name, options, lossy):
    write_video(tmp_path / name, clip(), **options)
    found = look(tmp_path / name)
    assert (found.frames, found.size, found.deep, found.lossy) == (3, (32, 48), False, lossy)


def test_a_folder_of_jpegs_is_lossy_and_one_of_pngs_is_not(tmp_path):
    assert look(folder(tmp_path / "png", clip())).lossy == ""
    (tmp_path / "jpg").mkdir()
    cv2.imwrite(str(tmp_path / "jpg" / "0.jpg"), clip()[0])
    assert look(tmp_path / "jpg").lossy == "JPG"


def test_clips_are_matched_by_name_across_kinds(tmp_path):
    (tmp_path / "gt").mkdir()
    write_video(tmp_path / "gt" / "x.mkv", clip(), lossless=True)
    folder(tmp_path / "ours" / "x", clip())
    systems, truth = matched({"ours": tmp_path / "ours"}, tmp_path / "gt")
    assert systems == {"ours": {"x": tmp_path / "ours" / "x"}}
    assert truth == {"x": tmp_path / "gt" / "x.mkv"}


def test_missing_and_extra_clips_stop_with_their_names(tmp_path):
    for name in ("a", "b", "c"):
        folder(tmp_path / "gt" / name, clip(1))
    for name in ("a", "d"):
        folder(tmp_path / "ours" / name, clip(1))
    with pytest.raises(InputError) as raised:
        matched({"ours": tmp_path / "ours"}, tmp_path / "gt")
    assert "ours (2 clips)" in str(raised.value)
    assert "the first lacks b, c and has also d" in str(raised.value)
    systems, _ = matched({"ours": tmp_path / "ours"}, tmp_path / "gt", only=("a",))
    assert list(systems["ours"]) == ["a"]
    with pytest.raises(InputError, match="has no clip 'z'; it has a, b, c"):
        matched({"ours": tmp_path / "ours"}, tmp_path / "gt", only=("z",))


def test_an_empty_set_stops(tmp_path):
    folder(tmp_path / "gt" / "a", clip(1))
    (tmp_path / "ours").mkdir()
    with pytest.raises(InputError, match="ours has no clips"):
        matched({"ours": tmp_path / "ours"}, tmp_path / "gt")


def test_lengths_and_sizes_that_differ_stop_with_both(tmp_path):
    truth = look(folder(tmp_path / "gt", clip(3)))
    shorter = look(folder(tmp_path / "short", clip(2)))
    with pytest.raises(InputError, match=r"short has 2 frames, .*gt has 3"):
        pair("x", shorter, truth)
    half = look(folder(tmp_path / "half", clip(3, 16, 24)))
    with pytest.raises(InputError, match=r"half is 24×16, .*gt is 48×32.*--upscale_bicubic"):
        pair("x", half, truth)
    assert pair("x", half, truth, enlarge=True).enlarged
    for name, height, width in (("larger", 64, 96), ("wider", 16, 40)):
        other = look(folder(tmp_path / name, clip(3, height, width)))
        with pytest.raises(InputError, match=f"{name} is {width}×{height}.*compared$"):
            pair("x", other, truth, enlarge=True)


def test_the_reference_is_cropped_to_multiples_on_request(tmp_path):
    frames = clip(2, 35, 50)
    path = folder(tmp_path / "gt", frames)
    restored = look(folder(tmp_path / "ours", frames[:, :32, :48]))
    with pytest.raises(InputError, match=r"ours is 48×32, .*gt is 50×35; .*; --mod_crop 4 crops"):
        pair("x", restored, look(path))
    truth = look(path, 4)
    assert truth.size == (32, 48)
    assert truth.cropped
    assert truth.version != look(path).version
    for ours, reference in frames_of(pair("x", restored, truth)):
        np.testing.assert_array_equal(ours, reference)
    assert look(folder(tmp_path / "even", clip()), 4) == look(tmp_path / "even")
    with pytest.raises(InputError, match=r"gt is 50×35, smaller than --mod_crop 40"):
        look(path, 40)


def test_bicubic_is_the_projects_own(tmp_path):
    small = clip(2, 16, 24)
    truth = look(folder(tmp_path / "gt", clip(2)))
    found = list(frames_of(pair("x", look(folder(tmp_path / "small", small)), truth, enlarge=True)))
    expected = bicubic(jnp.asarray(small[None], jnp.float32) / 127.5 - 1, 32, 48)[0]
    expected = np.clip(np.asarray(expected), -1, 1) * 127.5 + 127.5
    assert found[0][0].dtype == np.uint8
    assert np.abs(np.stack([r for r, _ in found]) - expected).max() < 0.51


def test_an_unreadable_frame_is_named(tmp_path):
    path = folder(tmp_path / "a", clip())
    (path / "001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"001\.png is not a picture"):
        list(frames_of(pair("a", look(path), None)))


def test_16_bits_are_scored_as_such(tmp_path):
    plain = clip() // 2
    deep = plain.astype(np.uint16) * 257 + 64
    truth, restored = look(folder(tmp_path / "gt", plain)), look(folder(tmp_path / "a", deep))
    assert restored.deep
    for a, b in frames_of(pair("a", restored, truth)):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose((a - b) * 32767.5, 64, atol=0.02)


def test_8_bit_values_in_16_bit_files_are_refused(tmp_path):
    path = folder(tmp_path / "a", clip().astype(np.uint16))
    with pytest.raises(InputError, match="16 bits with no value above 255: 8-bit values"):
        list(frames_of(pair("a", look(path), None)))


def test_a_version_changes_with_the_files(tmp_path):
    path = folder(tmp_path / "a", clip())
    before = look(path).version
    assert look(path).version == before
    write_picture(path / "001.png", clip(seed=1)[0])
    assert look(path).version != before
