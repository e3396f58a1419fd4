"""Attention against float64, whole against chunked, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.model import attention as backends
from realisvsr_jax.model.attention import attention, xla_attention
from realisvsr_jax.model.splash import splash_attention

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


@pytest.mark.parametrize("scores", [1, 4 * 13, 2 * 11 * 13, 5 * 11 * 13])
def test_chunked_equals_whole_in_value_and_gradient(scores):
    """Room for one query, for four of one head, for two heads, and for five of six: three."""
    q, k, v = random_qkv()
    direction = jax.random.normal(jax.random.key(1), v.shape[:1] + q.shape[1:])

    def run(max_scores):
        out, pull = jax.vjp(lambda *x: xla_attention(*x, max_scores=max_scores), q, k, v)
        return out, *pull(direction)

    for chunked, whole in zip(run(scores), run(6 * 11 * 13)):
        np.testing.assert_allclose(chunked, whole, atol=5e-6)


def test_long_sequences_never_hold_all_scores():
    """Compiled peak memory of forward and backward grows with the chunk, not with N²."""
    length, max_scores = 4096, 2**19
    shape = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)

    def total(q, k, v):
        return xla_attention(q, k, v, max_scores=max_scores).sum()

    compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(shape, shape, shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * length**2 / 4


@pytest.mark.parametrize("keys", [4096, 4000])
def test_long_chunked_equals_whole_with_padded_keys(keys, monkeypatch):
    """4096 tokens of head dimension 128, three chunks that do not divide: relative error 1e-5."""
    monkeypatch.setitem(backends.MAX_SCORES, "cpu", 2**27)
    seeds = jax.random.split(jax.random.key(2), 4)
    q, k, v, direction = (jax.random.normal(seed, (1, 4096, 1, 128)) for seed in seeds)

    def run(call, *args):
        out, pull = jax.vjp(call, *args)
        return out, *pull(direction)

    chunked = run(
        lambda *x: xla_attention(x[0], *(y[:, :keys] for y in x[1:]), max_scores=1400 * keys),
        *(q, k, v),
    )
    whole = run(lambda *x: attention(*x, keys=keys), q, k, v)
    for x, y in zip(chunked, whole):
        assert jnp.linalg.norm(x - y) <= 1e-5 * jnp.linalg.norm(y)


@pytest.mark.parametrize("max_scores", [2**27, 200])
def test_padding_changes_no_bit_and_gets_no_gradient(max_scores, monkeypatch):
    whole_or_chunked = functools.partial(xla_attention, max_scores=max_scores)
    monkeypatch.setitem(backends._BACKENDS, "xla", whole_or_chunked)
    q, k, v = random_qkv()
    keys = 9
    clean, pull_clean = jax.vjp(attention, q, k[:, :keys], v[:, :keys])
    k, v = k.at[:, keys:].set(1e30), v.at[:, keys:].set(-1e30)
    out, pull = jax.vjp(lambda *x: attention(*x, keys=keys), q, k, v)
    np.testing.assert_array_equal(out, clean)
    for x, y in zip(pull(out), pull_clean(out)):
        np.testing.assert_array_equal(x[:, : y.shape[1]], y)
        assert not np.any(x[:, y.shape[1] :])


def test_padded_keys_equal_float64():
    q, k, v = random_qkv()
    expected = float64_attention(q, k[:, :7], v[:, :7])
    np.testing.assert_allclose(attention(q, k, v, keys=7), expected, atol=2e-6)


@pytest.mark.parametrize("keys", [0, -1, 14])
def test_a_wrong_number_of_keys_is_named_with_the_right_ones(keys):
    with pytest.raises(ValueError, match=rf"keys={keys} is not within 1\.\.13"):
        attention(*random_qkv(), keys=keys)


def test_bfloat16_inputs_keep_a_float32_softmax():
    q, k, v = random_qkv(jnp.bfloat16)
    out = attention(q, k, v)
    assert out.dtype == jnp.bfloat16
    # Two roundings to 8 bits (the weights and the result) are all that may differ.
    np.testing.assert_allclose(out.astype(jnp.float32), float64_attention(q, k, v), atol=3e-2)


def test_an_unknown_backend_names_the_known():
    with pytest.raises(ValueError, match="'flash'; known: xla, cudnn, splash"):
        attention(*random_qkv(), backend="flash")


def test_cudnn_refuses_float32_with_the_way_out():
    with pytest.raises(ValueError, match="not float32: set dtype='bfloat16'"):
        attention(*random_qkv(), backend="cudnn")


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a CUDA device")
@pytest.mark.parametrize("keys", [None, 4100])
def test_cudnn_equals_xla_at_length(keys):
    """At the head dimension of Wan and some thousand tokens, some of them padding."""
    shape = (1, 4160, 4, 128)
    q, k, v = (
        jax.random.normal(key, shape, jnp.bfloat16)
        for key in jax.random.split(jax.random.key(0), 3)
    )

    def run(backend):
        call = functools.partial(attention, backend=backend, keys=keys)
        out, pull = jax.vjp(call, q, k, v)
        return out, *pull(jax.random.normal(jax.random.key(1), shape, out.dtype))

    for fused, plain in zip(jax.jit(run, static_argnums=0)("cudnn"), run("xla")):
        fused, plain = (x.astype(jnp.float32) for x in (fused, plain))
        assert jnp.linalg.norm(fused - plain) < 1e-2 * jnp.linalg.norm(plain)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a CUDA device")
@pytest.mark.parametrize("keys", [None, 9])
def test_cudnn_equals_xla(keys):
    q, k, v = random_qkv(jnp.bfloat16)

    def run(backend):
        call = functools.partial(attention, backend=backend, keys=keys)
        out, pull = jax.vjp(call, q, k, v)
        return out, *pull(jnp.ones_like(out))

    for fused, plain in zip(run("cudnn"), run("xla")):
        np.testing.assert_allclose(fused.astype(jnp.float32), plain.astype(jnp.float32), atol=3e-2)
        if keys is not None and plain.shape[1] == 13:
            assert not np.any(fused[:, keys:])


def test_odd_lengths_are_padded_for_cudnn(monkeypatch):
    """JAX's own reference in the place of cuDNN, which is told how many keys are real."""
    whole = jax.nn.dot_product_attention
    lengths = []

    def reference(q, k, v, *, implementation, **options):
        lengths.append((q.shape[1], k.shape[1]))
        return whole(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", reference)
    q, k, v = random_qkv(jnp.bfloat16)
    for keys in (k.shape[1], 12):
        found = attention(q, k, v, backend="cudnn", keys=keys)
        expected = float64_attention(q, k[:, :keys], v[:, :keys])
        np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=3e-2)
    assert lengths == [(12, 14), (12, 12)]


@pytest.mark.parametrize(
    ("platform", "dtype", "head_dim", "backend"),
    [
        ("tpu", jnp.bfloat16, 128, "splash"),
        ("tpu", jnp.float32, 24, "splash"),
        ("gpu", jnp.bfloat16, 128, "cudnn"),
        ("gpu", "float16", 64, "cudnn"),
        ("gpu", jnp.float32, 128, "xla"),
        ("gpu", jnp.bfloat16, 20, "xla"),
        ("cpu", jnp.bfloat16, 128, "xla"),
    ],
)
def test_auto_is_the_platforms_own(platform, dtype, head_dim, backend):
    assert backends.resolved("auto", platform, dtype, head_dim) == backend
    assert backends.resolved("splash", platform, dtype, head_dim) == "splash"


def test_auto_is_the_reference_on_a_cpu():
    if jax.default_backend() != "cpu":
        pytest.skip("another backend has its own kernel")
    q, k, v = random_qkv()
    np.testing.assert_array_equal(attention(q, k, v, backend="auto"), attention(q, k, v))


@pytest.mark.parametrize(
    ("backend", "kernel"),
    [
        ("splash", "pallas_call"),
        pytest.param(
            "cudnn",
            "dot_product_attention_fwd",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a CUDA device"),
            ],
        ),
    ],
)
def test_what_attention_gives_is_kept_for_the_backward_pass(backend, kernel):
    """Under a policy that keeps nothing, the forward kernel runs a second time."""
    if backend == "splash":
        attend = functools.partial(splash_attention, interpret=True)
    else:
        attend = functools.partial(attention, backend=backend)

    def kernels(policy):
        attended = jax.checkpoint(attend, policy=policy, prevent_cse=False)
        loss = lambda q: jnp.sum(attended(2 * q, 3 * q, q).astype(jnp.float32))  # noqa: E731
        q = jnp.zeros((1, 128, 2, 128), jnp.bfloat16)
        return str(jax.make_jaxpr(jax.grad(loss))(q)).count(kernel)

    nothing = jax.checkpoint_policies.nothing_saveable
    assert kernels(backends.keeps_attention) < kernels(nothing)
