"""Releases as PyTorch checkpoints: the original Wan2.1 layout, or diffusers'."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.text.umt5 import UMT5Config
from realisvsr_jax.vae.wan_vae import WAN_MEAN, WAN_STD, VAEConfig
from realisvsr_jax.weights import assembly, dit_keymap, keymap, umt5_keymap, vae_keymap
from realisvsr_jax.weights.readers import first_sentence, read_tensors
from realisvsr_jax.weights.release import (
    PROMPTS,
    TOKENIZER,
    Kind,
    Release,
    ReleaseCard,
    load_card,
    new_folder,
    part,
)
from realisvsr_jax.weights.writers import Stored, save_tensors

log = logging.getLogger(__name__)

TENSORS = "diffusion_pytorch_model"
CONTROL = "realisvsr_cpc"
WAN_VAE_FILE, WAN_T5_FILE = "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"
WAN_TOKENIZER = "google/umt5-xxl"


def _kinds(folder: str, stem: str) -> tuple[str, ...]:
    names = (f"{stem}.safetensors", f"{stem}-*-of-*.safetensors", f"{stem}.safetensors.index.json")
    return tuple(f"{folder}{name}" for name in ("config.json", *names))


EXPORT = Kind(
    "an export",
    (
        *_kinds("", TENSORS),
        *_kinds("", CONTROL),
        *(WAN_VAE_FILE, WAN_T5_FILE, f"{WAN_TOKENIZER}/*.json", PROMPTS),
        *_kinds("transformer/", TENSORS),
        *_kinds("vae/", TENSORS),
        *_kinds("text_encoder/", "model"),
        *("tokenizer/*.json", "scheduler/scheduler_config.json", "model_index.json"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Exported:
    """What is to be exported: the card, tensors by part, tokenizer and prompts."""

    card: ReleaseCard
    parts: dict[str, dict[str, Stored]]
    tokenizer: Path | None = None
    prompts: PromptCache | None = None


def read_release(folder: Path) -> Exported:
    """A release folder's; the tensors are mapped, and as they are stored."""
    card = load_card(folder)
    parts = {
        name: {
            n: Stored(t.value, t.value.dtype, assembly.described(t))
            for n, t in part(folder, name).items()
        }
        for name in ("vae", "model", "text_encoder")
        if getattr(card, name) is not None
    }
    tokenizer, cache, prompts = folder / TOKENIZER, folder / PROMPTS, None
    if card.model is not None and cache.is_file():
        prompts = PromptCache.load(cache, card.model.dit.text_length, card.model.dit.text_dim)
    return Exported(card, parts, tokenizer if tokenizer.is_dir() else None, prompts)


def as_parts(release: Release) -> Exported:
    """The same of networks in memory."""
    networks = {"vae": release.vae, "model": release.model}
    parts = {n: assembly.stored(network) for n, network in networks.items() if network is not None}
    return Exported(release.card, parts, prompts=release.prompts)


def export(source: Exported, folder: Path, dialect: str, overwrite: bool = False) -> None:
    """Writes `source` in the layout of `dialect`, "wan" or "diffusers", into a new folder.

    The control branch and γ go into realisvsr_cpc.safetensors, with the release's card in its
    metadata, and prompts that are encoded beside it. Raises InputError for a VAE that PyTorch's
    code cannot be, and as `check_output` does.
    """
    card = source.card
    write = {"wan": _write_wan, "diffusers": _write_diffusers}[dialect]
    pairs = _all_pairs(card, dialect)  # before anything is written
    with new_folder(folder, overwrite, EXPORT) as partial:
        named = {n: keymap.to_torch(pairs[n], source.parts[_release_part(n)]) for n in pairs}
        write(partial, card, named, source.tokenizer)
        if "cpc" in named:
            says = {"format": "pt", "card": json.dumps(settings.to_mapping(_of_control(card)))}
            save_tensors(partial, CONTROL, named["cpc"], metadata=says)
            if source.prompts is not None and source.prompts.states:
                source.prompts.save(partial / PROMPTS)
    _say_what_lacks(source, folder, dialect)


def _say_what_lacks(source: Exported, folder: Path, dialect: str) -> None:
    there = {"text_encoder": "text_encoder" in source.parts, "tokenizer": bool(source.tokenizer)}
    if source.card.model is None or all(there.values()):
        return
    names = {"text_encoder": WAN_T5_FILE, "tokenizer": f"{WAN_TOKENIZER}/"}
    if dialect == "diffusers":
        names = {name: f"{name}/" for name in there}
    lacking = " and ".join(names[name] for name, is_there in there.items() if not is_there)
    whose = "WanPipeline" if dialect == "diffusers" else "Wan's code"
    log.info("%s needs %s too: copy what the base checkpoint has into %s", whose, lacking, folder)


def _all_pairs(card: ReleaseCard, dialect: str) -> dict[str, list[keymap.Pair]]:
    pairs = {}
    if card.vae is not None:
        pairs["vae"] = keymap.pairs(vae_keymap.rules(card.vae, dialect))
        if dialect == "wan" and (card.vae.mean, card.vae.std) != (WAN_MEAN, WAN_STD):
            raise InputError(
                "this VAE has a mean and deviation of its own, and Wan's code has Wan's built in; "
                "export it with --format diffusers"
            )
    if card.model is not None:
        layers = card.model.dit.num_layers
        pairs["dit"] = keymap.pairs(dit_keymap.rules(dialect), layers, ("dit",))
        if (cpc := card.model.cpc) is not None:
            rules = dit_keymap.cpc_rules(cpc.inject_noisy_latent, dialect)
            pairs["cpc"] = keymap.pairs(rules, cpc.num_blocks)
    if card.text_encoder is not None:
        layers = card.text_encoder.num_layers
        pairs["text_encoder"] = keymap.pairs(umt5_keymap.rules(dialect), layers)
    return pairs


def _release_part(name: str) -> str:
    return "model" if name in ("dit", "cpc") else name


def _of_control(card: ReleaseCard) -> ReleaseCard:
    """What belongs to the control branch's file: neither VAE nor text encoder."""
    return dataclasses.replace(card, vae=None, text_encoder=None)


def _write_diffusers(
    folder: Path, card: ReleaseCard, named: Mapping[str, dict[str, Stored]], tokenizer: Path | None
) -> None:
    index: dict[str, Any] = {"_class_name": "WanPipeline", "_diffusers_version": "0.33.0"}
    if card.model is not None:
        _save_part(folder / "transformer", TENSORS, named["dit"], _diffusers_dit(card.model.dit))
        index["transformer"] = ["diffusers", "WanTransformer3DModel"]
        _write_json(folder / "scheduler" / "scheduler_config.json", _scheduler(card))
        index["scheduler"] = ["diffusers", "UniPCMultistepScheduler"]
        # Also where they are not: the base checkpoint's can then be copied here.
        index["text_encoder"] = ["transformers", "UMT5EncoderModel"]
        index["tokenizer"] = ["transformers", "T5TokenizerFast"]
    if card.vae is not None:
        _save_part(folder / "vae", TENSORS, named["vae"], _diffusers_vae(card.vae))
        index["vae"] = ["diffusers", "AutoencoderKLWan"]
    if card.text_encoder is not None:
        config = _transformers_umt5(card.text_encoder)
        _save_part(folder / "text_encoder", "model", named["text_encoder"], config)
        index["text_encoder"] = ["transformers", "UMT5EncoderModel"]
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder / "tokenizer")
        index["tokenizer"] = ["transformers", "T5TokenizerFast"]
    _write_json(folder / "model_index.json", index)


def _write_wan(
    folder: Path, card: ReleaseCard, named: Mapping[str, dict[str, Stored]], tokenizer: Path | None
) -> None:
    if card.model is not None:
        _save_part(folder, TENSORS, named["dit"], _wan_dit(card.model.dit))
    for name, file in (("vae", WAN_VAE_FILE), ("text_encoder", WAN_T5_FILE)):
        if name in named:
            _save_archive(folder / file, named[name])
    if tokenizer is not None:
        shutil.copytree(tokenizer, folder / WAN_TOKENIZER)


def _save_part(folder: Path, stem: str, tensors: dict[str, Stored], config: dict) -> None:
    folder.mkdir(exist_ok=True)
    save_tensors(folder, stem, tensors, metadata={"format": "pt"}, index=True)
    _write_json(folder / "config.json", config)


def _save_archive(path: Path, tensors: dict[str, Stored]) -> None:
    """PyTorch's own format, by way of a mapped file, so that memory holds one piece at a time."""
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{path.name} needs PyTorch to be written: pip install torch") from error
    stem = f".{path.stem}"
    shards = save_tensors(path.parent, stem, tensors)
    views = {}
    for name, tensor in read_tensors(shards, "c").items():
        bits = torch.from_numpy(tensor.value.view(f"int{8 * tensor.value.dtype.itemsize}"))
        views[name] = bits.view(getattr(torch, tensor.value.dtype.name))
    try:
        torch.save(views, path)
    except RuntimeError as error:  # what it makes of a full disk
        raise OSError(first_sentence(error)) from error
    for shard in shards:
        shard.unlink()


def _write_json(path: Path, mapping: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(mapping, indent=2) + "\n")


def _wan_dit(config: DiTConfig) -> dict[str, Any]:
    """The config.json of the original release."""
    return {
        "_class_name": "WanModel",
        "model_type": "t2v",
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "in_dim": config.in_channels,
        "out_dim": config.out_channels,
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "text_len": config.text_length,
        "eps": config.eps,
    }


def _diffusers_dit(config: DiTConfig) -> dict[str, Any]:
    """WanTransformer3DModel's."""
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(config.patch_size),
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": config.eps,
    }


def _diffusers_vae(config: VAEConfig) -> dict[str, Any]:
    """AutoencoderKLWan's."""
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.base_dim,
        "z_dim": config.z_dim,
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.encoder_blocks,
        "attn_scales": [],
        "temperal_downsample": list(config.temporal_downsample),
        "dropout": 0.0,
        "latents_mean": list(config.mean),
        "latents_std": list(config.std),
        "scale_factor_temporal": config.temporal_factor,
        "scale_factor_spatial": config.spatial_factor,
    }


def _transformers_umt5(config: UMT5Config) -> dict[str, Any]:
    """UMT5EncoderModel's."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.num_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.num_buckets,
        "relative_attention_max_distance": config.max_distance,
        "layer_norm_epsilon": config.eps,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
    }


def _scheduler(card: ReleaseCard) -> dict[str, Any]:
    """UniPC as Wan uses it, with the release's shift."""
    return {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": card.sampler.shift,
        "solver_order": 2,
        "solver_type": "bh2",
        "num_train_timesteps": 1000,
    }
