import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from realisvsr_jax.errors import InputError
from realisvsr_jax.training.settings import OptimizerConfig
from realisvsr_jax.training.state import init_state, make_optimizer, partition, state_hash


class Two(nnx.Module):
    def __init__(self):
        self.first = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
        self.second = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.second(self.first(x))


def test_parts_merge_to_the_network_they_came_from():
    network = Two()
    parts, params = partition(network, ["second/.*"])
    assert list(params) == ["second/bias", "second/kernel"]
    x = jnp.ones((1, 3))
    np.testing.assert_array_equal(parts.merge(params, parts.frozen)(x), network(x))
    zeros = jax.tree.map(jnp.zeros_like, params)
    np.testing.assert_array_equal(parts.merge(zeros, parts.frozen)(x), jnp.zeros((1, 2)))


def test_frozen_parameters_get_no_gradient_and_no_moments():
    parts, params = partition(Two(), ["first/kernel"])
    gradient = jax.grad(lambda p: parts.merge(p, parts.frozen)(jnp.ones((1, 3))).sum())(params)
    assert set(gradient) == {"first/kernel"}
    state = init_state(params, make_optimizer(OptimizerConfig(), 10))
    sizes = {leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim}
    assert sizes == {12}


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(InputError, match="'third' matches no parameter; paths look like 'first/"):
        partition(Two(), ["first/.*", "third"])


def rates(config: OptimizerConfig, steps: int) -> list[float]:
    """Learning rates, read off an update with unit gradients and no decay."""
    optimizer = make_optimizer(config, steps)
    params = {"w": jnp.zeros(1)}
    state, found = optimizer.init(params), []
    for _ in range(steps):
        update, state = optimizer.update({"w": jnp.ones(1)}, state, params)
        found.append(-float(update["w"][0]))
    return found


def test_warm_up_is_linear_and_then_constant_or_a_cosine():
    settings = {"learning_rate": 0.1, "weight_decay": 0.0, "warmup_steps": 4, "clip_norm": 1e9}
    constant = rates(OptimizerConfig(**settings), 8)
    np.testing.assert_allclose(constant, [0.025, 0.05, 0.075, 0.1] + [0.1] * 4, rtol=1e-4)
    cosine = rates(OptimizerConfig(**settings, schedule="cosine"), 9)
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(5) / 5))
    np.testing.assert_allclose(cosine[4:], expected, rtol=1e-4)
    with pytest.raises(InputError, match="'cosin'; take 'constant' or 'cosine'"):
        make_optimizer(OptimizerConfig(schedule="cosin"), 5)


def test_weight_decay_is_decoupled():
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=0.1, weight_decay=0.5, warmup_steps=0), 3
    )
    params = {"w": jnp.full(1, 2.0)}
    update, _ = optimizer.update({"w": jnp.zeros(1)}, optimizer.init(params), params)
    np.testing.assert_allclose(update["w"], [-0.1 * 0.5 * 2.0], rtol=1e-6)


def test_the_hash_covers_parameters_moments_and_average_as_written():
    params = {"b": jnp.arange(3.0), "a": jnp.ones((2, 1))}
    state = init_state(params, make_optimizer(OptimizerConfig(), 3))
    digest = hashlib.sha256()
    for group, value in (("ema", None), ("mu", 0.0), ("nu", 0.0), ("params", None)):
        for name, leaf in sorted(params.items()):
            array = np.asarray(leaf) if value is None else np.zeros_like(leaf)
            digest.update(f"{group}/{name} float32 {array.shape}".encode())
            digest.update(array.astype("<f4").tobytes())
    assert state_hash(state) == digest.hexdigest()


def updates(config: OptimizerConfig, gradients: dict) -> dict:
    optimizer = make_optimizer(config, 10)
    params = {name: jnp.zeros_like(leaf) for name, leaf in gradients.items()}
    return optimizer.update(gradients, optimizer.init(params), params)[0]


def test_muon_orthogonalises_kernels_and_leaves_the_rest_to_adamw():
    keys = iter(jax.random.split(jax.random.key(0), 9))
    shapes = {
        "linear/kernel": (24, 12),
        "blocks/q/kernel": (3, 16, 16),
        "conv/kernel": (1, 3, 3, 4, 8),
        "blocks/q/bias": (3, 16),
        "blocks/modulation": (3, 6, 16),
    }
    gradients = {name: jax.random.normal(next(keys), shape) for name, shape in shapes.items()}
    settings = {"learning_rate": 0.1, "warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 1e9}
    muon = updates(OptimizerConfig(name="muon", **settings), gradients)
    adamw = updates(OptimizerConfig(**settings), gradients)
    for name in ("blocks/q/bias", "blocks/modulation"):
        ratio = muon[name] / adamw[name]  # Nesterov's momentum, 1.47 times a first step
        np.testing.assert_allclose(ratio, ratio.ravel()[0], rtol=1e-4)
    matrices = [muon["linear/kernel"], *muon["blocks/q/kernel"], muon["conv/kernel"]]
    for matrix in matrices:
        matrix = matrix.reshape(-1, matrix.shape[-1])
        values = jnp.linalg.svd(matrix, compute_uv=False)
        assert values.max() < 2 * values.min()  # five Newton-Schulz steps, not the exact ones
        size = jnp.sqrt(jnp.mean(jnp.square(matrix)))
        assert 0.1 * 0.2 * 0.6 < size < 0.1 * 0.2 * 1.4  # a fifth of the rate, as AdamW's


def test_the_hash_finds_muons_moments():
    gradients = {"a/kernel": jnp.eye(3), "b": jnp.ones(2)}
    optimizer = make_optimizer(OptimizerConfig(name="muon"), 3)
    state = init_state(gradients, optimizer)
    moved = optimizer.update(gradients, state.opt_state, gradients)[1]
    assert state_hash(state) != state_hash(dataclasses.replace(state, opt_state=moved))
    with pytest.raises(InputError, match="'lion'; take 'adamw' or 'muon'"):
        make_optimizer(OptimizerConfig(name="lion"), 3)
