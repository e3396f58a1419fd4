"""Attention, one function; the backend is chosen by name.

`xla` is the reference: it runs everywhere, keeps the softmax in float32 and never holds all
query-key scores of a long sequence at once. `cudnn` is NVIDIA's fused kernel (bfloat16 or
float16, a head dimension that divides by 8). `splash` is the fused kernel for TPUs.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from realisvsr_jax.model.splash import splash_attention
from realisvsr_jax.numerics import precision_of

# Scores held at once by the xla backend: 2^27 float32 numbers are 512 MiB.
MAX_SCORES = 2**27


def attention(
    q: Float[Array, "b l n k"],
    k: Float[Array, "b s n k"],
    v: Float[Array, "b s n k"],
    *,
    backend: str = "xla",
    keys: int | None = None,
) -> Float[Array, "b l n k"]:
    """softmax(q·kᵀ / √k)·v for each head, every query seeing the first `keys` keys (None: all).

    The keys and values after those are padding: they may hold anything, and their gradients are
    exactly 0. The result has the dtype of `v`. Raises ValueError for an unknown backend, for one
    that cannot run here, and for `keys` outside 1..s.
    """
    check_backend(backend)
    if keys is not None:
        if not 1 <= keys <= k.shape[1]:
            raise ValueError(f"keys={keys} is not within 1..{k.shape[1]}, the keys that there are")
        k, v = k[:, :keys], v[:, :keys]
    return _BACKENDS[backend](q, k, v)


def check_backend(backend: str) -> None:
    """Raises ValueError, with the known names, where `backend` is not one of them."""
    if backend not in _BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}; known: {', '.join(_BACKENDS)}")


def xla_attention(
    q: Float[Array, "b l n k"],
    k: Float[Array, "b s n k"],
    v: Float[Array, "b s n k"],
    *,
    max_scores: int = MAX_SCORES,
) -> Float[Array, "b l n k"]:
    """The reference backend; at most about `max_scores` scores exist at a time.

    Longer sequences are cut into chunks of queries that run one after the other, and their
    scores are computed again in the backward pass instead of being kept.
    """
    batch, length, heads, width = q.shape
    chunk = max(1, max_scores // (batch * heads * k.shape[1]))
    # Heads first, so that both products are plain batched matrix products.
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    if length <= chunk:
        return _attend(q.swapaxes(1, 2), k, v).swapaxes(1, 2)
    num_chunks = -(-length // chunk)
    chunk = -(-length // num_chunks)
    q = jnp.pad(q, ((0, 0), (0, num_chunks * chunk - length), (0, 0), (0, 0)))
    chunks = q.reshape(batch, num_chunks, chunk, heads, width).transpose(1, 0, 3, 2, 4)
    out = jax.lax.map(jax.checkpoint(lambda part: _attend(part, k, v)), chunks)
    out = out.transpose(1, 0, 3, 2, 4).reshape(batch, num_chunks * chunk, heads, width)
    return out[:, :length]


def _attend(
    q: Float[Array, "b n l k"], k: Float[Array, "b n s k"], v: Float[Array, "b n s k"]
) -> Float[Array, "b n l k"]:
    """Softmax in float32, divided by its sum after the product, where there is less to divide."""
    in_float32 = functools.partial(
        jnp.matmul, precision=precision_of(v.dtype), preferred_element_type=jnp.float32
    )
    scores = in_float32(q, k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5
    # The maximum cancels in the ratio, so no gradient flows through it.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    out = in_float32(weights.astype(v.dtype), v) / weights.sum(-1, keepdims=True)
    return out.astype(v.dtype)


def _cudnn_attention(
    q: Float[Array, "b l n k"], k: Float[Array, "b s n k"], v: Float[Array, "b s n k"]
) -> Float[Array, "b l n k"]:
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f"attention backend 'cudnn' takes bfloat16 or float16, not {q.dtype}: "
            "set dtype='bfloat16' or attention='xla'"
        )
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


_BACKENDS: dict[str, Callable[..., Array]] = {
    "xla": xla_attention,
    "cudnn": _cudnn_attention,
    "splash": splash_attention,
}
