"""What makes the comparison of the DiT with diffusers a strict one."""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from tests.parity import dit
from tests.parity.dit import CONFIG


def test_attention_of_the_comparison_is_peaked():
    """Else a wrong rotary table or scale would hide behind a nearly uniform softmax."""
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((1, 30, CONFIG.dim)), jnp.float32)
    graph, layers = nnx.split(dit.ours().blocks)
    attn = nnx.merge(graph, nnx.map_state(lambda _, p: p[0], layers)).self_attn
    q, k = (
        rearrange(np.asarray(y), "1 l (n k) -> n l k", n=CONFIG.num_heads)
        for y in (attn.norm_q(attn.q(x)), attn.norm_k(attn.k(x)))
    )
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(CONFIG.head_dim)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    top = (weights / weights.sum(-1, keepdims=True)).max(-1)
    assert np.median(top) > 0.4
