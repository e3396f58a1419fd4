import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realisvsr_jax.training.settings import OptimizerConfig
from realisvsr_jax.training.state import init_state, make_optimizer
from realisvsr_jax.training.step import clip_keys, make_train_step


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """Pulls `w` towards each clip's target plus noise that only its key decides."""

    def prepare(self, frozen, batch):
        return batch | {"target": batch["target"] + frozen}

    def loss(self, params, frozen, batch, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, params["w"].shape))(keys)
        loss = jnp.mean(jnp.square(params["w"] - batch["target"] - noise))
        return loss, {"loss": loss}


def stepped(batch, *, accumulate=1, steps=1, seed=0, ema_decay=0.9):
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, warmup_steps=0), 10)
    step = make_train_step(
        Quadratic(), optimizer, seed=seed, accumulate=accumulate, ema_decay=ema_decay
    )
    state = init_state({"w": jnp.zeros(2)}, optimizer)
    metrics = {}
    for _ in range(steps):
        state, metrics = step(state, jnp.ones(()), batch)
    return state, metrics


def batch_of(*targets):
    targets = jnp.asarray(targets, jnp.float32)[:, None] * jnp.ones(2)
    return {"target": targets, "position": jnp.arange(len(targets), dtype=jnp.uint32)}


def test_micro_batches_give_the_gradient_of_the_whole():
    batch = batch_of(1, 2, 3, 4)
    (whole, a), (split, b) = stepped(batch), stepped(batch, accumulate=2)
    np.testing.assert_allclose(whole.params["w"], split.params["w"], rtol=1e-6)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6)


def test_draws_belong_to_the_clip_and_not_to_its_place_in_memory():
    batch = batch_of(1, 2, 3, 4)
    turned = {name: value[::-1] for name, value in batch.items()}
    np.testing.assert_allclose(stepped(batch)[1]["loss"], stepped(turned)[1]["loss"], rtol=1e-6)
    keys = clip_keys(0, jnp.asarray(5), batch["position"])
    assert len({bytes(np.asarray(jax.random.key_data(key))) for key in keys}) == 4
    other = clip_keys(0, jnp.asarray(6), batch["position"])
    assert not np.array_equal(jax.random.key_data(keys), jax.random.key_data(other))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_the_clock(bad):
    state, metrics = stepped(batch_of(1, bad))
    assert float(metrics["skipped"]) == 1.0
    assert int(state.step) == 1
    fresh = stepped(batch_of(1, 2), steps=0)[0]
    unchanged = dataclasses.replace(state, step=fresh.step)
    for leaf, before in zip(jax.tree.leaves(unchanged), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(leaf, before)


def test_the_average_warms_up_and_follows_the_parameters():
    state, _ = stepped(batch_of(3), ema_decay=0.9)
    # After one step the decay is 1/10, so the average has gone nine tenths of the way.
    np.testing.assert_allclose(state.ema["w"], 0.9 * state.params["w"], rtol=1e-5)


def test_a_large_gradient_is_clipped():
    optimizer = make_optimizer(OptimizerConfig(clip_norm=0.5), 10)
    params = {"w": jnp.zeros(2)}
    _, state = optimizer.update({"w": jnp.full(2, 1e3)}, optimizer.init(params), params)
    moment = optax.tree_utils.tree_get(state, "mu")["w"]
    np.testing.assert_allclose(jnp.linalg.norm(moment), 0.1 * 0.5, rtol=1e-5)
