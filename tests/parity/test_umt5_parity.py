"""UMT5 against transformers' UMT5EncoderModel, float32, weights away from 0 and 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_networks import fast_jit

from realisvsr_jax.text.umt5 import UMT5Config, UMT5Encoder, relative_buckets
from realisvsr_jax.weights.keymap import DIALECTS
from realisvsr_jax.weights.umt5_keymap import from_torch, to_torch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Heads that together are not as wide as the stream, and texts longer than the last bucket starts.
CONFIG = UMT5Config(
    vocab_size=900, d_model=40, d_kv=6, num_heads=5, d_ff=56, num_layers=4, max_distance=128
)
LENGTHS = (300, 170)
BLOCK_TOLERANCE, STACK_TOLERANCE = 1e-5, 1e-4


def relative_error(ours, theirs) -> float:
    """‖a − b‖ / ‖b‖ over the positions that are not padding."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    kept = inputs()[1] == 1
    return float(np.linalg.norm((ours - theirs)[kept]) / np.linalg.norm(theirs[kept]))


def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, CONFIG.vocab_size, (len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return np.where(mask, tokens, 0).astype(np.int32), mask.astype(np.int32)


@pytest.fixture(scope="module", params=("eager", "sdpa"))
def peer(request):
    """A random encoder in which every parameter matters and attention is peaked."""
    torch.manual_seed(0)
    model = transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=CONFIG.vocab_size,
            d_model=CONFIG.d_model,
            d_kv=CONFIG.d_kv,
            num_heads=CONFIG.num_heads,
            d_ff=CONFIG.d_ff,
            num_layers=CONFIG.num_layers,
            relative_attention_num_buckets=CONFIG.num_buckets,
            relative_attention_max_distance=CONFIG.max_distance,
            layer_norm_epsilon=CONFIG.eps,
            attn_implementation=request.param,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.6, 1.6)
            elif "relative_attention_bias" in name:
                parameter.normal_(0.0, 1.5)
            elif "shared" in name:
                parameter.normal_(0.0, 1.3)
            else:
                wide = name.endswith(("SelfAttention.q.weight", "SelfAttention.k.weight"))
                parameter.normal_(0.0, (1.6 if wide else 0.9) / np.sqrt(parameter.shape[1]))
    return model.eval()


def state_dict(model) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def ours(peer):
    graph, state = nnx.split(nnx.eval_shape(lambda: UMT5Encoder(CONFIG, rngs=nnx.Rngs(0))))
    flat = from_torch(state_dict(peer), CONFIG.num_layers)
    leaves = nnx.to_flat_state(state)
    assert {"/".join(map(str, path)): leaf.shape for path, leaf in leaves} == {
        path: value.shape for path, value in flat.items()
    }
    filled = [
        (path, leaf.replace(jnp.asarray(flat["/".join(map(str, path))]))) for path, leaf in leaves
    ]
    return nnx.merge(graph, nnx.from_flat_state(filled))


@pytest.fixture(scope="module")
def theirs(peer):
    """What the peer says: its last states, and what goes into and out of every block."""
    blocks = []
    hooks = [
        block.register_forward_hook(
            lambda _, args, out: blocks.append(
                (args[0].numpy(), (out[0] if isinstance(out, tuple) else out).numpy())
            )
        )
        for block in peer.encoder.block
    ]
    with torch.no_grad():
        states = peer(*map(torch.from_numpy, inputs())).last_hidden_state.numpy()
    for hook in hooks:
        hook.remove()
    return states, blocks


def encode(model, mask=None):
    tokens, true_mask = inputs()
    mask = true_mask if mask is None else mask
    return fast_jit(UMT5Encoder.__call__)(model, jnp.asarray(tokens), jnp.asarray(mask))


def changed(model, change):
    """The network with `change(path, value)` for every parameter."""
    graph, state = nnx.split(model)
    return nnx.merge(
        graph, nnx.map_state(lambda p, leaf: leaf.replace(change(p, leaf[...])), state)
    )


def masked_keys():
    low = jnp.finfo(jnp.float32).min
    return jnp.where(jnp.asarray(inputs()[1]) == 0, low, 0.0)[:, None, None]


def test_every_block_equals_the_peers(ours, theirs):
    graph, layers = nnx.split(ours.blocks)
    buckets = ours.buckets(max(LENGTHS))

    @fast_jit
    def block(layer, x):
        return nnx.merge(graph, layer)(x, buckets, masked_keys())

    assert len(theirs[1]) == CONFIG.num_layers
    for index, (x, out) in enumerate(theirs[1]):
        layer = nnx.map_state(lambda _, p, i=index: p[i], layers)
        assert relative_error(block(layer, jnp.asarray(x)), out) < BLOCK_TOLERANCE


def test_the_whole_encoder_equals_the_peers(ours, theirs):
    assert relative_error(encode(ours), theirs[0]) < STACK_TOLERANCE


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


@pytest.mark.parametrize("fault", [shared_bias, scaled_queries, cut_bias])
def test_a_faulty_encoder_is_found_out(ours, theirs, fault):
    assert relative_error(encode(changed(ours, fault)), theirs[0]) > 100 * STACK_TOLERANCE


def test_a_forgotten_mask_is_found_out(ours, theirs):
    forgotten = encode(ours, np.ones_like(inputs()[1]))
    assert relative_error(forgotten, theirs[0]) > 100 * STACK_TOLERANCE


def test_attention_of_the_comparison_is_peaked(ours, theirs):
    """Else a wrong scale or bias would hide behind a nearly uniform softmax."""
    graph, layers = nnx.split(ours.blocks)
    buckets = ours.buckets(max(LENGTHS))
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


def test_what_stands_in_the_padding_does_not_matter(ours):
    tokens, mask = (jnp.asarray(x) for x in inputs())
    other = jnp.where(mask == 1, tokens, 7)
    run = fast_jit(UMT5Encoder.__call__)
    a, b = (np.asarray(run(ours, x, mask))[np.asarray(mask) == 1] for x in (tokens, other))
    np.testing.assert_array_equal(a, b)


def test_a_token_that_the_vocabulary_lacks_shows(ours):
    tokens, mask = (jnp.asarray(x) for x in inputs())
    states = encode(ours)
    assert np.isfinite(states).all()
    states = fast_jit(UMT5Encoder.__call__)(ours, tokens.at[0, 3].set(CONFIG.vocab_size), mask)
    assert np.isnan(states[0]).all()
    assert np.isfinite(states[1]).all()


def test_bfloat16_stays_near_float32(ours, theirs):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    graph, _ = nnx.split(nnx.eval_shape(lambda: UMT5Encoder(config, rngs=nnx.Rngs(0))))
    states = encode(nnx.merge(graph, nnx.state(ours)))
    assert states.dtype == jnp.bfloat16
    assert relative_error(states.astype(jnp.float32), theirs[0]) < 0.1


def wans(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """transformers' state dict under the original release's names, without our table."""
    tensors = dict(tensors)
    del tensors["encoder.embed_tokens.weight"]
    renamed = {}
    for name, value in tensors.items():
        for theirs, wan in (
            ("shared", "token_embedding"),
            ("encoder.final_layer_norm", "norm"),
            ("encoder.block", "blocks"),
            ("layer.0.layer_norm", "norm1"),
            ("layer.1.layer_norm", "norm2"),
            ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"),
            ("layer.0.SelfAttention", "attn"),
            ("layer.1.DenseReluDense.wi_0", "ffn.gate.0"),
            ("layer.1.DenseReluDense.wi_1", "ffn.fc1"),
            ("layer.1.DenseReluDense.wo", "ffn.fc2"),
        ):
            name = name.replace(theirs, wan)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("dialect", DIALECTS)
def test_weights_go_there_and_back_without_loss(peer, ours, dialect):
    """torch -> ours -> torch is bit-exact, and the peer accepts every name."""
    tensors = state_dict(peer)
    given = wans(tensors) if dialect == "wan" else tensors
    flat = from_torch(given, CONFIG.num_layers, dialect)
    for path, leaf in nnx.to_flat_state(nnx.state(ours)):
        np.testing.assert_array_equal(flat["/".join(map(str, path))], leaf[...])
    back = to_torch(flat, dialect)
    assert set(given) - set(back) == ({"encoder.embed_tokens.weight"} & set(given))
    assert set(back) <= set(given)
    for name, value in back.items():
        np.testing.assert_array_equal(value, given[name])
    if dialect == "diffusers":
        loaded = {name: torch.from_numpy(value.copy()) for name, value in back.items()}
        report = peer.load_state_dict(loaded, strict=False)
        assert report.unexpected_keys == []
        assert peer.encoder.embed_tokens.weight is peer.shared.weight
