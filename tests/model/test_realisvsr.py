"""Transformer and control branch together: the start, who gets which feature, gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_networks import drawn, fast_jit, random

from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import WAN_1_3B, WAN_14B, RealisVSR, RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig

DIT = DiTConfig(
    dim=24,
    ffn_dim=32,
    num_heads=2,
    num_layers=5,
    in_channels=3,
    out_channels=3,
    text_dim=6,
    text_length=4,
    freq_dim=8,
)
CONFIG = RealisVSRConfig(DIT, CPCConfig(num_blocks=2))  # r = 3
BASELINE = RealisVSRConfig(DIT, CPCConfig(num_blocks=2, inject_noisy_latent=True))
CONFIGS = {"cpc": CONFIG, "baseline": BASELINE}

new = fast_jit(lambda: RealisVSR(CONFIG, rngs=nnx.Rngs(0)))
new_baseline = fast_jit(lambda: RealisVSR(BASELINE, rngs=nnx.Rngs(0)))
NEW = {"cpc": new, "baseline": new_baseline}


def inputs():
    z, condition = random(2, 2, 4, 6, 3), random(2, 2, 4, 6, 3, seed=2)
    return z, jnp.array([371.0, 874.5]), condition, random(2, 3, 6, seed=3)


@fast_jit
def run(model, z, time, condition, text, scale=1.0):
    return model(z, time, condition, text, condition_scale=scale)


@fast_jit
def run_plain(model, z, time, condition, text):
    return model.dit(z, time, text)


@fast_jit
def gradients(model):
    graph, state = nnx.split(model)

    def loss(state):
        return jnp.sin(nnx.merge(graph, state)(*inputs())).sum()

    return jax.grad(loss)(state)


def relative_error(a, b) -> float:
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


def random_model() -> RealisVSR:
    return drawn(lambda: RealisVSR(CONFIG, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("config", "count"), [(WAN_1_3B, 1_614_302_814), (WAN_14B, 16_176_893_544)]
)
def test_the_number_of_parameters(config, count):
    state = nnx.state(nnx.eval_shape(lambda: RealisVSR(config, rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count
    if config is WAN_1_3B:
        assert abs(count / 1.6e9 - 1) < 0.02  # the paper's "approximately 1.6B"


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_new_branch_injects_exactly_nothing(kind):
    model = NEW[kind]()
    with_features = run(model, *inputs())
    # The same program, its features times 0.
    np.testing.assert_array_equal(with_features, run(model, *inputs(), 0.0))
    assert relative_error(with_features, run_plain(model, *inputs())) < 1e-6
    assert np.abs(with_features).max() > 0.01


def test_a_new_branch_is_a_copy_of_the_transformers_start():
    model = new()
    np.testing.assert_array_equal(model.gamma[...], np.ones(5))
    embedding = model.cpc.patch_embedding.kernel[...]
    np.testing.assert_array_equal(embedding, model.dit.patch_embedding.kernel[...])
    theirs = jax.tree.leaves(nnx.state(model.dit.blocks))
    for copy, original in zip(jax.tree.leaves(nnx.state(model.cpc.blocks)), theirs, strict=True):
        np.testing.assert_array_equal(copy, original[:2])


def test_copying_follows_the_weights_that_were_loaded():
    model = random_model()
    before = jax.tree.map(jnp.copy, nnx.state(model.dit))
    model.init_cpc_from_dit()
    np.testing.assert_array_equal(
        model.cpc.blocks.self_attn.q.kernel[...], model.dit.blocks.self_attn.q.kernel[:2]
    )
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model.dit), before)
    baseline = drawn(lambda: RealisVSR(BASELINE, rngs=nnx.Rngs(0)))
    kept = np.asarray(baseline.cpc.patch_embedding.kernel[...])
    baseline.init_cpc_from_dit()
    embedding = baseline.cpc.noisy_patch_embedding.bias[...]
    np.testing.assert_array_equal(embedding, baseline.dit.patch_embedding.bias[...])
    np.testing.assert_array_equal(baseline.cpc.patch_embedding.kernel[...], kept)


def test_scale_0_leaves_the_plain_transformer_and_scale_multiplies_gamma():
    model = random_model()
    full, none, double = (run(model, *inputs(), scale) for scale in (1.0, 0.0, 2.0))
    assert relative_error(none, run_plain(model, *inputs())) < 1e-6
    assert relative_error(full, none) > 1e-2
    model.gamma[...] = 2 * model.gamma[...]
    np.testing.assert_allclose(run(model, *inputs()), double, atol=1e-5)


@pytest.mark.parametrize(("only", "blocks"), [(0, [0, 1, 2]), (1, [3, 4])])
def test_feature_m_reaches_the_blocks_whose_index_over_r_is_m(only, blocks):
    model = random_model()
    for parameter in (model.cpc.out.kernel, model.cpc.out.bias):
        parameter[...] = parameter[...].at[1 - only].set(0.0)
    by_gamma = np.asarray(gradients(model)["gamma"][...])
    assert np.flatnonzero(by_gamma).tolist() == blocks


def test_every_feature_has_its_run_of_blocks():
    assert (WAN_1_3B.interval, WAN_14B.interval) == (8, 8)
    assert CONFIG.interval == 3


@pytest.mark.parametrize("kind", CONFIGS)
def test_at_the_start_gradients_reach_the_zero_linears_alone(kind):
    found = gradients(NEW[kind]())
    for name, parameter in found["cpc"]["out"].items():
        for block in np.asarray(parameter[...]):
            assert np.abs(block).max() > 1e-4, name
    rest = [found["gamma"], *(found["cpc"][part] for part in found["cpc"] if part != "out")]
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(rest))


def test_later_gradients_reach_every_parameter_of_branch_and_gamma():
    found = gradients(random_model())
    for path, leaf in nnx.to_flat_state(nnx.State({k: found[k] for k in ("cpc", "gamma")})):
        assert (np.abs(leaf[...]) > 0).mean() > 0.9, path


def test_a_control_block_that_no_layer_uses_is_refused():
    dit = dataclasses.replace(DIT, num_layers=30)
    with pytest.raises(ValueError, match=r"7 control blocks.*only 6 would be used") as error:
        RealisVSRConfig(dit, CPCConfig(num_blocks=7))
    assert "set cpc.num_blocks to 6" in str(error.value)
    for blocks in (1, 4, 6, 15, 30):
        RealisVSRConfig(dit, CPCConfig(num_blocks=blocks))


def test_a_condition_of_another_size_is_refused():
    z, time, condition, text = inputs()
    with pytest.raises(ValueError, match=r"condition is \(2, 1, 4, 6, 3\), the latent \(2, 2, 4"):
        random_model()(z, time, condition[:, :1], text)


def test_a_latent_between_patches_is_refused():
    z, time, condition, text = inputs()
    with pytest.raises(ValueError, match="does not divide into patches"):
        jax.eval_shape(random_model(), z[:, :, :3], time, condition[:, :, :3], text)
