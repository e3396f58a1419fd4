"""Every parameter has a place, and what cannot be shared out says so before anything compiles."""

import dataclasses

import jax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh

from realisvsr_jax.errors import InputError
from realisvsr_jax.mesh import AXES, MeshConfig
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import WAN_1_3B, WAN_14B, RealisVSR
from realisvsr_jax.training import sharding
from realisvsr_jax.vae.wan_vae import TINY_VAE, WAN_VAE, WanVAE

NOISY = dataclasses.replace(WAN_1_3B, cpc=CPCConfig(4, inject_noisy_latent=True))


def mesh_of(**sizes):
    """A mesh of no devices."""
    return AbstractMesh(tuple((dict.fromkeys(AXES, 1) | sizes).values()), AXES)


def shapes(constructor):
    state = nnx.state(nnx.eval_shape(constructor))
    return {"/".join(map(str, p)): tuple(leaf.shape) for p, leaf in nnx.to_flat_state(state)}


@pytest.mark.parametrize("config", [WAN_1_3B, WAN_14B, NOISY], ids=["1.3B", "14B", "baseline"])
def test_matrices_are_shared_out_among_all_devices(config):
    mesh = mesh_of(fsdp=4, seq_heads=4, tensor=4)
    for path, shape in shapes(lambda: RealisVSR(config, rngs=nnx.Rngs(0))).items():
        found = sharding.spec(path, shape, mesh)
        entries = [(entry,) if isinstance(entry, str) else entry or () for entry in found]
        axes = [axis for entry in entries for axis in entry]
        assert len(set(axes)) == len(axes), path
        if path.endswith("kernel") and len(shape) > 1:
            assert "fsdp" in axes, path
            if "blocks" in path:
                assert "tensor" in axes, path


@pytest.mark.parametrize("config", [WAN_VAE, TINY_VAE])
def test_every_device_has_the_vae(config):
    for path, shape in shapes(lambda: WanVAE(config, rngs=nnx.Rngs(0))).items():
        assert sharding.spec(path, shape, mesh_of(fsdp=8)) == sharding.P()


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(InputError, match=r"no rule says how to shard lora/a \(3, 4\)"):
        sharding.spec("lora/a", (3, 4), mesh_of())


def test_an_axis_that_does_not_divide_is_an_error():
    message = (
        r"cpc/out/kernel \(4, 1536, 1536\) has an axis of 1536, which fsdp 5 × seq_kv 1 × "
        r"seq_heads 2 = 10 devices do not divide"
    )
    with pytest.raises(InputError, match=message):
        sharding.spec("cpc/out/kernel", (4, 1536, 1536), mesh_of(fsdp=5, seq_heads=2))


@pytest.mark.parametrize(
    ("batch", "accumulate", "sizes", "count"),
    [(8, 8, {}, 8), (8, 0, {}, 8), (8, 0, {"fsdp": 4}, 2), (8, 0, {"data": 2, "fsdp": 4}, 1)],
)
def test_micro_batches(batch, accumulate, sizes, count):
    assert sharding.micro_batches(batch, accumulate, mesh_of(**sizes)) == count


@pytest.mark.parametrize(
    ("batch", "accumulate", "sizes", "message"),
    [
        (8, 3, {}, r"accumulate = 3 does not divide data\.batch_size = 8"),
        (8, 8, {"fsdp": 4}, r"= 4 devices do not divide the 1 clips of a micro-batch"),
        (8, 0, {"fsdp": 16}, r"= 16 devices do not divide the 8 clips"),
    ],
)
def test_batches_that_cannot_be_shared_out(batch, accumulate, sizes, message):
    with pytest.raises(InputError, match=message):
        sharding.micro_batches(batch, accumulate, mesh_of(**sizes))


def test_one_device_needs_no_mesh():
    assert sharding.training_mesh(MeshConfig(), 12) is None
    assert sharding.mesh_in_use() is None
    assert len(jax.devices()) == 1
