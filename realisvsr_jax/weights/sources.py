"""Where a PyTorch checkpoint is, and which network is in which of its files.

A path is a folder in the original Wan2.1 layout or in diffusers', one file, or the id of a
model on the hub. Files are known by the tensors in them, not by their names.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realisvsr_jax.errors import InputError
from realisvsr_jax.weights.readers import (
    ENDINGS,
    Tensors,
    enumerated,
    first_sentence,
    metadata,
    read_tensors,
    weight_files,
)
from realisvsr_jax.weights.release import PROMPTS, refuse_run

log = logging.getLogger(__name__)

# A tensor that each network has under either dialect, and the other kinds do not.
MARKS = {
    ("dit", "wan"): "blocks.0.self_attn.norm_q.weight",
    ("dit", "diffusers"): "blocks.0.attn1.norm_q.weight",
    ("vae", "wan"): "decoder.middle.0.residual.0.gamma",
    ("vae", "diffusers"): "decoder.mid_block.resnets.0.norm1.gamma",
    ("text_encoder", "wan"): "blocks.0.pos_embedding.embedding.weight",
    ("text_encoder", "diffusers"): "encoder.block.0.layer.0.SelfAttention.q.weight",
    ("cpc", "wan"): "cpc.blocks.0.self_attn.norm_q.weight",
    ("cpc", "diffusers"): "cpc.blocks.0.attn1.norm_q.weight",
}
PARTS = ("dit", "vae", "text_encoder", "cpc")
FOLDERS = ("transformer", "vae", "text_encoder")
TOKENIZERS = ("google/umt5-xxl", "tokenizer", ".", "../tokenizer")
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
# What the hub's errors begin with; the reason is behind it.
HUB_STATUS = re.compile(r"^\d+ (Client|Server) Error[.:]? *(\(Request ID: [^)]*\))?\s*(?=\S)")
# What a download may leave out where the prompts are encoded already.
TEXT_FILES = ("models_t5*", "text_encoder/*", "text_encoder_2/*")


@dataclass(frozen=True)
class Source:
    """One network of a checkpoint: its tensors under PyTorch's names, and its config.json."""

    part: str
    dialect: str
    tensors: Tensors
    where: Path
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def find_sources(path: Path) -> dict[str, Source]:
    """The networks at `path`, by part; raises InputError where none is, or one is there twice."""
    sources: dict[str, Source] = {}
    for group in find_files(path):
        source = _source(group)
        if source is None:
            count = f" and {len(group) - 1} more of its shards" if len(group) > 1 else ""
            log.warning(
                "%s%s: no part of Wan or RealisVSR that is known; left out", group[0], count
            )
        elif source.part in sources:
            raise InputError(
                f"{sources[source.part].where} and {source.where} both hold a {source.part}; "
                "give the one that is meant"
            )
        else:
            sources[source.part] = source
    if not sources:
        raise InputError(f"{path} holds no weights of Wan or RealisVSR")
    return sources


def find_files(path: Path) -> list[list[Path]]:
    """The files with weights at `path`, shards together.

    Raises InputError where there is none, for shards that are missing, and for a RUN.
    """
    if path.is_file():
        if path.suffix not in ENDINGS:
            raise InputError(f"{path} is no checkpoint; known endings: {', '.join(ENDINGS)}")
        count, missing = _told(path)
        if count > 1:
            lost = enumerated("shard", missing, "missing") if missing else "all are there"
            raise InputError(f"{path} is one shard of {count}; give their folder ({lost})")
        return [[path]]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    refuse_run(path)
    folders = [path, *(path / name for name in FOLDERS if (path / name).is_dir())]
    files = ([f for f in weight_files(folder) if f.name != PROMPTS] for folder in folders)
    groups = [group for found in files for group in _shards(found)]
    if not groups:
        raise InputError(f"{path} holds no file with weights ({', '.join(ENDINGS)})")
    return groups


def check_parts(parts: Iterable[str]) -> None:
    """Raises InputError for what no checkpoint has, and where no part is named."""
    named = set(parts)
    if unknown := sorted(named - set(PARTS)):
        raise InputError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    if not named:
        raise InputError(f"no part is named; known: {', '.join(PARTS)}")


def find_tokenizer(source: Source) -> Path | None:
    """The folder with the text encoder's tokenizer.json, or None."""
    folders = (source.where.parent / name for name in TOKENIZERS)
    return next((f.resolve() for f in folders if (f / "tokenizer.json").is_file()), None)


def resolve(name: str | Path, text: bool = True) -> Path:
    """A path that exists, or the folder into which the hub's model `owner/name` was fetched.

    `owner/name@revision` names one commit, tag or branch. Without `text` the text encoder is
    not fetched. Raises InputError for what is neither, and where the hub cannot be reached.
    """
    path = Path(os.path.expanduser(name))
    if path.exists():
        return path
    first = path.parts[0] if path.parts else ""
    if str(name).startswith((".", "~")):
        raise InputError(f"{name}: no such file or folder")
    if not HUB_ID.fullmatch(str(name)):
        raise InputError(f"{name}: no such file or folder, and no id of a model (owner/name)")
    if os.path.isdir(first) and "@" not in str(name):
        raise InputError(
            f"{name}: no such file or folder ({first} is a folder here); if the hub's model is "
            f"meant, write {name}@main"
        )
    from huggingface_hub import snapshot_download

    repository, _, revision = str(name).partition("@")
    wanted = [f"*{ending}" for ending in ENDINGS] + ["*.json", "google/*", "tokenizer/*"]
    try:
        fetched = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=wanted,
            ignore_patterns=None if text else list(TEXT_FILES),
        )
    except Exception as error:  # requests, httpx and the hub's own have no common ancestor
        reason = first_sentence(HUB_STATUS.sub("", str(error))) or type(error).__name__
        raise InputError(
            f"{name} is no folder here and cannot be fetched from the hub: {reason}; download "
            "it elsewhere and give its folder"
        ) from error
    return Path(fetched)


def _source(group: Sequence[Path]) -> Source | None:
    tensors = _without_prefix(read_tensors(group))
    for (part, dialect), mark in MARKS.items():
        if mark in tensors:
            says = metadata(group[0]) if group[0].suffix == ".safetensors" else {}
            return Source(part, dialect, tensors, group[0], _config(group[0].parent), says)
    return None


def _without_prefix(tensors: Tensors) -> Tensors:
    """Names without what wrappers put before all of them: 'model.diffusion_model.', 'module.'."""
    for mark in MARKS.values():
        found = next((name for name in tensors if name.endswith(f".{mark}")), None)
        if found is not None and mark not in tensors:
            prefix = found.removesuffix(mark)
            if prefix != "cpc." and all(name.startswith(prefix) for name in tensors):
                return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no settings")
    return config


def _shards(paths: Sequence[Path]) -> list[list[Path]]:
    """Files that together are one checkpoint; raises InputError where some of them are missing."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        match = SHARD.fullmatch(path.stem)
        key = (match[1], match[3], path.suffix) if match else (path.name,)
        groups.setdefault(key, []).append(path)
    for group in groups.values():
        count, missing = _told(group[0])
        if missing:
            lost = enumerated("shard", missing, f"of {count} missing")
            raise InputError(f"{group[0].parent}: {lost}; download what is missing")
    return list(groups.values())


def _told(path: Path) -> tuple[int, list[str]]:
    """How many shards a name says there are, and those of them that are not there."""
    match = SHARD.fullmatch(path.stem)
    if match is None:
        return 1, []
    numbers = range(1, int(match[3]) + 1)
    names = (f"{match[1]}-{number:05}-of-{match[3]}{path.suffix}" for number in numbers)
    return len(numbers), [name for name in names if not (path.parent / name).is_file()]
