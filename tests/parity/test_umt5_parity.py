"""The comparison of UMT5 with transformers is a strict one; buckets; its weights' way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx

from realisvsr_jax.text.umt5 import UMT5Encoder, position_buckets, relative_buckets
from tests.parity import umt5
from tests.parity.peers import STACK
from tests.parity.umt5 import CONFIG, LENGTHS
from tests.random_networks import fast_jit


def changed(model, change):
    """The network with `change(path, value)` for every parameter."""
    graph, state = nnx.split(model)
    return nnx.merge(
        graph, nnx.map_state(lambda p, leaf: leaf.replace(change(p, leaf[...])), state)
    )


def shared_bias(path, value):
    return jnp.broadcast_to(value[:1], value.shape) if path[-1] == "position_bias" else value


def scaled_queries(path, value):
    return value * CONFIG.d_kv**-0.5 if "q" in path else value


def cut_bias(path, value):
    """Every distance of 16 and more in one bucket on either side."""
    if path[-1] != "position_bias":
        return value
    half = CONFIG.num_buckets // 2
    return value.at[:, 10:half].set(value[:, 9:10]).at[:, half + 10 :].set(value[:, -1:])


@pytest.fixture(scope="module")
def theirs():
    """The peer's last states, and what goes into and out of every block."""
    return umt5.encoded("eager")


@pytest.mark.parametrize("fault", [shared_bias, scaled_queries, cut_bias])
def test_a_faulty_encoder_is_found_out(theirs, fault):
    assert umt5.error(umt5.encode(changed(umt5.ours(), fault)), theirs[0]) > 100 * STACK


def test_a_forgotten_mask_is_found_out(theirs):
    forgotten = umt5.encode(umt5.ours(), np.ones_like(umt5.inputs()[1]))
    assert umt5.error(forgotten, theirs[0]) > 100 * STACK


def test_attention_of_the_comparison_is_peaked(theirs):
    """Else a wrong scale or bias would hide behind a nearly uniform softmax."""
    graph, layers = nnx.split(umt5.ours().blocks)
    buckets = position_buckets(max(LENGTHS), CONFIG)
    for index, (x, _) in enumerate(theirs[1]):
        block = nnx.merge(graph, nnx.map_state(lambda _, p, i=index: p[i], layers))
        normed = block.norm1(jnp.asarray(x[:1]))
        heads = (1, LENGTHS[0], CONFIG.num_heads, CONFIG.d_kv)
        q, k = (np.asarray(y(normed)).reshape(heads) for y in (block.attn.q, block.attn.k))
        bias = np.asarray(block.attn.position_bias)[np.asarray(buckets)]
        scores = np.einsum("bqnk,bsnk->nqs", q, k) + bias.transpose(2, 0, 1)
        assert np.median(np.asarray(jax.nn.softmax(scores)).max(-1)) > 0.4


@pytest.mark.parametrize(("num_buckets", "distance"), [(32, 128), (8, 16), (20, 100), (32, 12)])
def test_buckets_equal_the_peers_at_every_distance(num_buckets, distance):
    config = transformers.UMT5Config(
        d_model=8,
        num_heads=1,
        relative_attention_num_buckets=num_buckets,
        relative_attention_max_distance=distance,
    )
    attention = transformers.models.umt5.modeling_umt5.UMT5Attention(config, True)
    for reach in (distance + 5, 3000):  # torch's logarithm has another path for long arrays
        distances = np.arange(-reach, reach + 1)
        expected = attention._relative_position_bucket(torch.from_numpy(distances))
        found = relative_buckets(distances, num_buckets, distance)
        np.testing.assert_array_equal(found, expected.numpy())


def test_what_stands_in_the_padding_does_not_matter():
    tokens, mask = (jnp.asarray(x) for x in umt5.inputs())
    other = jnp.where(mask == 1, tokens, 7)
    run = fast_jit(UMT5Encoder.__call__)
    a, b = (np.asarray(run(umt5.ours(), x, mask))[np.asarray(mask) == 1] for x in (tokens, other))
    np.testing.assert_array_equal(a, b)


def test_a_token_that_the_vocabulary_lacks_shows():
    tokens, mask = (jnp.asarray(x) for x in umt5.inputs())
    run = fast_jit(UMT5Encoder.__call__)
    assert np.isfinite(run(umt5.ours(), tokens, mask)).all()
    states = run(umt5.ours(), tokens.at[0, 3].set(CONFIG.vocab_size), mask)
    assert np.isnan(states[0]).all()
    assert np.isfinite(states[1]).all()
