import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.evals.fidelity import psnr
from realisvsr_jax.resize import to_float
from realisvsr_jax.sampling.restore import Restorer
from realisvsr_jax.sampling.validation import Validator
from realisvsr_jax.training.objectives import enlarged
from realisvsr_jax.weights.release import Release, load_release


@pytest.fixture(scope="module")
def release(tiny_release):
    return load_release(tiny_release)


@pytest.fixture(scope="module")
def batches(release):
    rng = np.random.default_rng(0)
    text = release.prompts.lookup("sharp")[None]
    return [
        {
            "gt": rng.integers(0, 256, (1, 5, 32, 40, 3), dtype=np.uint8),
            "lq": rng.integers(0, 256, (1, 5, 8, 10, 3), dtype=np.uint8),
            "text": text,
            "clip": ["a.mp4"],
        }
        for _ in range(2)
    ]


def test_scores_are_those_of_the_restored_clip(release, batches):
    """Against `Restorer` for the first pair, whose noise has the seed 0."""
    score = Validator(batches[:1])(release)
    model = Restorer(release)
    low = to_float(jnp.asarray(batches[0]["lq"]))[0]
    restored = model.restore(np.asarray(low), scale=4, prompt="sharp")
    truth = np.asarray(to_float(jnp.asarray(batches[0]["gt"]))[0])
    assert score["psnr"] == pytest.approx(psnr(restored, truth), abs=1e-3)
    assert 0.0 < score["lpips"] < 2.0


def test_calls_are_repeatable_and_the_control_branch_counts(release, batches):
    score = Validator(iter(batches))
    assert score(release) == score(release)
    assert score(release) != score(release, 0.0)


def test_a_vae_alone_is_scored_by_its_round_trips(release, batches):
    score = Validator(batches)(Release(release.card, release.vae))
    expected, low = [], []
    for batch in batches:
        for scores, video in (
            (expected, to_float(jnp.asarray(batch["gt"]))),
            (low, enlarged({name: jnp.asarray(batch[name]) for name in ("gt", "lq")})),
        ):
            again = release.vae.decode(release.vae.encode(video))
            scores.append(psnr(np.asarray(again), np.asarray(jnp.clip(video, -1, 1))))
    assert score["psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert score["psnr_low"] == pytest.approx(np.mean(low), abs=0.1)
