"""The encoder's tensors under the names of either dialect."""

import math

import numpy as np
import pytest
from flax import nnx
from test_keymaps import UMT5

from realisvsr_jax.text.umt5 import UMT5Config, UMT5Encoder
from realisvsr_jax.weights.keymap import DIALECTS

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
    theirs, original = map(UMT5.tensors, DIALECTS)
    for line in (*SAME_TENSORS.strip().splitlines(), " ".join((*BIASES, "8 2"))):
        wan, transformers, *shape = line.split()
        assert original[wan].shape == tuple(map(int, shape)), wan
        np.testing.assert_array_equal(original[wan], theirs[transformers], err_msg=wan)


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
