"""The velocity: guidance, the control branch's strength, tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import fast_jit

from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.sampling.denoise import make_velocity
from realisvsr_jax.sampling.tiles import plan_tiles
from realisvsr_jax.weights.release import load_release

SIZE = (3, 4, 6)
WHOLE = plan_tiles(SIZE, SIZE, (0, 0, 0))
TIME = jnp.float32(700)


def latent(seed):
    return jax.random.normal(jax.random.key(seed), (1, *SIZE, 4))


@pytest.fixture(scope="module")
def release(tiny_release):
    return load_release(tiny_release)


@pytest.fixture(scope="module")
def texts(release):
    return [jnp.asarray(release.prompts.lookup(prompt))[None] for prompt in ("sharp", "")]


@pytest.fixture(scope="module")
def network(release):
    """The network itself, `(z, condition, text)`."""
    run = fast_jit(lambda model, z, condition, text: model(z, TIME[None], condition, text))
    return functools.partial(run, release.model)


@pytest.fixture(scope="module")
def velocity(release):
    """`make_velocity` at latents 0 and 1, compiled once a tiling and kind of guidance."""

    fast = {"compiler_options": {"xla_backend_optimization_level": 0}}

    @functools.partial(jax.jit, static_argnames="tiling", **fast)
    def run(model, text, negative, guidance, condition_scale, tiling):
        scales = {"guidance": guidance, "condition_scale": condition_scale}
        function = make_velocity(model, latent(1), text, tiling, negative=negative, **scales)
        return function(latent(0), TIME)

    def call(text, negative=None, guidance=1.0, condition_scale=1.0, tiling=WHOLE):
        return run(release.model, text, negative, guidance, condition_scale, tiling)

    return call


def test_without_guidance_it_is_the_network(velocity, network, texts):
    expected = network(latent(0), latent(1), texts[0])
    np.testing.assert_allclose(velocity(texts[0]), expected, atol=1e-6)


def test_one_forward_without_guidance_and_two_with_it(release, texts, monkeypatch):
    calls = []
    monkeypatch.setattr(RealisVSR, "__call__", lambda self, z, *a, **k: calls.append(a) or z)
    make_velocity(release.model, latent(1), texts[0], WHOLE, guidance=3.0)(latent(0), TIME)
    assert len(calls) == 1
    guided = make_velocity(release.model, latent(1), texts[0], WHOLE, negative=texts[1])
    guided(latent(0), TIME)
    assert len(calls) == 3


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_goes_from_the_negative_prompt_through_the_prompt(
    velocity, network, texts, guidance
):
    positive, negative = (network(latent(0), latent(1), text) for text in texts)
    assert np.abs(positive - negative).max() > 1e-3
    expected = negative + guidance * (positive - negative)
    np.testing.assert_allclose(velocity(*texts, guidance), expected, atol=3e-6)


def test_a_condition_scale_of_0_is_the_plain_transformer(release, velocity, texts):
    plain = fast_jit(lambda dit, z, text: dit(z, TIME[None], text))
    expected = plain(release.model.dit, latent(0), texts[0])
    np.testing.assert_allclose(velocity(texts[0], condition_scale=0.0), expected, atol=1e-6)
    assert np.abs(velocity(texts[0]) - expected).max() > 1e-3


def test_a_tile_is_the_network_on_its_part_of_both_latents(velocity, network, texts):
    fused = velocity(texts[0], tiling=plan_tiles(SIZE, (2, 4, 4), (1, 0, 2)))
    corner = (slice(None), slice(0, 2), slice(0, 4), slice(0, 4))
    alone = network(latent(0)[corner], latent(1)[corner], texts[0])
    # Only the first tile sees this place.
    np.testing.assert_allclose(fused[:, 0, :, :2], alone[:, 0, :, :2], atol=1e-6)
    assert fused.shape == (1, *SIZE, 4)
