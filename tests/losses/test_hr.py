"""The HR loss is the sum of its terms, and what has no weight is not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.losses.hog import HOGConfig, hog_loss
from realisvsr_jax.losses.hr import HRLossConfig, hr_loss
from realisvsr_jax.losses.wavelet import wavelet_loss
from realisvsr_jax.settings import from_mapping, to_mapping


def pair(shape=(2, 2, 24, 24, 3)):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(2))


def test_the_defaults_are_the_papers():
    velocity, target = pair()
    total, terms = hr_loss(velocity, target)
    assert list(terms) == ["rec", "wavelet", "hog"]
    assert float(terms["rec"]) == pytest.approx(float(jnp.mean((velocity - target) ** 2)))
    expected = wavelet_loss(velocity, target, (1.0, 2.0, 2.0, 2.0))
    assert float(terms["wavelet"]) == pytest.approx(float(expected))
    assert float(terms["hog"]) == pytest.approx(float(hog_loss(velocity, target)))
    assert float(total) == pytest.approx(sum(map(float, terms.values())), rel=1e-6)


def test_terms_are_reported_before_their_weights():
    velocity, target = pair()
    plain = hr_loss(velocity, target)[1]
    total, terms = hr_loss(velocity, target, HRLossConfig(rec=0.5, wavelet=2.0, hog=3.0))
    for name, value in plain.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-6)
    expected = 0.5 * plain["rec"] + 2.0 * plain["wavelet"] + 3.0 * plain["hog"]
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", ["rec", "wavelet", "hog"])
def test_a_term_without_weight_is_not_computed(name):
    velocity, target = pair((1, 1, 7, 9, 2)) if name != "rec" else pair()
    odd = {"rec": {}, "wavelet": {"hog": 0.0}, "hog": {"wavelet": 0.0}}[name]
    terms = hr_loss(velocity, target, HRLossConfig(**{name: 0.0, **odd}))[1]
    assert name not in terms
    assert terms


def test_no_term_at_all_is_an_error():
    with pytest.raises(ValueError, match="weight 0"):
        hr_loss(*pair(), HRLossConfig(rec=0.0, wavelet=0.0, hog=0.0))


def test_the_gradient_is_zero_at_the_target_and_finite_elsewhere():
    velocity, target = pair()
    gradient = jax.jit(jax.grad(lambda v: hr_loss(v, target)[0]))
    assert float(jnp.abs(gradient(target)).max()) < 1e-8
    assert np.isfinite(gradient(velocity)).all()
    assert np.isfinite(gradient(jnp.zeros_like(target))).all()


def test_settings_make_the_round_trip():
    config = HRLossConfig(
        hog=0.3, wavelet_weights=(1.0, 1.5, 1.5, 1.5), hog_features=HOGConfig(bins=6)
    )
    assert from_mapping(HRLossConfig, to_mapping(config)) == config
