"""Attention over tokens that several devices share (Ulysses; Jacobs et al. 2023).

Each device has a stretch of the tokens and all heads; for attention it exchanges them for all
tokens and a share of the heads, and back. Where the devices are more than the heads divide, keys
and values are gathered over the rest, so any number of devices works with any backend.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from realisvsr_jax.mesh import BATCH, SEQ, TENSOR, axis_size
from realisvsr_jax.model.attention import attention

Heads = Float[Array, "b l n k"]
KV, HEADS = SEQ


def padded_length(length: int) -> int:
    """The next length that the devices along the sequence divide."""
    return -(-length // axis_size(SEQ)) * axis_size(SEQ)


def self_attention(q: Heads, k: Heads, v: Heads, *, backend: str, keys: int) -> Heads:
    """Attention among tokens of which the first `keys` are real, sharded over batch and tokens."""
    if jax.sharding.get_abstract_mesh().empty:
        return _attend(q, k, v, backend, keys)
    spec = PartitionSpec(BATCH, SEQ, TENSOR, None)

    @functools.partial(jax.shard_map, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
    def exchanged(q: Array, k: Array, v: Array) -> Array:
        if axis_size(HEADS) > 1:
            q, k, v = jax.lax.all_to_all(jnp.stack([q, k, v]), HEADS, 3, 2, tiled=True)
        if axis_size(KV) > 1:
            k, v = jax.lax.all_gather(jnp.stack([k, v]), KV, axis=2, tiled=True)
        out = _attend(q, k, v, backend, keys)
        if axis_size(HEADS) > 1:
            out = jax.lax.all_to_all(out, HEADS, 1, 2, tiled=True)
        return out

    return exchanged(q, k, v)


def _attend(q: Heads, k: Heads, v: Heads, backend: str, keys: int) -> Heads:
    padding = {"keys": keys} if keys < k.shape[1] else {}
    return attention(q, k, v, backend=backend, **padding)


def cross_attention(
    q: Heads, k: Float[Array, "b s n k"], v: Float[Array, "b s n k"], *, backend: str
) -> Heads:
    """Attention of sharded tokens to a text that every device along the sequence has whole."""
    if jax.sharding.get_abstract_mesh().empty:
        return attention(q, k, v, backend=backend)
    tokens = PartitionSpec(BATCH, SEQ, TENSOR, None)
    text = PartitionSpec(BATCH, None, TENSOR, None)
    local = functools.partial(attention, backend=backend)
    specs = (tokens, text, text)
    return jax.shard_map(local, in_specs=specs, out_specs=tokens, check_vma=False)(q, k, v)
