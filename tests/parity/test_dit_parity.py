"""The DiT against diffusers' WanTransformer3DModel, float32, weights away from 0 and 1."""

import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx

from realisvsr_jax.model.layers import rope_table
from realisvsr_jax.model.wan_dit import Context, DiTConfig, WanDiT
from realisvsr_jax.weights.dit_keymap import from_torch, to_torch

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

# Head dimension 20 splits 8 / 6 / 6: unequal, as 128 does.
CONFIG = DiTConfig(
    dim=80,
    ffn_dim=112,
    num_heads=4,
    num_layers=5,
    in_channels=6,
    out_channels=6,
    text_dim=24,
    text_length=9,
    freq_dim=32,
)


def relative_error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def peer():
    """A random transformer in which every parameter matters and attention is peaked."""
    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(
        patch_size=CONFIG.patch_size,
        num_attention_heads=CONFIG.num_heads,
        attention_head_dim=CONFIG.head_dim,
        in_channels=CONFIG.in_channels,
        out_channels=CONFIG.out_channels,
        text_dim=CONFIG.text_dim,
        freq_dim=CONFIG.freq_dim,
        ffn_dim=CONFIG.ffn_dim,
        num_layers=CONFIG.num_layers,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm_q" in name or "norm_k" in name:
                parameter.uniform_(1.2, 2.2)
            elif name.endswith("norm2.weight"):
                parameter.uniform_(0.6, 1.6)
            elif name.endswith("bias") or "scale_shift_table" in name:
                parameter.normal_(0.0, 0.4)
            else:
                parameter.normal_(0.0, 1.2 / np.sqrt(np.prod(parameter.shape[1:])))
    return model.eval()


def state_dict(model) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def ours(peer):
    model = WanDiT(CONFIG, rngs=nnx.Rngs(0))
    flat = from_torch(state_dict(peer), CONFIG.num_layers)
    parameters = {"/".join(map(str, path)): p for path, p in nnx.to_flat_state(nnx.state(model))}
    assert set(parameters) == set(flat)
    for path, parameter in parameters.items():
        assert parameter.shape == flat[path].shape
        parameter[...] = flat[path]
    return model


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((2, 3, 6, 10, CONFIG.in_channels)).astype(np.float32)
    text = rng.standard_normal((2, CONFIG.text_length, CONFIG.text_dim)).astype(np.float32)
    text[:, 6:] = 0
    return z, np.array([371.0, 874.0], np.float32), text


def test_one_block_equals_the_peers(peer, ours):
    grid = (3, 2, 5)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 30, CONFIG.dim)).astype(np.float32)
    text = rng.standard_normal((2, CONFIG.text_length, CONFIG.dim)).astype(np.float32)
    modulation = rng.standard_normal((2, 6, CONFIG.dim)).astype(np.float32)
    like_latent = torch.zeros(2, 1, *(size * p for size, p in zip(grid, CONFIG.patch_size)))
    attended = []
    with torch.no_grad():
        turns = peer.rope(like_latent)
        for block in peer.blocks:
            attended.append(block(*map(torch.from_numpy, (x, text, modulation)), turns).numpy())
    time = jnp.zeros((2, CONFIG.dim))
    rope = rope_table(grid, CONFIG.head_dim)
    context = Context(time, jnp.asarray(modulation), jnp.asarray(text), rope)
    graph, layers = nnx.split(ours.blocks)
    for index, theirs in enumerate(attended):
        layer = nnx.map_state(lambda _, p, i=index: p[i], layers)
        assert relative_error(nnx.merge(graph, layer)(jnp.asarray(x), context), theirs) < 1e-5


def test_whole_transformer_equals_the_peers(peer, ours):
    z, timestep, text = inputs()
    with torch.no_grad():
        theirs = peer(
            torch.from_numpy(rearrange(z, "b t h w c -> b c t h w")),
            torch.from_numpy(timestep),
            torch.from_numpy(text),
            return_dict=False,
        )[0]
    velocity = ours(*map(jnp.asarray, (z, timestep, text)))
    assert relative_error(velocity, rearrange(theirs.numpy(), "b c t h w -> b t h w c")) < 1e-4


def test_attention_of_the_comparison_is_peaked(ours):
    """Else a wrong rotary table or scale would hide behind a nearly uniform softmax."""
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((1, 30, CONFIG.dim)), jnp.float32)
    graph, layers = nnx.split(ours.blocks)
    attn = nnx.merge(graph, nnx.map_state(lambda _, p: p[0], layers)).self_attn
    q, k = (
        rearrange(np.asarray(y), "1 l (n k) -> n l k", n=CONFIG.num_heads)
        for y in (attn.norm_q(attn.q(x)), attn.norm_k(attn.k(x)))
    )
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(CONFIG.head_dim)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    top = (weights / weights.sum(-1, keepdims=True)).max(-1)
    assert np.median(top) > 0.4


def test_our_weights_load_into_the_peer_without_loss(peer, ours):
    """torch -> ours -> torch is bit-exact, and the peer accepts every name."""
    parameters = nnx.to_flat_state(nnx.state(ours))
    flat = {"/".join(map(str, path)): np.asarray(p[...]) for path, p in parameters}
    back = to_torch(flat)
    theirs = state_dict(peer)
    assert set(back) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(back[name], value)
    peer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in back.items()})
