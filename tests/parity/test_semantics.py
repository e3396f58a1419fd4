"""What ports of Wan get wrong. Each mistake, put in, is 100 tolerances off; without it we agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from realisvsr_jax.model import wan_dit
from realisvsr_jax.model.layers import LayerNorm, apply_rope, layer_norm, rope_split, rope_table
from realisvsr_jax.model.wan_dit import WanDiT
from realisvsr_jax.vae.blocks import Downsample, Upsample
from realisvsr_jax.vae.causal_conv import join
from realisvsr_jax.vae.wan_vae import WanVAE
from tests.parity import dit, peers, vae
from tests.parity.dit import TEXT_STATES
from tests.parity.peers import PART, STACK, relative_error
from tests.random_networks import fast_jit

ROPE = 1e-6


def test_text_is_padded_before_its_mlp_and_attended_to_unmasked():
    """diffusers pads nothing itself: given the short text it is the model that masks."""
    z, timestep, text = dit.inputs()
    short = text[:, :TEXT_STATES]
    padded, unpadded = (dit.run_peer(dit.peer(), z, timestep, x) for x in (text, short))
    ours = dit.run_ours(dit.ours(), z, timestep, short)
    masked = dit.run_ours(dit.ours(text_length=TEXT_STATES), z, timestep, short)
    assert relative_error(ours, padded) < STACK
    assert relative_error(masked, unpadded) < STACK
    assert relative_error(ours, unpadded) > 100 * STACK
    assert relative_error(masked, padded) > 100 * STACK


def test_the_affine_norm_stands_before_cross_attention(monkeypatch):
    """Wan's norm3 is diffusers' norm2; the mistake puts it before the feed-forward."""
    theirs = dit.run_peer(dit.peer(), *dit.inputs())
    assert relative_error(dit.run_ours(dit.ours(), *dit.inputs()), theirs) < STACK
    affine, waiting = LayerNorm.__call__, []

    def before_cross_attention(norm, x):
        waiting.append(norm)
        return layer_norm(x, norm.eps)

    def before_the_others(x, eps):
        return affine(waiting.pop(), x) if waiting else layer_norm(x, eps)

    monkeypatch.setattr(LayerNorm, "__call__", before_cross_attention)
    monkeypatch.setattr(wan_dit, "layer_norm", before_the_others)
    assert relative_error(dit.run_ours(dit.ours(), *dit.inputs()), theirs) > 100 * STACK


@pytest.mark.parametrize(
    "mistake",
    [lambda context: context.modulation[:, 0], lambda context: jax.nn.silu(context.time)],
    ids=["projected", "activated"],
)
def test_the_head_takes_the_time_embedding_before_its_projection(mistake):
    theirs = dit.run_peer(dit.peer(), *dit.inputs())
    given = [jnp.asarray(x) for x in dit.inputs()]

    def run(model: WanDiT, z, timestep, text, head_time):
        context = model.context(timestep, text, model.grid(z))
        return model.denoise(z, context._replace(time=head_time(context)))

    right, wrong = (
        fast_jit(lambda model, *x, t=head_time: run(model, *x, t))(dit.ours(), *given)
        for head_time in (lambda context: context.time, mistake)
    )
    assert relative_error(right, theirs) < STACK
    assert relative_error(wrong, theirs) > 100 * STACK


def angles(grid: tuple[int, int, int], channels: tuple[int, int, int]) -> np.ndarray:
    """Of every token in every channel pair, float64 [l, pairs]."""
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3)
    parts = [
        np.outer(places[:, axis], 10_000.0 ** (-np.arange(0, count, 2) / count))
        for axis, count in enumerate(channels)
    ]
    return np.concatenate(parts, axis=1)


def turned(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """`x` [b, l, n, k] with neighbouring channels as complex numbers, turned in float64."""
    pairs = x.astype(np.float64).view(np.complex128) * np.exp(1j * angle)[:, None]
    return pairs.view(np.float64)


def table(angle: np.ndarray) -> jax.Array:
    """What `rope_table` makes, of these angles."""
    return jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=-1), jnp.float32)


def rounded(x) -> np.ndarray:
    """To bfloat16."""
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


@pytest.mark.parametrize("grid", [(1001, 1, 1), (1, 501, 1), (1, 1, 501)], ids=["t", "h", "w"])
def test_rotary_positions_are_exact_far_out(grid):
    x = np.random.default_rng(0).standard_normal((2, max(grid), 2, 128)).astype(np.float32)
    angle, rope = angles(grid, rope_split(128)), rope_table(grid, 128)
    expected = turned(x, angle)
    assert relative_error(apply_rope(jnp.asarray(x), rope), expected) < ROPE
    for wrong in (table(rounded(angle)), jnp.asarray(rounded(rope), jnp.float32)):
        assert relative_error(apply_rope(jnp.asarray(x), wrong), expected) > 100 * ROPE


@pytest.mark.parametrize("head_dim", [10, 20, 28, 128])
def test_the_channels_that_six_leaves_over_turn_with_time(head_dim):
    """d − 4⌊d/6⌋ for t, 2⌊d/6⌋ for h and w; the mistake is d/3, made even, for each."""
    grid = (3, 4, 5)
    x = np.random.default_rng(0).standard_normal((2, 60, 3, head_dim)).astype(np.float32)
    cos, sin = WanRotaryPosEmbed(head_dim, (1, 1, 1), 1024)(
        peers.channels_first(np.zeros((1, *grid, 1), np.float32))
    )
    angle = np.arctan2(sin.double().numpy(), cos.double().numpy())[0, :, 0, ::2]
    expected = turned(x, angle)
    assert relative_error(apply_rope(jnp.asarray(x), rope_table(grid, head_dim)), expected) < ROPE
    third = 2 * (head_dim // 6)
    wrong = np.zeros_like(angle)
    wrong[:, : 3 * third // 2] = angles(grid, (third,) * 3)
    assert relative_error(apply_rope(jnp.asarray(x), table(wrong)), expected) > 100 * ROPE


proper_down, proper_up = Downsample.__call__, Upsample.__call__


def down_sampled_in_time(layer: Downsample, x, cache=None):
    """The first frame goes through the temporal convolution too, behind zeros."""
    if layer.time is None or cache is not None:
        return proper_down(layer, x, cache)
    b, _, h, w, c = x.shape
    return proper_down(layer, x, jnp.zeros((b, 2, h // 2, w // 2, c)))


def up_sampled_in_time(layer: Upsample, x, cache=None):
    """The first frame goes through the temporal convolution too; its second half is kept."""
    if layer.time is None or cache is not None:
        return proper_up(layer, x, cache)
    y, cache = proper_up(layer, x, join(None, x[:, :0], 2))
    return y[:, 1:], cache


def first_frame_in_the_cache(layer: Upsample, x, cache=None):
    """The second frame sees the first one where it should see zeros."""
    if layer.time is None or cache is not None:
        return proper_up(layer, x, cache)
    alone, _ = proper_up(layer, x[:, :1])
    rest, cache = proper_up(layer, x[:, 1:], join(None, x[:, :1], 1))
    return jnp.concatenate([alone, rest], axis=1), cache


def test_the_first_chunk_is_not_down_sampled_in_time(monkeypatch):
    video, theirs = vae.clip(5), peers.channels_last(vae.posterior(5).mean)
    mean = lambda model, x: model.encode_moments(x)[0]  # noqa: E731
    assert relative_error(vae.run(mean, video), theirs) < PART
    monkeypatch.setattr(Downsample, "__call__", down_sampled_in_time)
    assert relative_error(vae.run(mean, video), theirs) > 100 * PART


@pytest.mark.parametrize("mistake", [up_sampled_in_time, first_frame_in_the_cache])
def test_the_first_chunk_is_not_up_sampled_in_time_and_not_cached(monkeypatch, mistake):
    latent, theirs = vae.latent(5), vae.decoded(5)
    assert relative_error(vae.run(WanVAE.decode, latent), theirs) < PART
    monkeypatch.setattr(Upsample, "__call__", mistake)
    assert relative_error(vae.run(WanVAE.decode, latent), theirs) > 100 * PART


def test_latents_are_the_posterior_mean_less_wans_mean_over_wans_deviation():
    mean, std = vae.statistics()
    theirs = (peers.channels_last(vae.posterior(5).mean) - mean) / std
    assert relative_error(vae.run(WanVAE.encode, vae.clip(5)), theirs) < PART
    mu, log_variance = map(np.asarray, vae.run(WanVAE.encode_moments, vae.clip(5)))
    assert relative_error((mu - mean) / std, theirs) < PART
    noise = np.random.default_rng(0).standard_normal(mu.shape)
    sample = mu + np.exp(log_variance / 2) * noise
    for wrong in (mu, (mu - mean) * std, mu / std - mean, (sample - mean) / std):
        assert relative_error(wrong, theirs) > 100 * PART
