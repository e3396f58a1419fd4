"""The DiT against diffusers' WanTransformer3DModel."""

import copy
import dataclasses
import functools
import warnings

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from realisvsr_jax.model.layers import rope_table
from realisvsr_jax.model.wan_dit import Context, DiTConfig, WanDiT
from realisvsr_jax.weights.dit_keymap import rules
from tests.parity import peers
from tests.parity.peers import PART, STACK, Row, relative_error
from tests.random_networks import fast_jit

# Head dimension 20 splits 8 / 6 / 6: unequal, as 128 does.
CONFIG = DiTConfig(
    dim=80,
    ffn_dim=112,
    num_heads=4,
    num_layers=5,
    in_channels=6,
    out_channels=6,
    text_dim=24,
    text_length=9,
    freq_dim=32,
)
GRID = (3, 3, 5)
LATENT = (2, *(size * patch for size, patch in zip(GRID, CONFIG.patch_size)), CONFIG.in_channels)
TEXT_STATES = 6  # the rest of the text is zeros


@functools.cache
def peer():
    return peers.transformer(CONFIG)


@functools.cache
def ours(**changes) -> WanDiT:
    """Our network with the peer's parameters, perhaps in other arithmetic."""
    config = dataclasses.replace(CONFIG, **changes)
    constructor = lambda: WanDiT(config, rngs=nnx.Rngs(0))  # noqa: E731
    return peers.filled(constructor, rules(), peers.state_dict(peer()), CONFIG.num_layers)


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latent, timestep and text."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(LATENT).astype(np.float32)
    text = rng.standard_normal((2, CONFIG.text_length, CONFIG.text_dim)).astype(np.float32)
    text[:, TEXT_STATES:] = 0
    return z, np.array([371.0, 874.0], np.float32), text


def run_ours(model: WanDiT, z, timestep, text) -> np.ndarray:
    """Its velocity; compiled anew, since tests put mistakes into the code."""
    run = fast_jit(lambda model, *x: model(*x))
    return np.asarray(run(model, *map(jnp.asarray, (z, timestep, text))))


@torch.no_grad()
def run_peer(model, z, timestep, text, dtype=torch.float32) -> np.ndarray:
    """Its velocity for our arrays."""
    z, text = (x.to(dtype) for x in (peers.channels_first(z), torch.from_numpy(text)))
    return peers.channels_last(model(z, torch.from_numpy(timestep), text, return_dict=False)[0])


@torch.no_grad()
def blocks() -> list[Row]:
    """Every block by itself, on the same random tokens."""
    rng = np.random.default_rng(1)
    length = int(np.prod(GRID))
    x = rng.standard_normal((2, length, CONFIG.dim)).astype(np.float32)
    text = rng.standard_normal((2, CONFIG.text_length, CONFIG.dim)).astype(np.float32)
    modulation = rng.standard_normal((2, 6, CONFIG.dim)).astype(np.float32)
    turns = peer().rope(peers.channels_first(inputs()[0]))
    given = [torch.from_numpy(a) for a in (x, text, modulation)]
    rope = rope_table(GRID, CONFIG.head_dim)
    time = jnp.zeros((2, CONFIG.dim))
    context = Context(time, jnp.asarray(modulation), jnp.asarray(text), rope)
    graph, layers = nnx.split(ours().blocks)
    run = fast_jit(lambda layer, x: nnx.merge(graph, layer)(x, context))
    errors = []
    for index, block in enumerate(peer().blocks):
        layer = nnx.map_state(lambda _, p, i=index: p[i], layers)
        errors.append(relative_error(run(layer, jnp.asarray(x)), block(*given, turns).numpy()))
    name = f"DiT block, worst of {CONFIG.num_layers}"
    return [Row(name, "diffusers", peers.times(*x.shape), peers.worst(errors), PART)]


def whole() -> list[Row]:
    """Latent to velocity in float32."""
    error = relative_error(run_ours(ours(), *inputs()), run_peer(peer(), *inputs()))
    return [Row("DiT", "diffusers", peers.times(*LATENT), error, STACK)]


def rounded_peer():
    """The peer as `from_pretrained(torch_dtype=torch.bfloat16)` would load it."""
    model = copy.deepcopy(peer())
    for name, parameter in model.named_parameters():
        if not set(name.split(".")) & set(model._keep_in_fp32_modules):
            parameter.data = parameter.data.bfloat16()
    return model


def official_peer():
    """The peer in Wan2.1's arithmetic: autocast, but time, head and the stream in float32."""
    model = copy.deepcopy(peer())
    for name in ("condition_embedder.time_embedder", "condition_embedder.time_proj", "proj_out"):
        module = model.get_submodule(name)
        module.forward = torch.autocast("cpu", enabled=False)(module.forward)
    model.patch_embedding.register_forward_hook(lambda _, inputs, out: out.float())
    return torch.autocast("cpu", dtype=torch.bfloat16)(model)


def bfloat16() -> list[Row]:
    """Rounding alone, which for ours may be half as large again as for the peer."""
    shape, exact = peers.times(*LATENT), run_peer(peer(), *inputs())
    with warnings.catch_warnings():
        # Under autocast, as in Wan2.1, the weights of norm_q and norm_k stay float32.
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        official = run_peer(official_peer(), *inputs())
    rounded = run_peer(rounded_peer(), *inputs(), torch.bfloat16)
    rows = []
    for residual, name, theirs in (
        ("float32", "diffusers, Wan2.1's bfloat16", official),
        ("bfloat16", "diffusers, bfloat16", rounded),
    ):
        velocity = run_ours(ours(dtype="bfloat16", residual_dtype=residual), *inputs())
        limit = relative_error(theirs, exact)
        component = f"DiT, bfloat16, residual {residual}"
        rows += [
            Row(name, "diffusers", shape, limit, None),
            Row(component, "diffusers", shape, relative_error(velocity, exact), 1.5 * limit),
            Row(component, name, shape, relative_error(velocity, theirs), 1.5 * limit),
        ]
    return rows
