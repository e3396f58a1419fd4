"""Attention, one function; the backend is chosen by name.

`xla` is the reference: it runs everywhere, keeps the softmax in float32 and never holds all
query-key scores of a long sequence at once. `cudnn` is NVIDIA's fused kernel (bfloat16 or
float16, a head dimension that divides by 8). `splash` is the fused kernel for TPUs. `auto` is the
one that suits the backend of this process; a model on disk may say so and run anywhere.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from realisvsr_jax.model.splash import KEPT, splash_attention
from realisvsr_jax.numerics import precision_of

AUTO = "auto"
# Scores held at once by the xla backend, float32: 512 MiB on an accelerator; on a CPU what its
# caches hold, which is up to twice as fast.
MAX_SCORES = {"accelerator": 2**27, "cpu": 2**21}
_KEPT = jax.checkpoint_policies.save_only_these_names(KEPT)
_CUDNN = "dot_product_attention_fwd"


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
    backend = resolved(backend, jax.default_backend(), v.dtype, v.shape[-1])
    if keys is not None:
        if not 1 <= keys <= k.shape[1]:
            raise ValueError(f"keys={keys} is not within 1..{k.shape[1]}, the keys that there are")
        k, v = k[:, :keys], v[:, :keys]
    return _BACKENDS[backend](q, k, v)


def check_backend(backend: str) -> None:
    """Raises ValueError, with the known names, where `backend` is not one of them."""
    if backend not in (*_BACKENDS, AUTO):
        known = ", ".join((*_BACKENDS, AUTO))
        raise ValueError(f"unknown attention backend {backend!r}; known: {known}")


def keeps_attention(primitive: Any, *operands: Any, **parameters: Any) -> bool:
    """A policy for `jax.checkpoint`: what attention gives is kept, with the sums of its softmax.

    Its backward pass needs no more than those and q, k and v; cuDNN's are known by the name of
    JAX's primitive, the other backends' by that of `checkpoint_name`.
    """
    return primitive.name.startswith(_CUDNN) or bool(_KEPT(primitive, *operands, **parameters))


def resolved(backend: str, platform: str, dtype: DTypeLike, head_dim: int) -> str:
    """What `auto` stands for on JAX's `platform` ('cpu', 'gpu', 'tpu'); other names as they are.

    On a GPU it is `xla` where cuDNN does not take the dtype or the head dimension.
    """
    if backend != AUTO:
        return backend
    if platform == "tpu":
        return "splash"
    fused = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16) and head_dim % 8 == 0
    return "cudnn" if platform == "gpu" and fused else "xla"


def scores_at_once(platform: str) -> int:
    """MAX_SCORES on JAX's `platform`."""
    return MAX_SCORES["cpu" if platform == "cpu" else "accelerator"]


def xla_attention(
    q: Float[Array, "b l n k"],
    k: Float[Array, "b s n k"],
    v: Float[Array, "b s n k"],
    *,
    max_scores: int | None = None,
) -> Float[Array, "b l n k"]:
    """The reference backend; at most about `max_scores` scores exist at a time.

    Where there are more, heads run one after the other, or as many as fit, and long sequences in
    chunks of queries; their scores are computed again in the backward pass instead of being kept.
    None: MAX_SCORES of the backend of this process.
    """
    batch, length, heads, _ = q.shape
    keys = k.shape[1]
    if max_scores is None:
        max_scores = scores_at_once(jax.default_backend())
    # Heads first, so that both products are plain batched matrix products.
    q, k, v = (rearrange(x, "b l n k -> (b n) l k") for x in (q, k, v))
    if batch * heads * length * keys <= max_scores:
        return rearrange(_attend(q, k, v), "(b n) l k -> b l n k", b=batch)
    fitting = max(1, max_scores // (length * keys))
    group = next(size for size in range(fitting, 0, -1) if batch * heads % size == 0)
    num_chunks = -(-length // max(1, max_scores // (group * keys)))
    q = jnp.pad(q, ((0, 0), (0, -length % num_chunks), (0, 0)))
    q = rearrange(q, "(i m) (j l) k -> i j m l k", m=group, j=num_chunks)
    k, v = (rearrange(x, "(i m) s k -> i m s k", m=group) for x in (k, v))
    attend = jax.checkpoint(_attend, policy=_KEPT)

    def of_group(qkv: tuple[Array, Array, Array]) -> Array:
        chunks, k, v = qkv
        return jax.lax.map(lambda chunk: attend(chunk, k, v), chunks)

    out = rearrange(jax.lax.map(of_group, (q, k, v)), "i j m l k -> (i m) (j l) k")
    return rearrange(out[:, :length], "(b n) l k -> b l n k", b=batch)


def _attend(
    q: Float[Array, "m l k"], k: Float[Array, "m s k"], v: Float[Array, "m s k"]
) -> Float[Array, "m l k"]:
    """Softmax in float32, divided by its sum after the product, where there is less to divide."""
    # Said to be batched even where `m` is 1: products that are not are kept by remat "dots".
    product = functools.partial(
        jax.lax.dot_general, precision=precision_of(v.dtype), preferred_element_type=jnp.float32
    )
    scores = product(q, k, (((2,), (2,)), ((0,), (0,)))) * q.shape[-1] ** -0.5
    # The maximum cancels in the ratio, so no gradient flows through it.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    out = checkpoint_name(product(weights.astype(v.dtype), v, (((2,), (1,)), ((0,), (0,)))), KEPT)
    total = checkpoint_name(weights.sum(-1, keepdims=True), KEPT)
    return (out / total).astype(v.dtype)


def _cudnn_attention(
    q: Float[Array, "b l n k"], k: Float[Array, "b s n k"], v: Float[Array, "b s n k"]
) -> Float[Array, "b l n k"]:
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f"attention backend 'cudnn' takes bfloat16 or float16, not {q.dtype}: "
            "set dtype='bfloat16' or attention='xla'"
        )
    if q.shape[1] % 2 == 0 and k.shape[1] % 2 == 0:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    # JAX refuses the backward pass of odd lengths.
    length, keys = q.shape[1], jnp.full(len(k), k.shape[1], jnp.int32)
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    return jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=keys, implementation="cudnn"
    )[:, :length]


_BACKENDS: dict[str, Callable[..., Array]] = {
    "xla": xla_attention,
    "cudnn": _cudnn_attention,
    "splash": splash_attention,
}
