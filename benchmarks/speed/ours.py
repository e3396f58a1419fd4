"""Our side: the package's own networks and programs, with weights from the peer's file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.speed.cases import Case, inputs
from benchmarks.speed.worker import Run
from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.training.state import partition
from realisvsr_jax.vae.wan_vae import WanVAE
from realisvsr_jax.weights import assembly, dit_keymap, keymap, vae_keymap
from realisvsr_jax.weights.readers import read_tensors

EMBEDDING = "patch_embedding/kernel"


def load(case: Case, weights: Path) -> tuple[Run, str]:
    """Compiled; see `worker.Run`."""
    network = built(case, weights)
    given = {name: jnp.asarray(value) for name, value in inputs(case).items()}
    patterns = {"step": ("cpc/.*", "gamma")}.get(case.work, (".*",))
    parts, params = partition(network, patterns)
    del network
    frozen = parts.frozen

    def program(params: Any, frozen: Any, given: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        if case.work in ("backward", "step"):
            loss, gradients = jax.value_and_grad(
                lambda p: mean_square(case, parts.merge(p, frozen), given)
            )(params)
            return {"loss": loss} | gradients
        return {"out": output(case, parts.merge(params, frozen), given)}

    compiled = jax.jit(program).lower(params, frozen, given).compile()

    def run() -> Mapping[str, Any]:
        results = jax.block_until_ready(compiled(params, frozen, given))
        return results if "out" in results else summary(case, results)

    return run, jax.devices()[0].device_kind


def built(case: Case, weights: Path) -> nnx.Module:
    """The network in float32; of a bfloat16 one, `dtype` is what it computes in."""
    tensors = read_tensors([weights])
    if case.is_vae:
        pairs = keymap.pairs(vae_keymap.rules(case.vae))
        constructor: Any = lambda: WanVAE(case.vae, rngs=nnx.Rngs(0))  # noqa: E731
    else:
        model, layers = case.model, case.model.dit.num_layers
        pairs = keymap.pairs(dit_keymap.rules(), layers, ("dit",))
        if model.cpc is not None:
            pairs += keymap.pairs(
                dit_keymap.cpc_rules(model.cpc.inject_noisy_latent), model.cpc.num_blocks
            )
        constructor = lambda: RealisVSR(model, rngs=nnx.Rngs(0))  # noqa: E731
    renamed = keymap.renamed(pairs, tensors, assembly.expected(constructor), weights)
    return assembly.build(constructor, renamed, weights)


def output(case: Case, network: Any, given: Mapping[str, jax.Array]) -> jax.Array:
    """Video, latent or velocity."""
    if case.work == "encode":
        return network.encode(given["video"])
    if case.work == "decode":
        return network.decode(given["latent"])
    if case.work == "step":
        return network(given["z_t"], given["timestep"], given["condition"], given["text"])
    return network.dit(given["z_t"], given["timestep"], given["text"])


def mean_square(case: Case, network: Any, given: Mapping[str, jax.Array]) -> jax.Array:
    """The loss, of the velocity."""
    return jnp.mean(jnp.square(output(case, network, given) - given["target"]))


def summary(case: Case, results: Mapping[str, jax.Array]) -> dict[str, Any]:
    """The loss and the gradient of the first layer, through which all others go."""
    first = ("cpc/" if case.work == "step" else "dit/") + EMBEDDING
    return {"loss": results["loss"], "gradient": results[first]}
