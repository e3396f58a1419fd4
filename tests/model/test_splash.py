"""Splash attention against the xla backend: run by the Pallas interpreter, lowered for a TPU."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.model import attention as backends
from realisvsr_jax.model.attention import attention
from realisvsr_jax.model.splash import block_sizes, splash_attention

# (queries, keys with padding, real keys): padded blocks of both, whole blocks, short text.
LENGTHS = {"padded": (1100, 1300, 1037), "whole": (384, 512, 512), "short": (200, 80, 77)}


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    kernel = functools.partial(splash_attention, interpret=True)
    monkeypatch.setitem(backends._BACKENDS, "splash", kernel)


def random_inputs(length, keys, dtype=jnp.float32, heads=2):
    """q, k, v and a gradient of the result."""
    seeds = jax.random.split(jax.random.key(0), 4)
    shapes = ((2, n, heads, 128) for n in (length, keys, keys, length))
    return [jax.random.normal(seed, shape).astype(dtype) for seed, shape in zip(seeds, shapes)]


def value_and_gradients(backend, q, k, v, direction, keys):
    call = functools.partial(attention, backend=backend, keys=keys)
    out, pull = jax.vjp(call, q, k, v)
    return out, *pull(direction.astype(out.dtype))


def error(x, reference):
    """Relative, over all elements."""
    x, reference = (np.asarray(y, np.float64) for y in (x, reference))
    return np.linalg.norm(x - reference) / np.linalg.norm(reference)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_equals_xla_in_value_and_gradient(lengths):
    """float32 in both: only the order of sums differs, a few 1e-7."""
    length, padded, keys = lengths
    inputs = random_inputs(length, padded)
    pairs = zip(*(value_and_gradients(b, *inputs, keys) for b in ("splash", "xla")))
    for splash, xla in pairs:
        assert splash.dtype == xla.dtype
        assert error(splash, xla) < 1e-5


def test_bfloat16_errs_about_as_much_as_xla():
    """Scaled queries are rounded once more than in xla, which shows in the gradients."""
    length, padded, keys = LENGTHS["padded"]
    inputs = random_inputs(length, padded, jnp.bfloat16)
    exact = value_and_gradients("xla", *(x.astype(jnp.float32) for x in inputs), keys)
    results = (value_and_gradients(backend, *inputs, keys) for backend in ("splash", "xla"))
    for splash, xla, reference in zip(*results, exact):
        assert splash.dtype == jnp.bfloat16
        assert error(splash, reference) < 2 * error(xla, reference) < 2e-2


def test_padding_changes_no_bit_and_gets_no_gradient():
    length, padded, keys = LENGTHS["short"]
    q, k, v, direction = random_inputs(length, padded)
    clean = value_and_gradients("splash", q, k[:, :keys], v[:, :keys], direction, None)
    k, v = k.at[:, keys:].set(1e30), v.at[:, keys:].set(-1e30)
    for x, y in zip(value_and_gradients("splash", q, k, v, direction, keys), clean):
        np.testing.assert_array_equal(x[:, : y.shape[1]], y)
        assert not np.any(x[:, y.shape[1] :])


@pytest.mark.parametrize(
    ("length", "keys"), [(1, 1), (512, 513), (1025, 1000), (20280, 20280), (32760, 512)]
)
def test_blocks_are_legal_and_waste_little(length, keys):
    sizes = block_sizes(length, keys)
    queries, block, compute = sizes.block_q, sizes.block_kv, sizes.block_kv_compute
    assert queries % 128 == compute % 128 == block % compute == 0
    assert queries <= 1024
    assert compute <= 512
    assert -length % queries < 128 * -(-length // queries)
    assert -keys % block < 256 * -(-keys // block)


@pytest.mark.parametrize("gradient", [False, True])
def test_another_platform_is_one_clear_error(gradient):
    q = jnp.ones((1, 128, 1, 128))
    total = lambda q: splash_attention(q, q, q).sum()  # noqa: E731
    with pytest.raises(ValueError, match="backend 'splash' needs a TPU; use 'xla' or 'cudnn'"):
        (jax.grad(total) if gradient else total)(q)


def test_lowers_for_a_tpu_on_any_host_and_never_holds_all_scores():
    length = 8192
    x = jax.ShapeDtypeStruct((1, length, 1, 128), jnp.bfloat16)
    total = lambda q, k, v: splash_attention(q, k, v).astype(jnp.float32).sum()  # noqa: E731
    lowered = jax.jit(jax.grad(total, (0, 1, 2))).trace(x, x, x).lower(lowering_platforms=("tpu",))
    text = lowered.as_text()
    assert text.count("tpu_custom_call") == 3
    shapes = [np.prod(list(map(int, s.split("x")[:-1]))) for s in re.findall(r"<(\d[\dx]*x)", text)]
    assert max(shapes) == length * 128


@pytest.mark.parametrize(
    ("dtype", "precision"), [(jnp.float32, "HIGHEST"), (jnp.bfloat16, "DEFAULT")]
)
def test_products_have_the_precision_of_the_dtype_in_the_backward_pass_too(dtype, precision):
    x = jnp.ones((1, 128, 1, 128), dtype)
    total = lambda q, k, v: splash_attention(q, k, v).astype(jnp.float32).sum()  # noqa: E731
    with jax.default_matmul_precision("high"):
        text = str(jax.make_jaxpr(jax.grad(total, (0, 1, 2)))(x, x, x))
    named = re.findall(r"precision=\(Precision\.(\w+), Precision\.(\w+)\)", text)
    assert text.count("dot_general[") == len(named) > 8
    assert set(named) == {(precision, precision)}
