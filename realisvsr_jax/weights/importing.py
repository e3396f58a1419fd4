"""PyTorch checkpoints as releases: on disk tensor by tensor, or straight into memory."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.text.encoding import TextEncoder
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.text.tokenizer import Tokenizer
from realisvsr_jax.text.umt5 import UMT5Config, UMT5Encoder
from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE
from realisvsr_jax.weights import (
    assembly,
    dit_keymap,
    infer,
    keymap,
    sources,
    umt5_keymap,
    vae_keymap,
)
from realisvsr_jax.weights.readers import Tensors
from realisvsr_jax.weights.release import (
    PROMPTS,
    TOKENIZER,
    Release,
    ReleaseCard,
    check_dtype,
    check_output,
    is_release,
    load_card,
    new_folder,
    part,
    write_release,
)
from realisvsr_jax.weights.sources import Source
from realisvsr_jax.weights.writers import Stored

log = logging.getLogger(__name__)

TIED = ("shared.weight", "encoder.embed_tokens.weight")
# What a transformer's file does not say, or what belongs to how it is run.
MAY_DIFFER = ("text_length", "eps", "dtype", "residual_dtype", "attention", "remat")
ROWS = 1 << 14  # of an embedding, compared at a time


@dataclasses.dataclass
class Imported:
    """A checkpoint as a release would be: the card, and mapped tensors under our names by part."""

    card: ReleaseCard
    parts: dict[str, Tensors]
    tokenizer: Path | None = None
    prompts: Path | None = None  # the cache that lies beside the control branch


def open_checkpoint(path: Path, parts: Iterable[str] | None = None, text: bool = True) -> Imported:
    """Reads the headers of what is at `path` and checks every tensor.

    `parts` have to be there, and no others are read; None are all that are there, without
    `text` all but the text encoder. Raises InputError for tensors that are missing, unknown,
    doubled or of another shape, and for networks that Wan's text-to-video code could not have
    written.
    """
    found = _chosen(path, parts, text)
    card: dict[str, Any] = {}
    tensors: dict[str, Tensors] = {}
    tokenizer = None
    if "vae" in found:
        card["vae"], tensors["vae"] = _vae(found["vae"])
    if "dit" in found:
        more, tensors["model"] = _model(found["dit"], found.get("cpc"))
        card |= more
    elif "cpc" in found:
        how = "put it into the same folder" if parts is None else "name both: --parts dit,cpc"
        raise InputError(
            f"{found['cpc'].where} is a control branch and goes with the transformer that it was "
            f"trained on; {how}"
        )
    beside = found["cpc"].where.parent / PROMPTS if "cpc" in found else None
    if "text_encoder" in found:
        source = found["text_encoder"]
        card["text_encoder"], tensors["text_encoder"] = _text_encoder(source)
        tokenizer = sources.find_tokenizer(source)
    prompts = beside if beside and beside.is_file() else None
    return Imported(ReleaseCard(**card), tensors, tokenizer, prompts)


def _chosen(path: Path, parts: Iterable[str] | None, text: bool) -> dict[str, Source]:
    named = None if parts is None else list(parts)
    if named is not None:
        sources.check_parts(named)
    found = sources.find_sources(path)
    if named is not None:
        if missing := [name for name in named if name not in found]:
            there = ", ".join(name for name in sources.PARTS if name in found)
            raise InputError(f"{path} has no {', no '.join(missing)}; it has {there}")
        return {name: found[name] for name in named}
    if not text and found.keys() == {"text_encoder"}:
        raise InputError(f"{path} has a text encoder and nothing else")
    return {name: source for name, source in found.items() if text or name != "text_encoder"}


def convert(
    path: Path,
    folder: Path,
    *,
    parts: Iterable[str] | None = None,
    model_dtype: str = "float32",
    overwrite: bool = False,
) -> ReleaseCard:
    """Writes what is at `path` as the release `folder`; tensors pass through one at a time.

    `model_dtype` is the stored type of the transformer's kernels; the text encoder keeps its
    own. Where the text encoder and its tokenizer are there, the empty prompt is encoded too,
    unless prompts lie beside the control branch. Raises InputError as `open_checkpoint` and
    `check_output` do.
    """
    check_dtype(model_dtype)
    check_output(folder, overwrite, source=path)
    imported = open_checkpoint(path, parts)
    with new_folder(folder, overwrite, source=path) as partial:
        tensors = {
            "vae": lambda part: assembly.restored(part, "float32"),
            "model": lambda part: assembly.restored(part, model_dtype),
            "text_encoder": _as_stored,
        }
        written = {name: tensors[name](part) for name, part in imported.parts.items()}
        prompts = _prompts(imported, path)
        write_release(partial, imported.card, written, prompts)
        if imported.tokenizer is not None:
            target = partial / TOKENIZER
            target.mkdir()
            for file in imported.tokenizer.glob("*.json"):
                shutil.copyfile(file, target / file.name)
    return imported.card


def load_checkpoint(path: Path, text: bool = True) -> Release:
    """The networks at `path` in memory; errors as `open_checkpoint`.

    With `text`, the empty prompt is encoded where the text encoder is there and no prompts are.
    """
    imported = open_checkpoint(path, text=text)
    card, release = imported.card, Release(imported.card)
    if (vae := card.vae) is not None:
        tensors = imported.parts["vae"]
        release.vae = assembly.build(lambda: WanVAE(vae, rngs=nnx.Rngs(0)), tensors, path)
    if (model := card.model) is not None:
        tensors = imported.parts["model"]
        release.model = assembly.build(lambda: RealisVSR(model, rngs=nnx.Rngs(0)), tensors, path)
        release.prompts = _prompts(imported, path, text)
    return release


def summary(card: ReleaseCard) -> list[str]:
    """A line for each part."""
    lines = []
    if (vae := card.vae) is not None:
        shape = f"width {vae.base_dim}, {vae.z_dim} latent channels"
        lines.append(_line("VAE", shape, lambda: WanVAE(vae, rngs=nnx.Rngs(0))))
    if (model := card.model) is not None:
        dit, cpc = model.dit, model.cpc
        shape = f"width {dit.dim}, {dit.num_layers} layers, {dit.num_heads} heads"
        shape += f", control branch of {cpc.num_blocks}" if cpc else ", no control branch"
        lines.append(_line("transformer", shape, lambda: RealisVSR(model, rngs=nnx.Rngs(0))))
    if (text := card.text_encoder) is not None:
        shape = f"width {text.d_model}, {text.num_layers} layers"
        lines.append(_line("text encoder", shape, lambda: UMT5Encoder(text, rngs=nnx.Rngs(0))))
    return lines


def _line(name: str, shape: str, constructor: Callable[[], nnx.Module]) -> str:
    count = assembly.parameter_count(assembly.expected(constructor))
    return f"{name}: {shape}, {count / 1e6:,.1f} M parameters"


def text_encoder(path: Path, tokenizer: Path | None = None, text_length: int = 512) -> TextEncoder:
    """The text encoder of a release or a checkpoint, mapped; nothing is read before it is used.

    `tokenizer`: the folder of its tokenizer.json, where it does not lie beside the weights.
    """
    if is_release(path):
        config = load_card(path).text_encoder
        if config is None:
            raise InputError(f"{path} has no text encoder")
        tensors, beside = part(path, "text_encoder"), path / TOKENIZER
    else:
        imported = open_checkpoint(path, ("text_encoder",))
        config, tensors, beside = (
            imported.card.text_encoder,
            imported.parts["text_encoder"],
            imported.tokenizer,
        )
    assert config is not None
    if tokenizer is None and (beside is None or not beside.is_dir()):
        raise InputError(
            f"{path}: the text encoder is there, its tokenizer.json is not; put that beside it "
            "into tokenizer/, or name its folder with encode_prompts --tokenizer"
        )
    return _encoder(config, tensors, tokenizer or beside, path, text_length)


def _encoder(
    config: UMT5Config, tensors: Tensors, tokenizer: Any, where: Path, text_length: int
) -> TextEncoder:
    def built(constructor: Any, prefix: str) -> Any:
        chosen = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return assembly.build(constructor, chosen, where)

    embedding = tensors["embedding"].value
    return TextEncoder(config, Tokenizer(tokenizer), embedding, built, text_length)


def _prompts(imported: Imported, where: Path, text: bool = True) -> PromptCache | None:
    """The prompts that came along, else with `text` the empty one's states, if they can be had."""
    config, model = imported.card.text_encoder, imported.card.model
    if model is None:
        return None
    size = (model.dit.text_length, model.dit.text_dim)
    if imported.prompts is not None:
        return PromptCache.load(imported.prompts, *size)
    cache = PromptCache({}, *size)
    if not text:
        return cache
    if config is None or imported.tokenizer is None:
        lacking, how = "no text encoder", ""
        if config is not None:
            lacking = "the text encoder is there, its tokenizer.json is not"
            how = " --text-encoder PATH --tokenizer FOLDER, which uses this encoder with it,"
        log.warning(
            "%s: %s; encode the empty prompt with python -m convert.encode_prompts%s before "
            "training",
            where,
            lacking,
            how,
        )
        return cache
    encoder = _encoder(
        config,
        imported.parts["text_encoder"],
        imported.tokenizer,
        where,
        model.dit.text_length,
    )
    log.info("encoding the empty prompt")
    return cache.joined(encoder.encode([""]), encoder.fingerprint)


def _vae(source: Source) -> tuple[VAEConfig, Tensors]:
    config = infer.vae_config(source.tensors, source.dialect, source.config, source.where)
    shapes = assembly.expected(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    pairs = keymap.pairs(vae_keymap.rules(config, source.dialect))
    return config, keymap.renamed(pairs, source.tensors, shapes, source.where)


def _model(dit: Source, cpc: Source | None) -> tuple[dict[str, Any], Tensors]:
    """What the card says of the transformer, with its control branch if there is one."""
    config = infer.dit_config(dit.tensors, dit.dialect, dit.config, dit.where)
    card: dict[str, Any] = {"model": RealisVSRConfig(config, None)}
    if cpc is not None:
        card = _cpc_card(cpc, config)
    model = card["model"]
    shapes = assembly.expected(lambda: RealisVSR(model, rngs=nnx.Rngs(0)))
    pairs = keymap.pairs(dit_keymap.rules(dit.dialect), config.num_layers, ("dit",))
    tensors = keymap.renamed(pairs, dit.tensors, shapes, dit.where)
    if cpc is not None:
        rules = dit_keymap.cpc_rules(model.cpc.inject_noisy_latent, cpc.dialect)
        pairs = keymap.pairs(rules, model.cpc.num_blocks)
        tensors |= keymap.renamed(pairs, cpc.tensors, shapes, cpc.where)
    return card, tensors


def _cpc_card(cpc: Source, dit: DiTConfig) -> dict[str, Any]:
    """The card in the file's metadata; without one, what the tensors say."""
    if "card" in cpc.metadata:
        card = settings.from_mapping(ReleaseCard, json.loads(cpc.metadata["card"]))
        assert card.model is not None
        own = card.model.dit
        for name, value in dataclasses.asdict(dit).items():
            if name not in MAY_DIFFER and getattr(own, name) != value:
                raise InputError(
                    f"{cpc.where} belongs to a transformer whose {name} is "
                    f"{getattr(own, name)}; this one's is {value}"
                )
        kept = ("model", "sampler", "scale", "tile", "overlap", "prompt", "commit")
        return {name: getattr(card, name) for name in kept}
    blocks = infer.count(cpc.tensors, r"cpc\.blocks\.(\d+)\.")
    noisy = "cpc.noisy_patch_embedding.weight" in cpc.tensors
    return {"model": RealisVSRConfig(dit, CPCConfig(blocks, noisy))}


def _text_encoder(source: Source) -> tuple[UMT5Config, Tensors]:
    tensors = source.tensors
    if source.dialect == "diffusers":
        tensors = _untied(tensors)
    config = infer.umt5_config(tensors, source.dialect, source.config, source.where)
    shapes = assembly.expected(lambda: UMT5Encoder(config, rngs=nnx.Rngs(0)))
    pairs = keymap.pairs(umt5_keymap.rules(source.dialect), config.num_layers)
    return config, keymap.renamed(pairs, tensors, shapes, source.where)


def _untied(tensors: Tensors) -> Tensors:
    """The embedding, which transformers has under two names, under its first name alone."""
    first, second = TIED
    if second not in tensors:
        return tensors
    tensors = dict(tensors)
    tied = tensors.pop(second)
    kept = tensors.setdefault(first, tied._replace(name=first)).value
    same = kept.shape == tied.value.shape and all(
        np.array_equal(kept[i : i + ROWS], tied.value[i : i + ROWS])
        for i in range(0, len(kept), ROWS)
    )
    if not same:
        raise InputError(
            f"{tied.path}: {first} and {second} differ, but UMT5 has one embedding; leave out "
            "the wrong one"
        )
    return tensors


def _as_stored(tensors: Tensors) -> dict[str, Stored]:
    """The type of each tensor's file."""
    return {
        name: Stored(tensor.value, tensor.value.dtype, assembly.described(tensor))
        for name, tensor in tensors.items()
    }
