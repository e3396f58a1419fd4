"""Meshes of eight virtual devices against one device, forward and backward.

    python -m tests.model.mesh_equality          # those of the tests
    python -m tests.model.mesh_equality --all    # every valid mesh: make meshes

Prints a JSON line a mesh, and with --all fails where an error passes the tolerance.
"""

import itertools
import json
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from realisvsr_jax.mesh import BATCH, SEQ, MeshConfig, make_mesh
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.training import sharding
from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE
from tests.random_networks import drawn, random

TOLERANCE = 1e-5
NUM_HEADS = 4
# 45 tokens, which no number of devices divides.
LATENT = (8, 3, 6, 10, 4)
MODEL = RealisVSRConfig(
    DiTConfig(
        dim=64,
        ffn_dim=64,
        num_heads=NUM_HEADS,
        num_layers=3,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        text_length=4,
        freq_dim=16,
        remat="block",
    ),
    CPCConfig(num_blocks=2),
)
VAE = VAEConfig(
    base_dim=4, multipliers=(1, 2), z_dim=2, encoder_blocks=1, decoder_blocks=1,
    temporal_downsample=(True,), mean=(0.1, 0.2), std=(1.5, 0.5),
)  # fmt: skip
# Each axis at 2, the eights, 2×4 and 2×2×2; `tensor` takes as many as there are heads.
MESHES = [
    {"data": 2, "fsdp": 4},
    {"data": 1, "fsdp": 8},
    {"data": 8, "fsdp": 1},
    {"fsdp": 4, "seq": 2},
    {"fsdp": 2, "seq": 4},
    {"fsdp": 1, "seq": 8},
    {"fsdp": 4, "tensor": 2},
    {"fsdp": 2, "tensor": 4},
    {"data": 2, "fsdp": 1, "seq": 4},
    {"data": 2, "fsdp": 2, "seq": 2},
    {"fsdp": 2, "seq": 2, "tensor": 2},
    {"fsdp": 1, "seq": 4, "tensor": 2},
]


def main() -> None:
    """Compares and prints; JAX has not looked for devices before."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    )
    every = "--all" in sys.argv[1:]
    failed = 0
    for found in compared(all_meshes() if every else MESHES):
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        failed += max(found["errors"].values()) > TOLERANCE
    sys.exit(bool(every and failed))


def all_meshes() -> list[dict[str, int]]:
    """Every way to share eight devices out among the four axes."""
    sizes = itertools.product((1, 2, 4, 8), repeat=4)
    names = ("data", "fsdp", "seq", "tensor")
    return [
        dict(zip(names, size)) for size in sizes if np.prod(size) == 8 and NUM_HEADS % size[-1] == 0
    ]


def compared(meshes):
    """Relative errors of each mesh: the velocity, the worst gradient, the VAE's latents."""
    graph, state = nnx.split(drawn(lambda: RealisVSR(MODEL, rngs=nnx.Rngs(0)), scale=1.5))
    inputs = (random(*LATENT), jnp.linspace(10.0, 900.0, LATENT[0]), random(*LATENT, seed=2))
    text, wanted = random(LATENT[0], 4, 16, seed=3), random(*LATENT, seed=4)

    def loss(state, z, times, condition, text):
        velocity = nnx.merge(graph, state)(z, times, condition, text)
        return jnp.mean(jnp.square(velocity - wanted)), velocity

    program = jax.value_and_grad(loss, argnums=(0, 1, 3), has_aux=True)
    (_, velocity), gradients = jax.jit(program)(state, *inputs, text)
    vae = drawn(lambda: WanVAE(VAE, rngs=nnx.Rngs(0)))
    video = random(8, 5, 16, 12, 3, seed=5)
    latent = jax.jit(WanVAE.encode)(vae, video)
    for sizes in meshes:
        mesh = make_mesh(MeshConfig(**sizes), NUM_HEADS)
        with jax.set_mesh(mesh):
            placed = jax.device_put(state, sharding.of_state(state, mesh))
            (_, found), own = jax.jit(program)(placed, *inputs, text)
            space = NamedSharding(mesh, PartitionSpec(BATCH, None, SEQ))
            encoded = jax.jit(WanVAE.encode)(vae, jax.device_put(video, space))
        yield {
            "mesh": dict(mesh.shape),
            "errors": {
                "velocity": error(found, velocity),
                "gradients": max(
                    error(ours, theirs)
                    for ours, theirs in zip(jax.tree.leaves(own), jax.tree.leaves(gradients))
                ),
                "latent": error(encoded, latent),
            },
        }


def error(ours, theirs) -> float:
    """‖a − b‖ / ‖b‖."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


if __name__ == "__main__":
    main()
