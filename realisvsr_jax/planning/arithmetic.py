"""The arithmetic that a step or a restoration asks for, counted from shapes.

A multiplication and an addition are 2 FLOP; only products are counted, of matrices and of
convolutions.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr

from realisvsr_jax.model.realisvsr import RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE

Size = tuple[int, int, int]


def block(dit: DiTConfig, latent: Size) -> tuple[float, float]:
    """(products with weights and cross-attention, self-attention) of one block, forward."""
    patch = math.prod(dit.patch_size)
    tokens, text = math.prod(latent) // patch, dit.text_length
    products = 2 * tokens * (6 * dit.dim**2 + 2 * dit.dim * dit.ffn_dim)
    products += 2 * text * 2 * dit.dim**2
    cross = 4 * tokens * text * dit.dim
    return float(products + cross), float(4 * tokens**2 * dit.dim)


def forward(model: RealisVSRConfig, latent: Size) -> Mapping[str, float]:
    """Of one clip through the blocks of the DiT and of its control branch."""
    dit, cpc = model.dit, model.cpc
    once = sum(block(dit, latent))
    parts = {"dit": dit.num_layers * once}
    if cpc is not None:
        parts["cpc"] = cpc.num_blocks * (once + _out(dit, latent))
    return parts


def training(model: RealisVSRConfig, batch_size: int, latent: Size) -> Mapping[str, float]:
    """Of one training step, by part, in forwards: the control branch 3; the frozen DiT 2 for
    products with weights and 3 for self-attention, its block 0 only 1, since the features join at
    a block's output. `recomputed` is what rematerialisation does a second time.
    """
    dit, cpc = model.dit, model.cpc
    assert cpc is not None
    weights, attention = block(dit, latent)
    once = weights + attention
    frozen = once + (dit.num_layers - 1) * (2 * weights + 3 * attention)
    control = 3 * cpc.num_blocks * (once + _out(dit, latent))
    # Where attention is kept, fused kernels form scores a second time in any case.
    scores = attention / 2 if dit.attention == "xla" else 0.0
    again = {"none": 0.0, "dots": scores, "attention": weights + scores, "block": once}
    recomputed = again[dit.remat] * (dit.num_layers + cpc.num_blocks)
    parts = {"dit": frozen, "cpc": control, "recomputed": recomputed}
    return {name: batch_size * value for name, value in parts.items()}


def _out(dit: DiTConfig, latent: Size) -> float:
    """The linear after each control block."""
    return 2.0 * math.prod(latent) // math.prod(dit.patch_size) * dit.dim**2


def encode(config: VAEConfig, video: Size, chunk: int = 0) -> float:
    """Of one clip (T, H, W) through the VAE's encoder, `chunk` frames at a time; 0: all."""
    shape = jax.ShapeDtypeStruct((1, *video, 3), jnp.float32)
    if chunk:
        return counted(lambda vae, x: vae.encode_stream(x, chunk), _abstract(config), shape)
    return counted(lambda vae, x: vae.encode(x), _abstract(config), shape)


def decode(config: VAEConfig, latent: Size) -> float:
    """Of one latent (t, h, w) through the VAE's decoder."""
    shape = jax.ShapeDtypeStruct((1, *latent, config.z_dim), jnp.float32)
    return counted(lambda vae, z: vae.decode(z), _abstract(config), shape)


def _abstract(config: VAEConfig) -> WanVAE:
    return nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))


def counted(function: Any, network: Any, *arguments: Any) -> float:
    """Of `function(network, *arguments)`, whose arguments are shapes."""
    graph, state = nnx.split(network)

    def of_arrays(state: Any, *arguments: Any) -> Any:
        return function(nnx.merge(graph, state), *arguments)

    return flops(jax.make_jaxpr(of_arrays)(state, *arguments).jaxpr)


def flops(jaxpr: Jaxpr) -> float:
    """Of a traced program; a scan counts as often as it runs, of a branch the larger side."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
            inner = math.prod(left[axis] for axis in contracted)
            total += 2.0 * inner * _size(equation.outvars[0])
        elif name == "conv_general_dilated":
            numbers = parameters["dimension_numbers"]
            kernel = equation.invars[1].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
            inner = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
            total += 2.0 * inner * _size(equation.outvars[0])
        elif name == "cond":
            total += max(flops(branch.jaxpr) for branch in parameters["branches"])
        else:
            times = parameters["length"] if name == "scan" else 1
            total += times * sum(flops(inner) for inner in _inside(parameters))
    return total


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _inside(parameters: Mapping[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
