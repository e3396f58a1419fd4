"""Names and layouts of the VAE's tensors, PyTorch's and ours, in both directions.

Sources: diffusers autoencoder_kl_wan.py; for Wan2.1_VAE.pth, Wan2.1 vae.py. The rows follow the
network itself, so that any width and any number of blocks has its table.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from flax import nnx

from realisvsr_jax.errors import InputError
from realisvsr_jax.vae.blocks import ResidualBlock
from realisvsr_jax.vae.wan_vae import Half, Middle, VAEConfig, WanVAE
from realisvsr_jax.weights import keymap
from realisvsr_jax.weights.keymap import CONV, SAME, Layout, Rule

Row = tuple[str, str, str, str]

# ours, diffusers, Wan2.1, what it is.
_LATENT: tuple[Row, ...] = (
    ("to_moments", "quant_conv", "conv1", "conv"),
    ("from_latent", "post_quant_conv", "conv2", "conv"),
)
_ENDS: tuple[Row, ...] = (
    ("conv_in", "conv_in", "conv1", "conv"),
    ("norm", "norm_out", "head.0", "norm"),
    ("conv_out", "conv_out", "head.2", "conv"),
)
_RESIDUAL: tuple[Row, ...] = (
    ("norm1", "norm1", "residual.0", "norm"),
    ("conv1", "conv1", "residual.2", "conv"),
    ("norm2", "norm2", "residual.3", "norm"),
    ("conv2", "conv2", "residual.6", "conv"),
)
_SHORTCUT: Row = ("shortcut", "conv_shortcut", "shortcut", "conv")
_ATTENTION: tuple[Row, ...] = (
    ("norm", "norm", "norm", "image_norm"),
    ("qkv", "to_qkv", "to_qkv", "pointwise"),
    ("out", "proj", "proj", "pointwise"),
)
_SPACE: Row = ("space", "resample.1", "resample.1", "image_conv")
_TIME: Row = ("time", "time_conv", "time_conv", "conv")

# The parameters of each kind of module: our name, PyTorch's, layout.
_NORM = Layout(lambda x: x[:, 0, 0, 0], lambda x: x[:, None, None, None])
_IMAGE_NORM = Layout(lambda x: x[:, 0, 0], lambda x: x[:, None, None])
# [d, c, h, w] there, [1, h, w, c, d] here.
_IMAGE_CONV = Layout(lambda x: x.transpose(2, 3, 1, 0)[None], lambda x: x[0].transpose(3, 2, 0, 1))
# [d, c, 1, 1] there, [c, d] here.
_POINTWISE = Layout(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
_PARAMETERS = {
    "conv": (("/kernel", ".weight", CONV), ("/bias", ".bias", SAME)),
    "image_conv": (("/kernel", ".weight", _IMAGE_CONV), ("/bias", ".bias", SAME)),
    "pointwise": (("/kernel", ".weight", _POINTWISE), ("/bias", ".bias", SAME)),
    "norm": (("/gain", ".gamma", _NORM),),
    "image_norm": (("/gain", ".gamma", _IMAGE_NORM),),
}


def rules(config: VAEConfig, dialect: str = "diffusers") -> tuple[Rule, ...]:
    """Every parameter of the VAE; `dialect` is "diffusers" or "wan", else ValueError.

    Raises InputError for a VAE that PyTorch's code cannot be: its norm and its number of
    decoder blocks are fixed there.
    """
    column = keymap.column(dialect)
    if config.norm != "rms" or config.decoder_blocks != config.encoder_blocks + 1:
        raise InputError(
            "PyTorch's VAE has norm 'rms' and one block a stage more in the decoder than in the "
            f"encoder; this one has {config.norm!r}, {config.decoder_blocks} and "
            f"{config.encoder_blocks}"
        )
    network = nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    rows = [
        *_LATENT,
        *_under("encoder", "encoder", "encoder", _encoder_rows(network.encoder)),
        *_under("decoder", "decoder", "decoder", _decoder_rows(network.decoder, config)),
    ]
    return tuple(
        Rule(row[0] + ours, row[column] + torch, layout)
        for row in rows
        for ours, torch, layout in _PARAMETERS[row[3]]
    )


def _encoder_rows(half: Half) -> Iterator[Row]:
    yield from _ENDS
    for i, layer in enumerate(half.chain):
        if isinstance(layer, Middle):
            yield from _under(f"chain/{i}", "mid_block", "middle", _middle_rows(layer))
        else:
            yield from _under(f"chain/{i}", f"down_blocks.{i}", f"downsamples.{i}", _rows(layer))


def _decoder_rows(half: Half, config: VAEConfig) -> Iterator[Row]:
    """diffusers counts blocks by stage; Wan, like us, in one chain, but without the middle."""
    yield from _ENDS
    yield from _under("chain/0", "mid_block", "middle", _middle_rows(half.chain[0]))
    for i, layer in enumerate(half.chain[1:]):
        stage, place = divmod(i, config.decoder_blocks + 1)
        kind = f"resnets.{place}" if isinstance(layer, ResidualBlock) else "upsamplers.0"
        theirs = f"up_blocks.{stage}.{kind}"
        yield from _under(f"chain/{i + 1}", theirs, f"upsamples.{i}", _rows(layer))


def _middle_rows(middle: Middle) -> Iterator[Row]:
    yield from _under("before", "resnets.0", "0", _rows(middle.before))
    yield from _under("attention", "attentions.0", "1", _ATTENTION)
    yield from _under("after", "resnets.1", "2", _rows(middle.after))


def _rows(layer: Any) -> Iterator[Row]:
    """A residual block, or a resampling one."""
    if isinstance(layer, ResidualBlock):
        yield from _RESIDUAL
        if layer.shortcut is not None:
            yield _SHORTCUT
    else:
        yield _SPACE
        if layer.time is not None:
            yield _TIME


def _under(ours: str, diffusers: str, wan: str, rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield f"{ours}/{row[0]}", f"{diffusers}.{row[1]}", f"{wan}.{row[2]}", row[3]
