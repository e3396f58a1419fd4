"""Names and layouts of the Wan DiT's tensors, PyTorch's and ours, in both directions.

One table serves both ways. Our side is flat: 'blocks/self_attn/q/kernel' (relative to the
DiT), with the layers of a block parameter stacked on a leading axis. PyTorch's side is a
state dict under diffusers' names or under those of the original Wan2.1 release.
"""

from collections.abc import Iterator, Sequence

from realisvsr_jax.weights import keymap
from realisvsr_jax.weights.keymap import CONV, MATRIX, SAME, Layout, Rule

_TEXT = "condition_embedder.text_embedder"
_TIME = "condition_embedder.time_embedder"

# ours, diffusers, Wan2.1, what it is; inside `blocks` every row stands once a layer.
_MODULES = (
    ("patch_embedding", "patch_embedding", "patch_embedding", "conv"),
    ("text_embedding/up", f"{_TEXT}.linear_1", "text_embedding.0", "linear"),
    ("text_embedding/down", f"{_TEXT}.linear_2", "text_embedding.2", "linear"),
    ("time_embedding/up", f"{_TIME}.linear_1", "time_embedding.0", "linear"),
    ("time_embedding/down", f"{_TIME}.linear_2", "time_embedding.2", "linear"),
    ("time_projection", "condition_embedder.time_proj", "time_projection.1", "linear"),
    ("head/linear", "proj_out", "head.head", "linear"),
    ("head/modulation", "scale_shift_table", "head.modulation", "table"),
)
_BLOCK_MODULES = (
    ("self_attn/q", "attn1.to_q", "self_attn.q", "linear"),
    ("self_attn/k", "attn1.to_k", "self_attn.k", "linear"),
    ("self_attn/v", "attn1.to_v", "self_attn.v", "linear"),
    ("self_attn/o", "attn1.to_out.0", "self_attn.o", "linear"),
    ("self_attn/norm_q", "attn1.norm_q", "self_attn.norm_q", "rms"),
    ("self_attn/norm_k", "attn1.norm_k", "self_attn.norm_k", "rms"),
    ("cross_attn/q", "attn2.to_q", "cross_attn.q", "linear"),
    ("cross_attn/k", "attn2.to_k", "cross_attn.k", "linear"),
    ("cross_attn/v", "attn2.to_v", "cross_attn.v", "linear"),
    ("cross_attn/o", "attn2.to_out.0", "cross_attn.o", "linear"),
    ("cross_attn/norm_q", "attn2.norm_q", "cross_attn.norm_q", "rms"),
    ("cross_attn/norm_k", "attn2.norm_k", "cross_attn.norm_k", "rms"),
    # The norm before cross-attention: diffusers numbers norms by place, Wan by its own count.
    ("norm3", "norm2", "norm3", "layer_norm"),
    ("ffn/up", "ffn.net.0.proj", "ffn.0", "linear"),
    ("ffn/down", "ffn.net.2", "ffn.2", "linear"),
    ("modulation", "scale_shift_table", "modulation", "table"),
)
_CPC_MODULES = (
    ("patch_embedding", "patch_embedding", "patch_embedding", "conv"),
    ("noisy_patch_embedding", "noisy_patch_embedding", "noisy_patch_embedding", "conv"),
)
_CPC_OUT = (("out", "out.{layer}", "out.{layer}", "linear"),)

# [1, n, d] there, [n, d] here.
_TABLE = Layout(lambda x: x[0], lambda x: x[None])

# The parameters of each kind of module: our name, PyTorch's, layout.
_PARAMETERS = {
    "linear": (("/kernel", ".weight", MATRIX), ("/bias", ".bias", SAME)),
    "conv": (("/kernel", ".weight", CONV), ("/bias", ".bias", SAME)),
    "layer_norm": (("/scale", ".weight", SAME), ("/bias", ".bias", SAME)),
    "rms": (("/scale", ".weight", SAME),),
    "table": (("", "", _TABLE),),
}


def rules(dialect: str = "diffusers") -> tuple[Rule, ...]:
    """Every parameter of the DiT; `dialect` is "diffusers" or "wan", else ValueError."""
    blocks = ("blocks/", "blocks.{layer}.")
    return (*_rules(_MODULES, dialect), *_rules(_BLOCK_MODULES, dialect, blocks, stacked=True))


def cpc_rules(noisy: bool, dialect: str = "diffusers") -> tuple[Rule, ...]:
    """Every parameter of the control branch and γ; PyTorch has no code for it.

    Its blocks are Wan's and have Wan's names, or diffusers', under `cpc.`. `noisy`: the
    baseline's, with its second patch embedding.
    """
    embeddings = (*_CPC_MODULES[:1], *(_CPC_MODULES[1:] if noisy else ()))
    top, blocks, out = ("cpc/", "cpc."), ("cpc/blocks/", "cpc.blocks.{layer}."), ("cpc/", "cpc.")
    return (
        *_rules(embeddings, dialect, top),
        *_rules(_BLOCK_MODULES, dialect, blocks, stacked=True),
        *_rules(_CPC_OUT, dialect, out, stacked=True),
        Rule("gamma", "gamma", SAME),
    )


def _rules(
    table: Sequence[tuple[str, str, str, str]],
    dialect: str,
    prefix: tuple[str, str] = ("", ""),
    stacked: bool = False,
) -> Iterator[Rule]:
    column = keymap.column(dialect)
    for row in table:
        for ours, torch, layout in _PARAMETERS[row[3]]:
            yield Rule(prefix[0] + row[0] + ours, prefix[1] + row[column] + torch, layout, stacked)
