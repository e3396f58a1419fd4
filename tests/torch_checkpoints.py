"""Small random checkpoints in the real formats, written by the reference implementations."""

import json
import string
from pathlib import Path

import diffusers
import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, processors

PAD, END, UNKNOWN = 0, 1, 3
SPECIAL = ["<pad>", "</s>", "<s>", "<unk>"]  # the unknown token is the fourth, unlike T5's
PIECES = ["▁", "▁a", "▁sharp", "▁video", "▁cat", *string.ascii_lowercase]
TEXT_DIM, LAYERS = 24, 3


def transformer() -> diffusers.WanTransformer3DModel:
    """Two heads of 20 channels, so that nothing is Wan's default."""
    torch.manual_seed(0)
    return _drawn(
        diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=20,
            in_channels=16,
            out_channels=16,
            text_dim=TEXT_DIM,
            freq_dim=32,
            ffn_dim=48,
            num_layers=LAYERS,
        )
    )


def vae() -> diffusers.AutoencoderKLWan:
    """Wan's, four channels wide, with Wan's own latents."""
    torch.manual_seed(1)
    return _drawn(diffusers.AutoencoderKLWan(base_dim=4))


def text_encoder() -> transformers.UMT5EncoderModel:
    """Two layers; three heads that together are not as wide as the stream."""
    torch.manual_seed(2)
    config = transformers.UMT5Config(
        vocab_size=len(SPECIAL + PIECES),
        d_model=TEXT_DIM,
        d_kv=4,
        num_heads=3,
        d_ff=32,
        num_layers=2,
    )
    return _drawn(transformers.UMT5EncoderModel(config))


def _drawn(model):
    """No parameter at its initial 0 or 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.eval()


def write_diffusers(folder: Path, shard: str = "40KB") -> Path:
    """A folder as WanPipeline.from_pretrained reads it, its transformer in shards."""
    transformer().save_pretrained(folder / "transformer", max_shard_size=shard)
    vae().save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text("{}")
    return folder


def write_wan(folder: Path) -> Path:
    """The same weights as the original release has them, its names made without our tables."""
    folder.mkdir(parents=True, exist_ok=True)
    dit = {_wan_dit(name): value for name, value in transformer().state_dict().items()}
    save_file(dit, folder / "diffusion_pytorch_model.safetensors")
    torch.save(
        {_wan_vae(name): value for name, value in vae().state_dict().items()},
        folder / "Wan2.1_VAE.pth",
    )
    encoder = text_encoder().state_dict()
    encoder.pop("encoder.embed_tokens.weight")
    torch.save(
        {_wan_t5(name): value.to(torch.bfloat16) for name, value in encoder.items()},
        folder / "models_t5_umt5-xxl-enc-bf16.pth",
    )
    write_tokenizer(folder / "google" / "umt5-xxl")
    config = {
        "_class_name": "WanModel",
        "model_type": "t2v",
        "dim": 40,
        "eps": 1e-6,
        "ffn_dim": 48,
        "freq_dim": 32,
        "in_dim": 16,
        "num_heads": 2,
        "num_layers": LAYERS,
        "out_dim": 16,
        "text_len": 512,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_tokenizer(folder: Path) -> Path:
    """A Unigram model that ends in `</s>`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [(piece, 0.0) for piece in SPECIAL]
    vocabulary += [(piece, -1.0 if len(piece) > 1 else -5.0) for piece in PIECES]
    model = tokenizers.Tokenizer(models.Unigram(vocabulary, UNKNOWN, False))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    model.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", END)]
    )
    model.add_special_tokens(SPECIAL)
    model.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "extra_ids": 0,
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The values of every file of weights under `path`, in float32."""
    found: dict[str, np.ndarray] = {}
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix == ".safetensors":
            loaded = load_file(file)
        elif file.suffix == ".pth":
            loaded = torch.load(file, weights_only=True)
        else:
            continue
        assert not found.keys() & loaded.keys()
        found |= {name: value.float().numpy() for name, value in loaded.items()}
    return found


def _replaced(name: str, pairs: str) -> str:
    for pair in pairs.split():
        before, after = pair.split("=")
        name = name.replace(before, after)
    return name


def _wan_dit(name: str) -> str:
    if name == "scale_shift_table":
        return "head.modulation"
    return _replaced(
        name,
        "attn1=self_attn attn2=cross_attn to_out.0=o to_q=q to_k=k to_v=v norm2=norm3 "
        "ffn.net.0.proj=ffn.0 ffn.net.2=ffn.2 scale_shift_table=modulation proj_out=head.head "
        "condition_embedder.text_embedder.linear_1=text_embedding.0 "
        "condition_embedder.text_embedder.linear_2=text_embedding.2 "
        "condition_embedder.time_embedder.linear_1=time_embedding.0 "
        "condition_embedder.time_embedder.linear_2=time_embedding.2 "
        "condition_embedder.time_proj=time_projection.1",
    )


def _wan_vae(name: str) -> str:
    if name.startswith(("quant_conv", "post_quant_conv")):
        return _replaced(name, "post_quant_conv=conv2 quant_conv=conv1")
    if name.startswith("decoder.up_blocks"):
        _, _, stage, kind, place, rest = name.split(".", 5)
        number = 4 * int(stage) + (int(place) if kind == "resnets" else 3)
        name = f"decoder.upsamples.{number}.{rest}"
    name = _replaced(
        name,
        "encoder.down_blocks=encoder.downsamples mid_block.resnets.0=middle.0 "
        "mid_block.attentions.0=middle.1 mid_block.resnets.1=middle.2 norm_out=head.0 "
        "conv_out=head.2 conv_in=conv1 conv_shortcut=shortcut",
    )
    if "middle.1" in name or name.startswith(("encoder.conv1", "decoder.conv1")):
        return name
    return _replaced(
        name, ".norm1=.residual.0 .conv1=.residual.2 .norm2=.residual.3 .conv2=.residual.6"
    )


def _wan_t5(name: str) -> str:
    return _replaced(
        name,
        "shared=token_embedding encoder.final_layer_norm=norm encoder.block=blocks "
        "layer.0.layer_norm=norm1 layer.1.layer_norm=norm2 "
        "layer.0.SelfAttention.relative_attention_bias=pos_embedding.embedding "
        "layer.0.SelfAttention=attn layer.1.DenseReluDense.wi_0=ffn.gate.0 "
        "layer.1.DenseReluDense.wi_1=ffn.fc1 layer.1.DenseReluDense.wo=ffn.fc2",
    )
