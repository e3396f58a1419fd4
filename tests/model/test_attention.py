"""Attention against float64, whole against chunked, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.model.attention import attention, xla_attention

# 11 queries do not divide into chunks; keys are more than queries, as in cross-attention.
SHAPES = ((2, 11, 3, 8), (2, 13, 3, 8), (2, 13, 3, 8))


def random_qkv(dtype=jnp.float32, scale=1.5):
    keys = jax.random.split(jax.random.key(0), 3)
    return tuple(
        scale * jax.random.normal(k, shape, jnp.float32).astype(dtype)
        for k, shape in zip(keys, SHAPES)
    )


def float64_attention(q, k, v):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("blnk,bsnk->bnls", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bnls,bsnk->blnk", weights, v)


def test_equals_float64():
    q, k, v = random_qkv()
    np.testing.assert_allclose(attention(q, k, v), float64_attention(q, k, v), atol=2e-6)


def test_large_scores_stay_finite():
    q, k, v = random_qkv(scale=100.0)
    out = attention(q, k, v)
    np.testing.assert_allclose(out, float64_attention(q, k, v), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("queries", [1, 4, 10])
def test_chunked_equals_whole_in_value_and_gradient(queries):
    q, k, v = random_qkv()
    direction = jax.random.normal(jax.random.key(1), v.shape[:1] + q.shape[1:])
    per_query = q.shape[0] * q.shape[2] * k.shape[1]

    def run(max_scores):
        out, pull = jax.vjp(lambda *x: xla_attention(*x, max_scores=max_scores), q, k, v)
        return out, *pull(direction)

    for chunked, whole in zip(run(queries * per_query), run(11 * per_query)):
        np.testing.assert_allclose(chunked, whole, atol=5e-6)


def test_long_sequences_never_hold_all_scores():
    """Compiled peak memory of forward and backward grows with the chunk, not with N²."""
    length, max_scores = 4096, 2**19
    shape = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)

    def total(q, k, v):
        return xla_attention(q, k, v, max_scores=max_scores).sum()

    compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(shape, shape, shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * length**2 / 4


def test_bfloat16_inputs_keep_a_float32_softmax():
    q, k, v = random_qkv(jnp.bfloat16)
    out = attention(q, k, v)
    assert out.dtype == jnp.bfloat16
    # Two roundings to 8 bits (the weights and the result) are all that may differ.
    np.testing.assert_allclose(out.astype(jnp.float32), float64_attention(q, k, v), atol=3e-2)


def test_an_unknown_backend_names_the_known():
    with pytest.raises(ValueError, match="'flash'; known: xla, cudnn"):
        attention(*random_qkv(), backend="flash")


def test_cudnn_refuses_float32_with_the_way_out():
    with pytest.raises(ValueError, match="not float32: set dtype='bfloat16'"):
        attention(*random_qkv(), backend="cudnn")


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a CUDA device")
def test_cudnn_equals_xla():
    q, k, v = random_qkv(jnp.bfloat16)
    fused, plain = (attention(q, k, v, backend=name) for name in ("cudnn", "xla"))
    np.testing.assert_allclose(fused.astype(jnp.float32), plain.astype(jnp.float32), atol=3e-2)
