"""What the comparisons with PyTorch share: random peers, ours filled from them, the error.

In a peer every parameter matters: none stands at its initial 0 or 1, and queries and keys are
wide enough for a peaked softmax, behind which no wrong scale, bias or rotation hides.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import diffusers
import numpy as np
import torch
import transformers
from einops import rearrange
from flax import nnx

from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.text.umt5 import UMT5Config
from realisvsr_jax.vae.wan_vae import VAEConfig
from realisvsr_jax.weights import assembly, keymap
from realisvsr_jax.weights.keymap import Rule
from realisvsr_jax.weights.readers import Tensor

PART, STACK = 1e-5, 1e-4
"""Tolerances in float32: of one block, sampler or VAE, and of a whole stack of blocks."""


class Row(NamedTuple):
    """One comparison; without a `tolerance` it is there to compare others with."""

    component: str
    reference: str
    shape: str
    error: float
    tolerance: float | None


def relative_error(ours, theirs) -> float:
    """‖a − b‖ / ‖b‖ in float64."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def worst(errors: Iterable[float]) -> float:
    """The largest; NaN where one is NaN."""
    return float(np.max([*errors]))


def times(*sizes: int) -> str:
    """A shape as 2×3×4."""
    return "×".join(map(str, sizes))


def channels_first(x) -> torch.Tensor:
    """Our latent or video as PyTorch's."""
    return torch.from_numpy(rearrange(np.array(x), "b t h w c -> b c t h w"))


def channels_last(x: torch.Tensor) -> np.ndarray:
    """PyTorch's latent or video as ours, float32."""
    return rearrange(x.detach().float().numpy(), "b c t h w -> b t h w c")


def state_dict(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """A peer's tensors by name."""
    return {name: value.numpy() for name, value in model.state_dict().items()}


def filled(
    constructor: Callable[[], nnx.Module],
    rules: Sequence[Rule],
    tensors: Mapping[str, np.ndarray],
    num_layers: int = 0,
) -> nnx.Module:
    """Our network with a peer's tensors, by the way that every checkpoint takes."""
    given = {name: Tensor(value, name, Path("peer")) for name, value in tensors.items()}
    pairs = keymap.pairs(rules, num_layers)
    renamed = keymap.renamed(pairs, given, assembly.expected(constructor), "the peer")
    return assembly.build(constructor, renamed, "the peer")


def fan_in(parameter: torch.Tensor) -> float:
    """Products summed for one output of a linear layer or convolution."""
    return math.prod(parameter.shape[1:])


def transformer(config: DiTConfig) -> diffusers.WanTransformer3DModel:
    """diffusers' DiT of our configuration, float32."""
    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(
        patch_size=config.patch_size,
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
    )
    for name, parameter in model.named_parameters():
        if "norm_q" in name or "norm_k" in name:
            parameter.data.uniform_(1.2, 2.2)
        elif name.endswith("norm2.weight"):
            parameter.data.uniform_(0.6, 1.6)
        elif name.endswith("bias") or "scale_shift_table" in name:
            parameter.data.normal_(0.0, 0.4)
        else:
            parameter.data.normal_(0.0, 1.2 * fan_in(parameter) ** -0.5)
    return model.eval()


def autoencoder(config: VAEConfig) -> diffusers.AutoencoderKLWan:
    """diffusers' VAE of our configuration but with its own latent statistics, float32."""
    torch.manual_seed(0)
    model = diffusers.AutoencoderKLWan(base_dim=config.base_dim, z_dim=config.z_dim)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.data.uniform_(0.6, 1.6)
        elif name.endswith("bias"):
            parameter.data.normal_(0.0, 0.3)
        else:
            wide = 2.0 if "to_qkv" in name else 1.0
            parameter.data.normal_(0.0, wide * fan_in(parameter) ** -0.5)
    model.decoder.conv_out.weight.data.mul_(0.3)  # so that most of it stays in [−1, 1]
    return model.eval()


def text_encoder(config: UMT5Config, attention: str) -> transformers.UMT5EncoderModel:
    """transformers' UMT5 of our configuration, float32; `attention` is "eager" or "sdpa"."""
    torch.manual_seed(0)
    model = transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            d_kv=config.d_kv,
            num_heads=config.num_heads,
            d_ff=config.d_ff,
            num_layers=config.num_layers,
            relative_attention_num_buckets=config.num_buckets,
            relative_attention_max_distance=config.max_distance,
            layer_norm_epsilon=config.eps,
            attn_implementation=attention,
        )
    )
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.6, 1.6)
        elif "relative_attention_bias" in name:
            parameter.data.normal_(0.0, 1.5)
        elif "shared" in name:
            parameter.data.normal_(0.0, 1.3)
        else:
            wide = name.endswith(("SelfAttention.q.weight", "SelfAttention.k.weight"))
            parameter.data.normal_(0.0, (1.6 if wide else 0.9) * fan_in(parameter) ** -0.5)
    return model.eval()
