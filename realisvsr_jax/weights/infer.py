"""Architectures read off a checkpoint's own tensors; its config.json says only what they cannot.

Wan's config.json omits the text's width and the patch size, and a single file has none at all.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from realisvsr_jax.errors import InputError
from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.text.umt5 import UMT5Config
from realisvsr_jax.vae.wan_vae import WAN_MEAN, WAN_STD, VAEConfig
from realisvsr_jax.weights import dit_keymap, keymap, umt5_keymap
from realisvsr_jax.weights.readers import Tensors

WAN_HEAD_DIM = 128
IMAGE_TO_VIDEO = "an image-to-video transformer"
# Parts of names that only these have.
OTHER_KINDS = {
    IMAGE_TO_VIDEO: ("img_emb.", "image_embedder.", ".k_img.", ".add_k_proj."),
    "a VACE transformer": ("vace_",),
}


def dit_config(tensors: Tensors, dialect: str, config: Mapping[str, Any], where: Any) -> DiTConfig:
    """Of a Wan text-to-video transformer; raises InputError for its other kinds."""
    if other := _other_kind(tensors, config):
        raise InputError(f"{where}: {other}; only text to video can be converted")
    shape = _Shapes(tensors, dit_keymap.rules(dialect), where)
    dim, in_channels, *patch = shape("patch_embedding/kernel", 5)
    out_channels = shape("head/linear/kernel", 2)[0] // math.prod(patch)
    if in_channels != out_channels:
        raise InputError(
            f"{where}: a transformer that takes {in_channels} channels and gives {out_channels}, "
            "so it has inputs beside the video's latent (image, control, inpainting); only text "
            "to video can be converted"
        )
    heads = config.get("num_heads", config.get("num_attention_heads"))
    if heads is None:
        if dim % WAN_HEAD_DIM:
            raise InputError(
                f"{where}: nothing says how many heads a width of {dim} has; put the "
                "checkpoint's config.json beside it"
            )
        heads = dim // WAN_HEAD_DIM
    return _made(
        DiTConfig,
        where,
        dim=dim,
        ffn_dim=shape("blocks/ffn/up/kernel", 2)[0],
        num_heads=heads,
        num_layers=count(tensors, r"blocks\.(\d+)\."),
        in_channels=in_channels,
        out_channels=out_channels,
        patch_size=tuple(patch),
        text_dim=shape("text_embedding/up/kernel", 2)[1],
        text_length=config.get("text_len", DiTConfig.text_length),
        freq_dim=shape("time_embedding/up/kernel", 2)[1],
        eps=config.get("eps", DiTConfig.eps),
    )


def _other_kind(tensors: Tensors, config: Mapping[str, Any]) -> str:
    """What a transformer is that does more than text to video, '' for one that does not."""
    for kind, marks in OTHER_KINDS.items():
        if any(mark in name for name in tensors for mark in marks):
            return kind
    if (kind := config.get("model_type", "t2v")) != "t2v":
        return f"a transformer of Wan's kind {kind!r}"
    if config.get("image_dim") is not None or config.get("added_kv_proj_dim") is not None:
        return IMAGE_TO_VIDEO
    return ""


def vae_config(tensors: Tensors, dialect: str, config: Mapping[str, Any], where: Any) -> VAEConfig:
    """Of a causal Wan VAE; the latents' mean and deviation are Wan's where nothing says more."""
    wan = dialect == "wan"
    first = _shape(tensors, "encoder.conv1.weight" if wan else "encoder.conv_in.weight", 5, where)
    latent = _shape(tensors, "conv2.weight" if wan else "post_quant_conv.weight", 5, where)
    prefix = "encoder.downsamples" if wan else "encoder.down_blocks"
    stages: list[list[int]] = [[]]
    temporal = []
    for i in range(count(tensors, re.escape(prefix) + r"\.(\d+)\.")):
        block = f"{prefix}.{i}"
        convolution = f"{block}.residual.6.weight" if wan else f"{block}.conv2.weight"
        if convolution in tensors:
            stages[-1].append(_shape(tensors, convolution, 5, where)[0])
        else:
            stages.append([])
            temporal.append(f"{block}.time_conv.weight" in tensors)
    base, z_dim = first[0], latent[0]
    depths = {len(stage) for stage in stages}
    if len(depths) > 1 or depths == {0}:
        raise InputError(f"{where}: no VAE of Wan's; its stages have {sorted(depths)} blocks")
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        if z_dim != len(WAN_MEAN):
            raise InputError(
                f"{where}: nothing says the mean and deviation of {z_dim} latent channels; put "
                "the VAE's config.json (latents_mean, latents_std) beside it"
            )
        mean, std = WAN_MEAN, WAN_STD
    return _made(
        VAEConfig,
        where,
        base_dim=base,
        multipliers=tuple(stage[0] // base for stage in stages),
        z_dim=z_dim,
        encoder_blocks=len(stages[0]),
        decoder_blocks=len(stages[0]) + 1,
        temporal_downsample=tuple(temporal),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
    )


def umt5_config(
    tensors: Tensors, dialect: str, config: Mapping[str, Any], where: Any
) -> UMT5Config:
    """Of a UMT5 encoder; the embedding has its first name here."""
    shape = _Shapes(tensors, umt5_keymap.rules(dialect), where)
    vocabulary, d_model = shape("embedding", 2)
    buckets, heads = shape("blocks/attn/position_bias", 2)
    return _made(
        UMT5Config,
        where,
        vocab_size=vocabulary,
        d_model=d_model,
        d_kv=shape("blocks/attn/q/kernel", 2)[0] // heads,
        num_heads=heads,
        d_ff=shape("blocks/ffn/up/kernel", 2)[0],
        num_layers=count(tensors, r"(?:blocks|encoder\.block)\.(\d+)\."),
        num_buckets=buckets,
        max_distance=config.get("relative_attention_max_distance", UMT5Config.max_distance),
        eps=config.get("layer_norm_epsilon", UMT5Config.eps),
    )


class _Shapes:
    """Shapes on PyTorch's side by our names, of a stack's first layer."""

    def __init__(self, tensors: Tensors, rules: Iterable[keymap.Rule], where: Any):
        self.names = {rule.ours: rule.torch.format(layer=0) for rule in rules}
        self.tensors, self.where = tensors, where

    def __call__(self, ours: str, rank: int) -> tuple[int, ...]:
        return _shape(self.tensors, self.names[ours], rank, self.where)


def _shape(tensors: Tensors, name: str, rank: int, where: Any) -> tuple[int, ...]:
    if name not in tensors:
        raise InputError(f"{where}: 1 tensor missing: {name}")
    tensor = tensors[name]
    if tensor.value.ndim != rank:
        raise InputError(
            f"{tensor.path}: {name} has shape {tensor.value.shape}; {rank} axes are expected"
        )
    return tensor.value.shape


def count(tensors: Tensors, pattern: str) -> int:
    """Layers, by the highest number in a name."""
    found = [match for name in tensors if (match := re.match(pattern, name))]
    return 1 + max((int(match[1]) for match in found), default=-1)


def _made(kind: Any, where: Any, **values: Any) -> Any:
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
