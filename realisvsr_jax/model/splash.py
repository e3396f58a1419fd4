"""Splash attention: the fused Pallas kernel for TPUs that JAX ships, made to fit `attention`.

Source: jax.experimental.pallas.ops.tpu.splash_attention.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Float

# The kernel computes tiles of at most this many queries and keys; lanes are 128 wide.
MAX_QUERIES, MAX_KEYS = 1024, 512
LANES = 128
# The name of what is worth keeping for the backward pass: all that the scores do not give.
KEPT = "attention"


@functools.partial(jax.jit, static_argnames="interpret")
def splash_attention(
    q: Float[Array, "b l n k"],
    k: Float[Array, "b s n k"],
    v: Float[Array, "b s n k"],
    *,
    interpret: bool = False,
) -> Float[Array, "b l n k"]:
    """softmax(q·kᵀ / √k)·v; memory grows with l + s, in the backward pass too.

    Any lengths: both are padded to whole blocks inside and the padding gets no weight. float32
    is multiplied in float32. `interpret` runs the kernel in plain JAX, for tests. Lowering for
    anything but a TPU raises ValueError; compiling for a TPU from another host works.
    """
    length, keys, dtype = q.shape[1], k.shape[1], v.dtype
    sizes = block_sizes(length, keys)
    # The kernel does not scale. float32, so that the factor itself is not rounded.
    q = q.astype(jnp.float32) * q.shape[-1] ** -0.5
    q, k, v = (
        jnp.pad(x.astype(dtype).swapaxes(1, 2), ((0, 0), (0, 0), (0, -x.shape[1] % block), (0, 0)))
        for x, block in ((q, sizes.block_q), (k, sizes.block_kv), (v, sizes.block_kv))
    )
    return _fused(q, k, v, keys, sizes, interpret)[:, :, :length].swapaxes(1, 2)


def block_sizes(length: int, keys: int) -> splash.BlockSizes:
    """Even blocks, multiples of 128: at most 1024 queries; 1024 keys, computed 512 at a time.

    The backward pass runs two kernels. The fused one would write a copy of the queries' gradient
    for every block of keys, which is N² memory.
    """
    queries = _even_block(length, MAX_QUERIES)
    parts = 1 if keys <= MAX_KEYS else 2
    compute = _even_block(-(-keys // parts), MAX_KEYS)
    return splash.BlockSizes(
        block_q=queries,
        block_kv=parts * compute,
        block_kv_compute=compute,
        block_q_dkv=queries,
        block_kv_dkv=parts * compute,
        block_kv_dkv_compute=compute,
        block_q_dq=queries,
        block_kv_dq=compute,
    )


def _even_block(length: int, limit: int) -> int:
    """The smallest multiple of 128 that covers `length` in as few blocks as `limit` allows."""
    return -(-length // -(-length // limit) // LANES) * LANES


def _primal(
    q: Float[Array, "b n l k"],
    k: Float[Array, "b n s k"],
    v: Float[Array, "b n s k"],
    keys: int,
    sizes: splash.BlockSizes,
    interpret: bool,
) -> Float[Array, "b n l k"]:
    """The kernel on whole blocks, the first `keys` keys being real.

    A rule of its own, because the kernel takes the precision of its products from the context,
    which in the backward pass is another one.
    """
    with _precision(v):
        return _kernel(q, k, keys, sizes, interpret)(q if interpret else _tpu_only(q), k, v)


def _fused_forward(q, k, v, keys, sizes, interpret):
    with _precision(v):
        q = q if interpret else _tpu_only(q)
        return jax.vjp(_kernel(q, k, keys, sizes, interpret), q, k, v)


def _fused_backward(keys, sizes, interpret, pull, gradient):
    with _precision(gradient):
        return pull(gradient)


_fused = jax.custom_vjp(_primal, nondiff_argnums=(3, 4, 5))
_fused.defvjp(_fused_forward, _fused_backward)


def _precision(x: Array):
    """For float32 what `numerics.precision_of` says; for the rest the kernel knows no other."""
    return jax.default_matmul_precision("highest" if x.dtype == jnp.float32 else "default")


def _kernel(
    q: Float[Array, "b n l k"],
    k: Float[Array, "b n s k"],
    keys: int,
    sizes: splash.BlockSizes,
    interpret: bool,
) -> Callable[..., Any]:
    """The kernel over a batch; segment ids, where keys are padded, hide those from all queries."""
    heads, length, padded = q.shape[1], q.shape[2], k.shape[2]
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((length, padded))] * heads),
        block_sizes=sizes,
        residual_checkpoint_name=KEPT,
        interpret=interpret,
    )
    if keys == padded:
        return jax.vmap(kernel)
    ids = splash.SegmentIds(
        jnp.zeros(length, jnp.int32), (jnp.arange(padded) >= keys).astype(jnp.int32)
    )
    return jax.vmap(functools.partial(kernel, segment_ids=ids))


def _refuse(ctx, x):
    raise ValueError("backend 'splash' needs a TPU; use 'xla' or 'cudnn'")


# The identity, but lowering it for another platform is an error. This asks for the platform that
# is compiled for, where jax.default_backend() is the platform of the host.
_tpu_only_p = Primitive("tpu_only")
_tpu_only_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(_tpu_only_p, _refuse)
mlir.register_lowering(_tpu_only_p, lambda ctx, x: [x], platform="tpu")
batching.defvectorized(_tpu_only_p)
_tpu_only = _tpu_only_p.bind
