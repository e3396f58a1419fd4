"""The encoder's name table is a bijection, in both dialects; the tied embedding is read once."""

import functools
import math

import numpy as np
import pytest
from flax import nnx
from random_networks import numbered

from realisvsr_jax.errors import InputError
from realisvsr_jax.text.umt5 import UMT5Config, UMT5Encoder
from realisvsr_jax.weights.keymap import DIALECTS
from realisvsr_jax.weights.umt5_keymap import from_torch, rules, to_torch

CONFIG = UMT5Config(
    vocab_size=11, d_model=6, d_kv=2, num_heads=2, d_ff=8, num_layers=3, num_buckets=8
)


@functools.cache
def flat_arrays() -> dict[str, np.ndarray]:
    return numbered(lambda: UMT5Encoder(CONFIG, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_round_trip_is_exact_and_covers_every_parameter(dialect):
    arrays = flat_arrays()
    tensors = to_torch(arrays, dialect)
    assert sum(t.size for t in tensors.values()) == sum(a.size for a in arrays.values())
    back = from_torch(tensors, CONFIG.num_layers, dialect)
    assert back.keys() == arrays.keys()
    for path, value in arrays.items():
        np.testing.assert_array_equal(back[path], value)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_name_stands_twice(dialect):
    table = rules(dialect)
    assert len({rule.ours for rule in table}) == len({rule.torch for rule in table}) == len(table)


SAME_TENSORS = """
token_embedding.weight shared.weight 11 6
norm.weight encoder.final_layer_norm.weight 6
blocks.0.norm1.weight encoder.block.0.layer.0.layer_norm.weight 6
blocks.1.attn.q.weight encoder.block.1.layer.0.SelfAttention.q.weight 4 6
blocks.2.attn.k.weight encoder.block.2.layer.0.SelfAttention.k.weight 4 6
blocks.0.attn.v.weight encoder.block.0.layer.0.SelfAttention.v.weight 4 6
blocks.1.attn.o.weight encoder.block.1.layer.0.SelfAttention.o.weight 6 4
blocks.2.norm2.weight encoder.block.2.layer.1.layer_norm.weight 6
blocks.0.ffn.gate.0.weight encoder.block.0.layer.1.DenseReluDense.wi_0.weight 8 6
blocks.1.ffn.fc1.weight encoder.block.1.layer.1.DenseReluDense.wi_1.weight 8 6
blocks.2.ffn.fc2.weight encoder.block.2.layer.1.DenseReluDense.wo.weight 6 8
"""
BIASES = (
    "blocks.2.pos_embedding.embedding.weight",
    "encoder.block.2.layer.0.SelfAttention.relative_attention_bias.weight",
)


def test_wans_names_and_transformers_stand_for_the_same_tensors():
    theirs, original = (to_torch(flat_arrays(), dialect) for dialect in DIALECTS)
    for line in (*SAME_TENSORS.strip().splitlines(), " ".join((*BIASES, "8 2"))):
        wan, transformers, *shape = line.split()
        assert original[wan].shape == tuple(map(int, shape)), wan
        np.testing.assert_array_equal(original[wan], theirs[transformers], err_msg=wan)


@pytest.mark.parametrize("names", [("shared",), ("encoder.embed_tokens",), None])
def test_the_embedding_is_read_under_either_name_or_both(names):
    tensors = to_torch(flat_arrays())
    embedding = tensors.pop("shared.weight")
    for name in names or ("shared", "encoder.embed_tokens"):
        tensors[f"{name}.weight"] = embedding.copy()
    given = set(tensors)
    arrays = from_torch(tensors, CONFIG.num_layers)
    np.testing.assert_array_equal(arrays["embedding"], embedding)
    assert set(tensors) == given


def test_two_different_embeddings_are_refused():
    tensors = to_torch(flat_arrays())
    tensors["encoder.embed_tokens.weight"] = 0 * tensors["shared.weight"]
    with pytest.raises(InputError, match=r"shared\.weight and encoder\.embed_tokens\.weight diff"):
        from_torch(tensors, CONFIG.num_layers)


def test_missing_and_unknown_tensors_are_named():
    tensors = to_torch(flat_arrays())
    with pytest.raises(InputError, match=r"has unknown lm_head\.weight$"):
        from_torch({**tensors, "lm_head.weight": np.zeros(1)}, CONFIG.num_layers)
    del tensors["shared.weight"]
    with pytest.raises(InputError, match=r"the checkpoint lacks shared\.weight$"):
        from_torch(tensors, CONFIG.num_layers)
    with pytest.raises(InputError, match=r"lacks blocks\.0\.attn\.k\.weight, "):
        from_torch(to_torch(flat_arrays()), CONFIG.num_layers, "wan")


def test_the_default_is_umt5_xxl():
    network = nnx.eval_shape(lambda: UMT5Encoder(UMT5Config(), rngs=nnx.Rngs(0)))
    leaves = nnx.to_flat_state(nnx.state(network))
    assert sum(math.prod(leaf.shape) for _, leaf in leaves) == 5_680_910_336


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float16"}, "dtype is 'float16'; known: float32, bfloat16"),
        ({"num_buckets": 7}, "num_buckets is 7, it must be even and at least 4"),
        ({"max_distance": 8}, "max_distance is 8; 32 buckets need more than 8"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        UMT5Config(**change)
