"""The transformer: sizes, scan and loop, rematerialisation, precision, text, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_networks import drawn, fast_jit, random

from realisvsr_jax.model.realisvsr import WAN_1_3B, WAN_14B
from realisvsr_jax.model.wan_dit import Control, DiTConfig, WanDiT

CONFIG = DiTConfig(
    dim=24,
    ffn_dim=32,
    num_heads=2,
    num_layers=5,
    in_channels=3,
    out_channels=4,
    text_dim=6,
    text_length=4,
    freq_dim=8,
)
TIMES = jnp.array([371.0, 874.5])


def random_dit(**changes) -> WanDiT:
    config = dataclasses.replace(CONFIG, **changes)
    return drawn(lambda: WanDiT(config, rngs=nnx.Rngs(0)))


def inputs(text_length=3):
    return random(2, 3, 4, 6, 3), TIMES, random(2, text_length, CONFIG.text_dim, seed=2)


def control() -> Control:
    return Control(random(2, 2, 18, CONFIG.dim, seed=3), random(5, seed=4), interval=3)


def relative_error(a, b) -> float:
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@fast_jit
def run(model, *arguments):
    return model(*arguments)


@pytest.mark.parametrize(
    ("config", "count"), [(WAN_1_3B.dit, 1_418_996_800), (WAN_14B.dit, 14_288_491_584)]
)
def test_the_number_of_parameters_is_wans(config, count):
    state = nnx.state(nnx.eval_shape(lambda: WanDiT(config, rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    blocks = jax.tree.leaves(state["blocks"])
    assert all(leaf.shape[0] == config.num_layers for leaf in blocks)


def test_the_scan_equals_a_loop_over_blocks_with_feature_i_over_r():
    model, features = random_dit(), control()
    z, time, text = inputs()

    @fast_jit
    def loop(model):
        context = model.context(time, text, model.grid(z))
        x = model.patch_embedding(z)
        graph, layers = nnx.split(model.blocks)
        for i in range(CONFIG.num_layers):
            block = nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], layers))
            x = block(x, context)
            if features is not None:
                x = x + features.weights[i] * features.features[(0, 0, 0, 1, 1)[i]]
        # Tokens (t, h, w), and the head's outputs (1, 2, 2, c), to a latent.
        patches = model.head(x, context.time).reshape(2, 3, 2, 3, 2, 2, 4)
        return patches.transpose(0, 1, 2, 4, 3, 5, 6).reshape(2, 3, 4, 6, 4)

    expected = loop(model)
    assert relative_error(fast_jit(lambda m: m(z, time, text, control()))(model), expected) < 1e-5
    assert relative_error(run(model, *inputs()), expected) > 1e-2


def test_every_remat_policy_gives_the_same_gradients():
    z, time, text = inputs()
    direction = random(2, 3, 4, 6, 4, seed=5)
    results = {}
    policies = ("dots", "attention", "block")
    for policy in ("none", *policies):
        graph, state = nnx.split(random_dit(remat=policy, num_layers=2))

        def loss(state, graph=graph):
            return jnp.vdot(nnx.merge(graph, state)(z, time, text), direction)

        gradient = jax.grad(loss)
        assert ("remat" in str(jax.make_jaxpr(gradient)(state))) == (policy != "none")
        results[policy] = jax.tree.leaves(fast_jit(gradient)(state))
    for policy in policies:
        for ours, plain in zip(results[policy], results["none"]):
            np.testing.assert_allclose(ours, plain, atol=1e-4 * float(jnp.abs(plain).max()))


def test_bfloat16_compute_keeps_the_stream_in_the_residual_dtype():
    exact = run(random_dit(), *inputs())
    outputs = []
    for residual in ("float32", "bfloat16"):
        model = random_dit(dtype="bfloat16", residual_dtype=residual)
        program = jax.make_jaxpr(lambda m, *x: m(*x))(model, *inputs())
        (scan,) = [equation for equation in program.eqns if equation.primitive.name == "scan"]
        carried = scan.outvars[0].aval
        assert carried.dtype == jnp.dtype(residual)
        outputs.append(run(model, *inputs()))
        assert outputs[-1].dtype == jnp.float32
        assert 1e-5 < relative_error(outputs[-1], exact) < 5e-2
    assert not np.array_equal(*outputs)


def test_text_is_padded_with_zeros_that_are_attended_to():
    model = random_dit()
    z, time, text = inputs(text_length=2)
    padded = jnp.pad(text, ((0, 0), (0, 2), (0, 0)))
    short = run(model, z, time, text)
    np.testing.assert_array_equal(short, run(model, z, time, padded))
    graph = nnx.graphdef(random_dit(text_length=2))
    masked = run(nnx.merge(graph, nnx.state(model)), z, time, text)
    assert relative_error(masked, short) > 1e-3


def test_the_output_depends_on_every_input():
    model = random_dit()
    z, time, text = inputs()
    base = run(model, z, time, text)
    for changed in ((z + 0.1, time, text), (z, time + 30.0, text), (z, time, text + 0.5)):
        assert relative_error(run(model, *changed), base) > 1e-3


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="5 text states given, the model takes 4"):
        random_dit()(*inputs(text_length=5))


def test_a_latent_between_patches_is_refused():
    z, time, text = inputs()
    with pytest.raises(ValueError, match=r"\(3, 4, 5\) \(t, h, w\) does not divide into patches"):
        jax.eval_shape(random_dit(), z[:, :, :, :5], time, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 25}, "dim 25 does not divide into 2 heads"),
        ({"dim": 6}, "even head dimension, not 3"),
        ({"freq_dim": 7}, "freq_dim is 7, it must be even"),
        ({"dtype": "float16"}, "dtype is 'float16'; known: float32, bfloat16"),
        ({"residual_dtype": "fp32"}, "residual_dtype is 'fp32'; known: float32, bfloat16"),
        ({"remat": "full"}, "unknown remat policy 'full'; known: none, dots, attention, block"),
        ({"attention": "flash"}, "unknown attention backend 'flash'; known: xla, cudnn"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
