"""UMT5 against transformers' UMT5EncoderModel."""

import copy
import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from realisvsr_jax.text.umt5 import UMT5Config, UMT5Encoder, masked_keys, position_buckets
from realisvsr_jax.weights.umt5_keymap import rules
from tests.parity import peers
from tests.parity.peers import PART, STACK, Row, relative_error
from tests.random_networks import fast_jit

# Heads that together are not as wide as the stream, and texts longer than the last bucket starts.
CONFIG = UMT5Config(
    vocab_size=900, d_model=40, d_kv=6, num_heads=5, d_ff=56, num_layers=4, max_distance=128
)
LENGTHS = (300, 170)
ATTENTIONS = ("eager", "sdpa")
SHAPE = peers.times(len(LENGTHS), max(LENGTHS), CONFIG.d_model)


@functools.cache
def peer(attention: str = "eager"):
    """The same parameters whichever the attention."""
    return peers.text_encoder(CONFIG, attention)


@functools.cache
def ours(dtype: str = "float32") -> UMT5Encoder:
    """Our network with the peer's parameters."""
    config = dataclasses.replace(CONFIG, dtype=dtype)
    tensors = peers.state_dict(peer())
    del tensors["encoder.embed_tokens.weight"]  # the same as shared.weight
    constructor = lambda: UMT5Encoder(config, rngs=nnx.Rngs(0))  # noqa: E731
    return peers.filled(constructor, rules(), tensors, CONFIG.num_layers)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, CONFIG.vocab_size, (len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return np.where(mask, tokens, 0).astype(np.int32), mask.astype(np.int32)


def error(found, theirs) -> float:
    """Over the positions that are not padding."""
    kept = inputs()[1] == 1
    return relative_error(np.asarray(found)[kept], np.asarray(theirs)[kept])


def encode(model: UMT5Encoder, mask=None) -> np.ndarray:
    """Our states, float32; `mask` in place of the true one."""
    tokens, true_mask = inputs()
    mask = true_mask if mask is None else mask
    states = fast_jit(UMT5Encoder.__call__)(model, jnp.asarray(tokens), jnp.asarray(mask))
    return np.asarray(states, np.float32)


@functools.cache
@torch.no_grad()
def encoded(attention: str) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """The peer's last states, and what goes into and out of each of its blocks."""
    blocks = []

    def keep(_, args, out):
        out = out[0] if isinstance(out, tuple) else out
        blocks.append((args[0].numpy(), out.numpy()))

    hooks = [block.register_forward_hook(keep) for block in peer(attention).encoder.block]
    states = peer(attention)(*map(torch.from_numpy, inputs())).last_hidden_state.numpy()
    for hook in hooks:
        hook.remove()
    return states, blocks


def blocks() -> list[Row]:
    """Every block by itself, on what comes to it in the peer."""
    graph, layers = nnx.split(ours().blocks)
    buckets = position_buckets(max(LENGTHS), CONFIG)
    masked = masked_keys(jnp.asarray(inputs()[1]))
    run = fast_jit(lambda layer, x: nnx.merge(graph, layer)(x, buckets, masked))
    rows = []
    for attention in ATTENTIONS:
        pairs = encoded(attention)[1]
        assert len(pairs) == CONFIG.num_layers
        errors = []
        for index, (x, out) in enumerate(pairs):
            layer = nnx.map_state(lambda _, p, i=index: p[i], layers)
            errors.append(error(run(layer, jnp.asarray(x)), out))
        name = f"UMT5 block, worst of {CONFIG.num_layers}"
        rows.append(Row(name, f"transformers, {attention}", SHAPE, peers.worst(errors), PART))
    return rows


def whole() -> list[Row]:
    """Tokens to states in float32."""
    states = encode(ours())
    return [
        Row("UMT5", f"transformers, {name}", SHAPE, error(states, encoded(name)[0]), STACK)
        for name in ATTENTIONS
    ]


def bfloat16() -> list[Row]:
    """Rounding alone, which for ours may be half as large again as for the peer."""
    exact, states = encoded("eager")[0], encode(ours("bfloat16"))
    rounded = copy.deepcopy(peer()).to(torch.bfloat16)
    with torch.no_grad():
        theirs = rounded(*map(torch.from_numpy, inputs())).last_hidden_state.float().numpy()
    limit = error(theirs, exact)
    theirs_name, name = "transformers, bfloat16", "UMT5, bfloat16"
    return [
        Row(theirs_name, "transformers", SHAPE, limit, None),
        Row(name, "transformers", SHAPE, error(states, exact), 1.5 * limit),
        Row(name, theirs_name, SHAPE, error(states, theirs), 1.5 * limit),
    ]
