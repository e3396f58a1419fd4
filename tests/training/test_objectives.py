import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from realisvsr_jax.losses.hr import HRLossConfig
from realisvsr_jax.training.objectives import RestorationObjective, enlarged
from realisvsr_jax.training.settings import FlowConfig
from realisvsr_jax.training.state import partition
from realisvsr_jax.weights.release import load_release

PLAIN = HRLossConfig(wavelet=0.0, hog=0.0)


@pytest.fixture(scope="module")
def setting(tiny_release):
    """(objective, params, frozen, batch, keys) for the plain flow loss on two stills."""
    release = load_release(tiny_release)
    parts, params = partition(release.model, ("cpc/.*", "gamma"))
    graph, vae = nnx.split(release.vae)
    objective = RestorationObjective(parts, graph, FlowConfig(), PLAIN, condition_scale=1.0)
    gt = np.random.default_rng(1).integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8)
    batch = {"gt": jnp.asarray(gt), "lq": jnp.asarray(gt[:, :, ::4, ::4])}
    batch["text"] = jnp.zeros((2, 4, 8))
    keys = jax.random.split(jax.random.key(0), 2)
    return objective, params, {"network": parts.frozen, "vae": vae}, batch, keys


def test_stored_latents_give_the_loss_of_their_pixels(setting):
    objective, params, frozen, batch, keys = setting
    prepared = objective.prepare(frozen, batch)
    stored = {name: prepared[name] for name in ("gt_latent", "lq_latent", "text")}
    from_pixels = objective.loss(params, frozen, prepared, keys)[0]
    from_latents = objective.loss(params, frozen, objective.prepare(frozen, stored), keys)[0]
    assert float(from_pixels) == float(from_latents)


def test_the_condition_is_the_enlarged_clip_encoded_like_the_truth(setting):
    objective, _, frozen, batch, _ = setting
    vae = nnx.merge(objective.vae_graph, frozen["vae"])
    latent = objective.prepare(frozen, batch)["lq_latent"]
    np.testing.assert_allclose(latent, vae.encode(enlarged(batch)), atol=1e-5)


def test_terms_without_weight_are_not_there_and_the_others_sum(setting):
    objective, params, frozen, batch, keys = setting
    prepared = objective.prepare(frozen, batch)
    total, metrics = objective.loss(params, frozen, prepared, keys)
    assert set(metrics) == {"loss", "rec", "rec_gradient"}
    assert float(total) == float(metrics["rec"])
    weights = HRLossConfig(rec=0.5, wavelet=2.0, wavelet_weights=(1.0, 1.0, 1.0, 1.0), hog=0.0)
    both = dataclasses.replace(objective, loss_weights=weights)
    total, metrics = both.loss(params, frozen, prepared, keys)
    # Bands of weight 1 are the flow loss itself (Parseval).
    np.testing.assert_allclose(metrics["wavelet"], metrics["rec"], rtol=1e-5)
    np.testing.assert_allclose(total, 2.5 * metrics["rec"], rtol=1e-5)
    np.testing.assert_allclose(metrics["wavelet_gradient"], 4 * metrics["rec_gradient"], rtol=1e-4)


def test_gradients_reach_the_control_branch_and_gamma_alone(setting):
    objective, params, frozen, batch, keys = setting
    prepared = objective.prepare(frozen, batch)
    gradient = jax.grad(lambda p: objective.loss(p, frozen, prepared, keys)[0])(params)
    assert {name.split("/")[0] for name in gradient} == {"cpc", "gamma"}
    assert all(float(jnp.abs(gradient[name]).max()) > 0 for name in ("gamma", "cpc/out/kernel"))


def test_the_condition_scale_reaches_the_network(setting):
    objective, params, frozen, batch, keys = setting
    prepared = objective.prepare(frozen, batch)
    silent = dataclasses.replace(objective, condition_scale=0.0)
    other = prepared | {"lq_latent": -prepared["lq_latent"]}
    same = [float(silent.loss(params, frozen, b, keys)[0]) for b in (prepared, other)]
    assert same[0] == same[1]
    seen = [float(objective.loss(params, frozen, b, keys)[0]) for b in (prepared, other)]
    assert seen[0] != seen[1]
