"""The VAE: stream and whole clip, causality, sizes, attention, parameter counts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_networks import drawn, fast_jit, random

from realisvsr_jax.vae import blocks
from realisvsr_jax.vae.blocks import FrameAttention, Norm, ResidualBlock, Upsample
from realisvsr_jax.vae.causal_conv import Lowering
from realisvsr_jax.vae.wan_vae import TINY_VAE, WAN_VAE, VAEConfig, WanVAE

# Wan's chain and TINY's, both narrow; statistics away from 0 and 1.
NARROW = {"base_dim": 4, "z_dim": 3, "mean": (0.1, -0.4, 0.7), "std": (0.5, 1.5, 2.0)}
FEW = {"encoder_blocks": 1, "decoder_blocks": 2, "conv": "native"}
WAN, TINY = (dataclasses.replace(config, **NARROW, **FEW) for config in (WAN_VAE, TINY_VAE))
LAYOUTS = {"wan": WAN, "tiny": TINY}


@functools.cache
def random_vae(layout: str) -> WanVAE:
    return drawn(lambda: WanVAE(LAYOUTS[layout], rngs=nnx.Rngs(0)))


@fast_jit
def encode(vae, video, cache=None):
    return vae.encode_chunk(video, cache)


@fast_jit
def decode(vae, latent, cache=None):
    return vae.decode_chunk(latent, cache)


def clip(config: VAEConfig, frames: int):
    size = (2 * config.spatial_factor, 3 * config.spatial_factor)
    return random(1, frames, *size, 3).clip(-1, 1)


def latent(frames: int):
    return random(1, frames, 2, 3, 3)


def stream(run, vae, x, chunks):
    cache, parts = None, []
    for part in jnp.split(x, np.cumsum(chunks)[:-1], axis=1):
        y, cache = run(vae, part, cache)
        parts.append(y)
    return jnp.concatenate(parts, axis=1)


def relative_error(a, b) -> float:
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


# Few distinct shapes: each is compiled once for all tests of this file.
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunks", [(1,), (1, 4), (1, 8), (5, 4), (1, 4, 4, 8), (9, 8)])
def test_encoding_a_stream_equals_the_whole_clip(layout, chunks):
    vae = random_vae(layout)
    video = clip(vae.config, sum(chunks))
    whole = encode(vae, video)[0]
    assert whole.shape[1] == vae.config.latent_frames(sum(chunks))
    assert relative_error(stream(encode, vae, video, chunks), whole) < 1e-5


def test_encoding_in_a_scan_equals_the_whole_clip():
    vae = random_vae(next(iter(LAYOUTS)))
    video = clip(vae.config, 17)
    whole = encode(vae, video)[0]
    for frames in (4, 8):
        scanned = fast_jit(lambda v, x, frames=frames: v.encode_stream(x, frames))(vae, video)
        assert relative_error(scanned, whole) < 1e-5
    assert relative_error(vae.encode_stream(video[:, :1], 4), whole[:, :1]) < 1e-5
    with pytest.raises(ValueError, match="16 frames after the first do not divide"):
        vae.encode_stream(video, 5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunks", [(1,), (1, 1), (1, 2), (2, 1), (1, 1, 1, 2), (3, 2)])
def test_decoding_a_stream_equals_the_whole_clip(layout, chunks):
    vae = random_vae(layout)
    z = latent(sum(chunks))
    whole = decode(vae, z)[0]
    assert whole.shape[1] == vae.config.video_frames(sum(chunks))
    assert relative_error(stream(decode, vae, z, chunks), whole) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_caches_keep_their_structure_and_shapes_after_the_first_chunk(layout):
    """So that a stream compiles twice, whatever its length."""
    vae = random_vae(layout)
    for run, first, second in (
        (vae.encode_chunk, clip(vae.config, 1), clip(vae.config, 4)),
        (vae.decode_chunk, latent(1), latent(1)),
    ):
        _, cache = jax.eval_shape(lambda x, run=run: run(x, None), first)
        _, after = jax.eval_shape(run, second, cache)
        assert after == cache


@pytest.mark.parametrize("layout", LAYOUTS)
def test_latents_never_depend_on_later_frames(layout):
    vae = random_vae(layout)
    factor = vae.config.temporal_factor
    video = clip(vae.config, 9)
    before = encode(vae, video)[0]
    for t in range(before.shape[1] - 1):
        after = encode(vae, video.at[:, 1 + factor * t :].add(0.5))[0]
        np.testing.assert_array_equal(after[:, : t + 1], before[:, : t + 1])
        assert not np.array_equal(after[:, t + 1], before[:, t + 1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_never_depend_on_later_latents(layout):
    vae = random_vae(layout)
    z = latent(3)
    before = decode(vae, z)[0]
    for t in range(2):
        after = decode(vae, z.at[:, t + 1 :].add(0.5))[0]
        known = vae.config.video_frames(t + 1)
        np.testing.assert_array_equal(after[:, :known], before[:, :known])
        assert not np.array_equal(after[:, known], before[:, known])


def test_the_first_frame_alone_stays_alone_in_the_up_sampler():
    """The frame after it sees zeros, not the first one: Wan2.1's schedule of chunks."""
    up = drawn(lambda: Upsample(4, temporal=True, lowering=Lowering("native"), rngs=nnx.Rngs(0)))
    run = fast_jit(lambda x: up(x))
    x = random(1, 3, 2, 2, 4)
    y, cache = run(x)
    assert y.shape == (1, 5, 4, 4, 2)
    np.testing.assert_array_equal(cache, x[:, 1:])
    other, _ = run(x.at[:, 0].add(1.0))
    np.testing.assert_array_equal(other[:, 1:], y[:, 1:])
    _, cache = run(x[:, :1])
    np.testing.assert_array_equal(cache, np.zeros((1, 2, 2, 2, 4)))


@pytest.mark.parametrize("norm", ["rms", "none"])
def test_attention_joins_all_positions_of_a_frame_and_no_two_frames(norm):
    attention = drawn(lambda: FrameAttention(6, norm=norm, rngs=nnx.Rngs(0)))
    x = random(1, 2, 2, 3, 6)
    gradient = fast_jit(jax.grad(lambda x: attention(x)[0, 1, 0, 0].sum()))(x)
    size = np.abs(gradient).sum(-1)[0]
    assert (size[0] == 0).all()
    assert (size[1] > 1e-4).all()


def test_attention_equals_float64():
    attention = drawn(lambda: FrameAttention(6, norm="rms", rngs=nnx.Rngs(0)), scale=2.0)
    gain, wide, out = (
        np.asarray(p[...], np.float64)
        for p in (attention.norm.gain, attention.qkv.kernel, attention.out.kernel)
    )
    x = random(2, 3, 2, 4, 6)
    tokens = np.asarray(x, np.float64).reshape(6, 8, 6)
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    normed = unit * np.sqrt(6) * gain
    q, k, v = np.split(normed @ wide + np.asarray(attention.qkv.bias[...]), 3, axis=-1)
    weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(6))
    weights /= weights.sum(-1, keepdims=True)
    expected = tokens + weights @ v @ out + np.asarray(attention.out.bias[...])
    np.testing.assert_allclose(
        fast_jit(lambda x: attention(x))(x), expected.reshape(x.shape), atol=2e-5
    )


def test_chunks_of_queries_equal_the_whole(monkeypatch):
    q, k, v = random(3, 2, 22, 5)
    whole = blocks._attend(q, k, v)
    monkeypatch.setattr(blocks, "ATTENTION_CHUNK", 8)
    assert "scan" in str(jax.make_jaxpr(blocks._attend)(q, k, v))
    np.testing.assert_allclose(blocks._attend(q, k, v), whole, atol=1e-6)


def test_groups_of_keys_equal_the_whole_and_no_more_scores_exist_at_a_time(monkeypatch):
    q, k, v = random(3, 2, 22, 5) * np.float32([30, 30, 1])[:, None, None, None]
    whole = blocks._attend(q, k, v)
    monkeypatch.setattr(blocks, "ATTENTION_CHUNK", 8)
    monkeypatch.setattr(blocks, "KEY_CHUNK", 6)
    program = jax.jit(lambda *qkv: blocks._attend(*qkv))
    assert "[2,8,22]" not in str(program.trace(q, k, v).jaxpr)
    assert "[2,8,6]" in str(program.trace(q, k, v).jaxpr)
    np.testing.assert_allclose(program(q, k, v), whole, atol=1e-5)


def test_the_norm_has_unit_mean_square_and_a_finite_gradient_at_zero():
    norm = Norm(5, "rms")
    norm.gain[...] = gain = jnp.arange(1.0, 6.0)
    normed = np.asarray(norm(300 * random(1, 2, 3, 4, 5)))
    np.testing.assert_allclose(((normed / np.asarray(gain)) ** 2).mean(-1), 1.0, rtol=1e-5)
    gradient = fast_jit(jax.grad(lambda x: norm(x).sum()))(jnp.zeros((1, 1, 1, 2, 5)))
    assert np.isfinite(gradient).all()


def test_without_a_norm_a_block_starts_as_its_shortcut():
    x = random(1, 2, 4, 4, 3)
    for norm, same in (("none", True), ("rms", False)):
        block = ResidualBlock(3, 3, norm=norm, lowering=Lowering("native"), rngs=nnx.Rngs(0))
        assert np.array_equal(fast_jit(lambda x, block=block: block(x)[0])(x), x) == same


def test_latents_are_the_normalised_mean_and_decoding_undoes_it():
    vae = random_vae("tiny")
    video, z = clip(TINY, 5), 3 * latent(2)
    mean, log_variance = fast_jit(WanVAE.encode_moments)(vae, video)
    expected = (mean - jnp.asarray(TINY.mean)) / jnp.asarray(TINY.std)
    np.testing.assert_allclose(encode(vae, video)[0], expected, atol=1e-5)
    assert log_variance.shape == mean.shape
    scaled = z * jnp.asarray(TINY.std) + jnp.asarray(TINY.mean)
    raw = fast_jit(WanVAE.decode_raw)(vae, scaled)
    assert jnp.abs(raw).max() > 1
    np.testing.assert_allclose(decode(vae, z)[0], jnp.clip(raw, -1, 1), atol=1e-5)


@pytest.mark.parametrize("config", LAYOUTS.values(), ids=LAYOUTS)
def test_frames_and_latent_frames_are_inverse(config):
    for count in range(1, 6):
        assert config.latent_frames(config.video_frames(count)) == count


def test_no_frame_is_dropped_in_silence():
    vae = random_vae("wan")
    message = r"takes 1 \+ 4k frames, the clip has "
    for run in (vae.encode, vae.encode_moments, lambda video: vae.encode_chunk(video, None)):
        for frames in (0, 2, 8):
            with pytest.raises(ValueError, match=message + str(frames)):
                run(clip(WAN, frames))
    _, cache = jax.eval_shape(lambda video: vae.encode_chunk(video, None), clip(WAN, 1))
    for frames in (0, 3):
        with pytest.raises(ValueError, match=f"a multiple of 4 frames, not {frames}"):
            vae.encode_chunk(clip(WAN, frames), cache)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 8 pixels, not 16×20"):
        random_vae("wan").encode(jnp.zeros((1, 1, 16, 20, 3)))


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"4 stages have 3 down-samplings.*names 2"):
        VAEConfig(temporal_downsample=(True, True))
    with pytest.raises(ValueError, match="z_dim is 8, mean has 16 and std 16"):
        VAEConfig(z_dim=8)
    with pytest.raises(ValueError, match="unknown norm 'group': rms or none"):
        Norm(4, "group")


@pytest.mark.parametrize(("config", "count"), [(WAN_VAE, 126_892_531), (TINY_VAE, 1_831_963)])
def test_the_number_of_parameters(config, count):
    """Wan's is that of diffusers' AutoencoderKLWan with its default settings."""
    vae = nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(vae))
    assert sum(leaf.size for leaf in leaves) == count
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
