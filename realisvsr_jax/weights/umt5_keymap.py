"""Names and layouts of the UMT5 encoder's tensors, PyTorch's and ours, in both directions.

One table serves both ways. "diffusers" are the names of transformers' UMT5EncoderModel, as in
the `text_encoder` folder of a diffusers checkpoint; "wan" are those of the original release's
models_t5_umt5-xxl-enc-bf16.pth.

transformers has its embedding under two names that are one tensor, `shared.weight` and
`encoder.embed_tokens.weight`, and a checkpoint holds either or both. Either is read, and both
where they are equal. Only `shared.weight` is written, since 4 GB need not be stored twice:
`from_pretrained` ties the other to it, a bare `load_state_dict` wants `strict=False`.
"""

from realisvsr_jax.weights import keymap
from realisvsr_jax.weights.keymap import MATRIX, SAME, Rule

# ours, diffusers, Wan2.1, what it is; inside `blocks` every row stands once a layer.
_MODULES = (
    ("embedding", "shared", "token_embedding", "table"),
    ("norm", "encoder.final_layer_norm", "norm", "rms"),
)
_BLOCK_MODULES = (
    ("norm1", "layer.0.layer_norm", "norm1", "rms"),
    ("attn/q", "layer.0.SelfAttention.q", "attn.q", "linear"),
    ("attn/k", "layer.0.SelfAttention.k", "attn.k", "linear"),
    ("attn/v", "layer.0.SelfAttention.v", "attn.v", "linear"),
    ("attn/o", "layer.0.SelfAttention.o", "attn.o", "linear"),
    (
        "attn/position_bias",
        "layer.0.SelfAttention.relative_attention_bias",
        "pos_embedding.embedding",
        "table",
    ),
    ("norm2", "layer.1.layer_norm", "norm2", "rms"),
    ("ffn/gate", "layer.1.DenseReluDense.wi_0", "ffn.gate.0", "linear"),
    ("ffn/up", "layer.1.DenseReluDense.wi_1", "ffn.fc1", "linear"),
    ("ffn/down", "layer.1.DenseReluDense.wo", "ffn.fc2", "linear"),
)
_BLOCK = ("blocks/", "encoder.block.{layer}.", "blocks.{layer}.")

# The one parameter of each kind of module: our name and its layout; PyTorch's is `.weight`.
_PARAMETERS = {"linear": ("/kernel", MATRIX), "rms": ("/scale", SAME), "table": ("", SAME)}


def rules(dialect: str = "diffusers") -> tuple[Rule, ...]:
    """Every parameter of the encoder; `dialect` is "diffusers" or "wan", else ValueError."""
    column = keymap.column(dialect)
    table = []
    for modules, prefix, stacked in (
        (_MODULES, ("", "", ""), False),
        (_BLOCK_MODULES, _BLOCK, True),
    ):
        for row in modules:
            name, layout = _PARAMETERS[row[3]]
            ours, torch = prefix[0] + row[0] + name, prefix[column] + row[column] + ".weight"
            table.append(Rule(ours, torch, layout, stacked))
    return tuple(table)
