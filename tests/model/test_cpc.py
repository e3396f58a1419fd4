"""The control branch by itself: what it sees, what it gives, how it starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_networks import drawn, fast_jit, random

from realisvsr_jax.model.cpc import CPC, CPCConfig
from realisvsr_jax.model.layers import rope_table
from realisvsr_jax.model.wan_dit import Context, DiTConfig

DIT = DiTConfig(
    dim=24, ffn_dim=32, num_heads=2, num_layers=5, in_channels=3, text_dim=6, freq_dim=8
)
GRID = (2, 2, 3)


def branch(num_blocks=2, noisy=False, **changes) -> CPC:
    config = CPCConfig(num_blocks, inject_noisy_latent=noisy)
    return drawn(lambda: CPC(config, dataclasses.replace(DIT, **changes), rngs=nnx.Rngs(0)))


def condition(seed=1):
    return random(2, 2, 4, 6, 3, seed=seed)


def context() -> Context:
    rope = rope_table(GRID, DIT.head_dim)
    return Context(random(2, 24), random(2, 6, 24, seed=2), random(2, 4, 24, seed=3), rope)


def test_features_are_those_of_a_loop_over_blocks():
    cpc = branch(num_blocks=3)

    @fast_jit
    def loop(cpc, z, context):
        x, features = cpc.patch_embedding(z), []
        graph, layers = nnx.split((cpc.blocks, cpc.out))
        for i in range(3):
            block, out = nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], layers))
            x = block(x, context)
            features.append(out(x))
        return jnp.stack(features)

    features = fast_jit(lambda cpc, *x: cpc(*x))(cpc, condition(), context())
    assert features.shape == (3, 2, 12, 24)
    np.testing.assert_allclose(features, loop(cpc, condition(), context()), atol=1e-4)


@pytest.mark.parametrize("noisy", [False, True])
def test_only_the_baseline_sees_the_noisy_latent(noisy):
    cpc = branch(noisy=noisy)

    def total(z, z_t):
        return jnp.sin(cpc(z, context(), z_t)).sum()

    by_condition, by_noisy = fast_jit(jax.grad(total, (0, 1)))(condition(), condition(seed=9))
    assert (by_condition != 0).all()
    assert (by_noisy != 0).all() if noisy else (by_noisy == 0).all()


def test_the_baseline_needs_the_noisy_latent():
    with pytest.raises(ValueError, match="inject_noisy_latent needs z_t"):
        branch(noisy=True)(condition(), context())


@pytest.mark.parametrize("noisy", [False, True])
def test_a_new_branch_has_zero_output_layers(noisy):
    cpc = fast_jit(lambda: CPC(CPCConfig(2, noisy), DIT, rngs=nnx.Rngs(0)))()
    for parameter in (cpc.out.kernel, cpc.out.bias):
        np.testing.assert_array_equal(parameter[...], 0)
    assert (np.asarray(cpc.patch_embedding.kernel[...]) == 0).all() == noisy
    first, second = cpc.blocks.ffn.up.kernel[...]
    assert not np.array_equal(first, second)


def test_features_are_in_the_compute_dtype():
    cpc = branch(dtype="bfloat16")
    assert jax.eval_shape(cpc, condition(), context()).dtype == jnp.bfloat16


def test_a_branch_without_blocks_is_refused():
    with pytest.raises(ValueError, match=r"cpc\.num_blocks is 0, at least 1 is needed"):
        CPCConfig(num_blocks=0)
