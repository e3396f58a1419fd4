import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.sampling.preview import preview_picture
from realisvsr_jax.weights.release import Release, load_release


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    gt = rng.integers(0, 256, (3, 3, 16, 24, 3), dtype=np.uint8)
    return {"gt": gt, "lq": gt[:, :, ::4, ::4], "text": np.zeros((3, 4, 8), np.float32)}


def test_a_row_a_clip_with_input_result_and_truth(tiny_release, batch):
    picture = preview_picture(load_release(tiny_release), batch)
    assert picture.shape == (2 * 16, 3 * 24, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:16, 48:], batch["gt"][0, -1])
    np.testing.assert_array_equal(picture[16:, 48:], batch["gt"][1, -1])


def test_latents_show_as_their_pixels_would(tiny_release, batch):
    release = load_release(tiny_release)
    video = batch["gt"].astype(np.float32) / 127.5 - 1
    latent = release.vae.encode(jnp.asarray(video))
    stored = {"gt_latent": latent, "lq_latent": latent, "text": batch["text"]}
    picture = preview_picture(release, stored)
    decoded = np.asarray(release.vae.decode(latent)[0, -1])
    shown = picture[:16, 48:].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(shown, decoded, atol=1 / 127)


def test_a_vae_shows_its_round_trip(tiny_release, batch):
    release = load_release(tiny_release)
    picture = preview_picture(Release(release.card, release.vae), batch)
    np.testing.assert_array_equal(picture[:16, 48:], batch["gt"][0, -1])
    assert not np.array_equal(picture[:16, 24:48], picture[:16, 48:])
