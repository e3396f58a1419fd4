"""The restorer: exact sizes, kinds, determinism, one compilation, and each bad input."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import fast_jit

import realisvsr_jax
from realisvsr_jax.errors import InputError
from realisvsr_jax.resize import bicubic
from realisvsr_jax.sampling import restore
from realisvsr_jax.sampling.frames import check_frames, check_size, pad, plan_geometry
from realisvsr_jax.sampling.restore import load
from realisvsr_jax.sampling.solvers import solve
from realisvsr_jax.sampling.windows import chunks
from realisvsr_jax.vae.wan_vae import TINY_VAE, WAN_VAE
from realisvsr_jax.weights.release import Release, load_release, save_release

# Most clips become 16×24 pixels for the networks, so that these are compiled but once.


@pytest.fixture(scope="module")
def model(tiny_release):
    restorer = load(tiny_release)
    fast = {"compiler_options": {"xla_backend_optimization_level": 0}}
    restorer._encode = jax.jit(restorer._encode_chunk, **fast)
    restorer._decode = jax.jit(restorer._decode_chunk, **fast)
    names = ("tiling", "batch", "fusing")
    restorer._sample = jax.jit(restorer._sample_latent, static_argnames=names, **fast)
    return restorer


def test_the_vaes_precision_may_be_another_than_the_weights_say(tiny_release):
    released, asked = load(tiny_release), load(tiny_release, vae_precision="high")
    assert (released.card.vae.precision, asked.card.vae.precision) == ("highest", "high")
    assert asked.vae.config == asked.card.vae
    for ours, theirs in zip(jax.tree.leaves(asked._vae), jax.tree.leaves(released._vae)):
        np.testing.assert_array_equal(ours, theirs)
    assert asked.vae.decoder.conv_out.lowering.precision == "high"


def clip(frames=4, height=7, width=9, seed=0):
    """Smooth uint8 frames with some noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, width)[:, None] + np.zeros((frames, height, 1, 3))
    ramp += 5 * np.arange(frames)[:, None, None, None]
    return np.uint8(ramp + rng.uniform(0, 15, ramp.shape))


@pytest.mark.parametrize(
    ("shape", "scale", "size"),
    [
        ((1, 4, 6), 4, (16, 24)),
        ((2, 3, 5), 4, (12, 20)),
        ((4, 7, 9), 2.2, (15, 20)),
        ((5, 11, 19), 1, (11, 19)),
        ((5, 1, 2), 12, (12, 24)),
    ],
)
def test_size_and_frame_count_are_exact(model, shape, scale, size):
    restored = model.restore(clip(*shape), scale, steps=2)
    assert restored.shape == (shape[0], *size, 3)
    assert restored.dtype == np.uint8


def test_floats_come_back_as_floats_and_agree_with_bytes(model):
    frames = clip()
    for dtype in (np.float16, np.float32, np.float64):
        floats = (frames / 127.5 - 1).clip(-1, 1).astype(dtype)
        restored = model.restore(floats, 2, steps=2)
        assert restored.dtype == dtype
        assert np.abs(restored).max() <= 1
        expected = model.restore(frames, 2, steps=2) / 127.5 - 1
        # Half a byte, and what a network of random weights makes of float16's rounding.
        assert np.abs(restored - expected).mean() < (0.02 if dtype == np.float16 else 0.005)


def test_the_stream_equals_the_whole_clip_by_hand(model, tiny_release):
    """Encode, sample, decode and crop as one would write it down, without chunks."""
    release, frames = load_release(tiny_release), clip(4)

    @fast_jit
    def by_hand(vae, network, video, text):
        video = jnp.concatenate([video, video[:, -1:]], axis=1)
        sides = ((0, 0), (0, 0), (0, 2), (0, 6), (0, 0))
        padded = jnp.pad(bicubic(video, 14, 18), sides, "reflect")
        condition = vae.encode(padded)
        noise = jax.random.normal(jax.random.key(7), condition.shape)

        def velocity(z, timestep):
            return network(z, timestep[None], condition, text)

        sampler = dataclasses.replace(release.card.sampler, steps=2)
        return vae.decode(solve(velocity, noise, sampler))[:, :4, :14, :18]

    video = jnp.asarray(frames, jnp.float32)[None] / 127.5 - 1
    text = jnp.asarray(release.prompts.lookup("sharp"))[None]
    expected = by_hand(release.vae, release.model, video, text)[0]
    floats = np.asarray(video[0])
    ours = model.restore(floats, 2, steps=2, seed=7, color="none", prompt="sharp")
    assert expected.std() > 0.05
    np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_the_seed_decides(model):
    one, again, other = (model.restore(clip(), 2, seed=seed, color="none") for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_options_reach_the_network(model):
    def restored(**options):
        return model.restore(clip(), 2, color="none", **options).astype(int)

    plain = restored()
    np.testing.assert_array_equal(plain, restored(guidance=1.0))
    for options in ({"condition_scale": 0.0}, {"prompt": "sharp"}, {"steps": 1}):
        assert np.abs(plain - restored(**options)).max() > 0
    guided = restored(prompt="sharp", guidance=4.0)
    assert np.abs(guided - restored(prompt="sharp")).max() > 0


def test_guidance_between_equal_prompts_says_that_it_does_nothing(model, caplog):
    plain = model.restore(clip(), 2)
    with caplog.at_level("WARNING", "realisvsr_jax"):
        np.testing.assert_array_equal(plain, model.restore(clip(), 2, guidance=3))
    assert "guidance 3 has no effect: both prompts are ''" in caplog.text


def test_colours_are_those_of_the_input(model):
    frames = clip(4, 8, 12)
    enlarged = np.asarray(bicubic(jnp.asarray(frames, jnp.float32)[None] / 127.5 - 1, 16, 24)[0])
    enlarged = (enlarged + 1) * 127.5

    def off(method):
        restored = model.restore(frames, 2, color=method)
        return np.abs(restored.mean((1, 2)) - enlarged.mean((1, 2))).max()

    assert off("none") > 10
    assert off("wavelet") < off("none") / 3
    assert off("adain") < off("none") / 3


def test_the_same_shape_is_compiled_once(model, caplog):
    model.restore(clip(5), 2, steps=2)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        options = {"seed": 9, "prompt": "sharp", "condition_scale": 0.5}
        model.restore(clip(5, seed=1), 2, steps=2, **options, progress=lambda *_: None)
        assert "ompil" not in caplog.text
        # Another length needs another sampler, but no other VAE.
        model.restore(clip(9), 2, steps=2)
    assert "_sample_latent" in caplog.text
    assert "code_chunk" not in caplog.text


@pytest.mark.parametrize("steps", [1, 2])
def test_progress_counts_steps_and_latent_frames(model, steps):
    ticks = []
    model.restore(clip(), 2, steps=steps, progress=lambda *done: ticks.append(done))
    total = 3 + steps + 3
    assert ticks == [(done, total) for done in range(1, total + 1)]
    model.restore(clip(), 2, steps=steps)
    assert len(ticks) == total


def test_tiles_run_and_a_tile_of_the_clips_size_changes_nothing(model, monkeypatch):
    def tiled(tile, overlap):
        card = dataclasses.replace(model.card, tile=tile, overlap=overlap)
        monkeypatch.setattr(model, "card", card)
        return model.restore(clip(5, 8, 12), 2, color="none")

    whole = tiled(None, (0, 0, 0))
    np.testing.assert_array_equal(tiled((5, 16, 24), (0, 0, 0)), whole)
    parts = tiled((3, 16, 16), (2, 0, 8))
    assert parts.shape == whole.shape
    assert (parts != whole).any()


def test_padding_mirrors_and_repeats_an_edge_that_is_too_short():
    video = jnp.arange(3.0).reshape(1, 1, 1, 3, 1) * jnp.ones((1, 1, 1, 1, 3)) / 4
    np.testing.assert_allclose(pad(video, 2, 5)[0, 0, 0, :, 0] * 4, [0, 1, 2, 1, 0])
    np.testing.assert_allclose(pad(video, 2, 8)[0, 0, 1, :, 0] * 4, [0, 1, 2, 2, 2, 2, 2, 2])


def test_geometry_pads_to_what_vae_and_patch_need():
    geometry = plan_geometry((6, 120, 213, 3), 4.0, WAN_VAE, (1, 2, 2))
    assert geometry.size == (480, 852)
    assert geometry.padded == (480, 864)
    assert geometry.latent == (3, 60, 108)
    assert [list(chunk) for chunk in chunks(range(3), geometry.factor)] == [
        [0],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
    ]
    assert plan_geometry((6, 8, 8, 3), 1.0, TINY_VAE, (3, 2, 2)).latent == (6, 2, 2)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"have the shape \(4, 4, 3\); give \[T, H, W, 3\]"),
        (np.zeros((1, 4, 4, 4), np.uint8), r"have the shape \(1, 4, 4, 4\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"have the shape \(0, 4, 4, 3\)"),
        (np.zeros((1, 4, 4, 3), np.int32), "are int32; give uint8, or floats"),
        (np.full((1, 4, 4, 3), np.nan), "have NaN in them"),
        (np.full((1, 4, 4, 3), -np.inf), "reach from -inf to -inf"),
        (np.linspace(0, 255, 48).reshape(1, 4, 4, 3), "reach from 0 to 255; give floats in"),
        ("clip.mp4", r"have the shape \(\)"),
    ],
)
def test_frames_that_are_none(frames, message):
    with pytest.raises(InputError, match=message):
        check_frames(frames)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.5}, "scale is 0.5; give 1 or more"),
        ({"scale": math.nan}, "scale is nan; give a number"),
        ({"steps": 0}, "steps is 0; give a whole number from 1"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 up to 4294967295"),
        ({"color": "wavlet"}, "colour correction 'wavlet'; did you mean 'wavelet'?"),
        ({"scale": 1e6}, "scale 1e+06 makes 9,000,000 pixels out of a side of 9; a result has at"),
        ({"scale": 1e308}, "out of a side of 9; a result has"),
        ({"guidance": math.inf}, "guidance is inf; give a number"),
        ({"guidance": 0.5}, "guidance is 0.5; give 1 or more (1 is without)"),
        ({"guidance": 0}, "guidance is 0; give 1 or more"),
        ({"negative_prompt": "sharp"}, "the negative prompt 'sharp' needs a guidance above 1"),
        ({"condition_scale": math.nan}, "condition_scale is nan; give a number"),
        ({"prompt": "a cat"}, "no states of the prompt 'a cat'"),
    ],
)
def test_options_out_of_range(model, options, message):
    with pytest.raises(InputError) as error:
        model.restore(clip(1), **options)
    assert message in str(error.value)


def test_the_largest_side_is_the_last_one_that_passes():
    check_size(100, 16_383, 4.0)
    with pytest.raises(InputError, match=r"65,536 pixels .* side of 16,384; .* most 65,535 a side"):
        check_size(16_384, 100, 4.0)


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to allocate 9 bytes."),
        jax.errors.JaxRuntimeError("INTERNAL: Error dispatching: Out of memory allocating 9 bytes"),
        MemoryError("Unable to allocate 9 TiB"),
    ],
)
def test_want_of_memory_is_one_line(model, monkeypatch, error):
    def exhausted(*_):
        raise error

    monkeypatch.setattr(model, "_encode", exhausted)
    with pytest.raises(InputError) as raised:
        model.restore(clip(3, 7, 9), 2)
    assert str(raised.value) == (
        "a result of 3 frames × 14 × 18 pixels needs more memory than there is; restore fewer "
        "--frames at once, or take a smaller --scale"
    )


def test_other_errors_of_jax_stay_what_they_are(model, monkeypatch):
    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(model, "_encode", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        model.restore(clip(1), 2)


def test_the_package_offers_load_and_names_the_shipped_weights(monkeypatch, tmp_path):
    assert realisvsr_jax.load is load
    monkeypatch.setattr("realisvsr_jax.training.networks.shipped_release", lambda: tmp_path / "no")
    with pytest.raises(InputError, match="no weights came with this package; give a RUN or"):
        load()


def test_a_run_folder_gives_its_averaged_weights(tiny_release, tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text("{}")
    loaded = load_release(tiny_release)
    seen = []
    monkeypatch.setattr(
        "realisvsr_jax.training.checkpoint.load_run", lambda path: seen.append(path) or loaded
    )
    assert load(tmp_path).card == loaded.card
    assert seen == [tmp_path]


def test_folders_that_cannot_be_loaded(tiny_release, tmp_path):
    with pytest.raises(InputError, match="missing: no such file or folder"):
        load(tmp_path / "missing")
    (tmp_path / "weights.pth").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"weights\.pth cannot be read"):
        load(tmp_path / "weights.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file with weights .*; name a RUN \(run\.json\)"):
        load(tmp_path / "empty")
    release = load_release(tiny_release)
    alone = Release(dataclasses.replace(release.card, model=None), release.vae)
    save_release(tmp_path / "vae", alone)
    with pytest.raises(InputError, match="vae holds no transformer; name a release that can"):
        load(tmp_path / "vae")


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("dit", "dim", 48, r"tensors of another shape: .* \(32,\), not \(48,\)"),
        ("cpc", "inject_noisy_latent", True, "2 tensors missing: cpc.noisy_patch_embedding.bias"),
        ("dit", "num_heads", 5, "dim 32 does not divide into 5 heads"),
        ("dit", "heads", 2, "unknown setting 'model.dit.heads'; did you mean"),
        ("cpc", "num_blocks", 4, "only 2 would be used; set cpc.num_blocks to 2"),
    ],
)
def test_weights_of_another_configuration(tiny_release, tmp_path, part, key, value, message):
    folder = tmp_path / "other"
    shutil.copytree(tiny_release, folder)
    card = json.loads((folder / "model.json").read_text())
    card["model"][part][key] = value
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=message) as error:
        restore.load(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
