"""As many programs as buckets, each compiled once, before or behind its first batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.training.programs import BucketPrograms


def shapes(width):
    return {"x": jax.ShapeDtypeStruct((2, width), np.float32)}


def test_one_compilation_a_bucket_whatever_the_steps():
    traced = []

    @jax.jit
    def step(state, frozen, batch):
        traced.append(batch["x"].shape)
        return state + frozen * batch["x"].sum(), {}

    state, frozen = jnp.float32(0), jnp.float32(2)
    programs = BucketPrograms(step, state, frozen, [shapes(3), shapes(5), shapes(3)], None)
    for width in (5, 3, 3, 5):
        state, _ = programs(state, frozen, {"x": np.ones((2, width), np.float32)})
    assert float(state) == 2 * 2 * (5 + 3 + 3 + 5)
    assert sorted(traced) == [(2, 3), (2, 5)]


def test_what_a_compilation_raises_is_raised_by_its_step():
    def step(state, frozen, batch):
        if batch["x"].shape[1] == 5:
            raise ValueError("five is too wide")
        return state, {}

    programs = BucketPrograms(jax.jit(step), jnp.zeros(()), None, [shapes(3), shapes(5)], None)
    programs(jnp.zeros(()), None, {"x": np.ones((2, 3), np.float32)})
    with pytest.raises(ValueError, match="five is too wide"):
        programs(jnp.zeros(()), None, {"x": np.ones((2, 5), np.float32)})
