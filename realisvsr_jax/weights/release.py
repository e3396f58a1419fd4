"""A model on disk: `model.json` beside safetensors shards with one tensor a layer.

Tensors are named after their place in the network (`dit.blocks.3.self_attn.q.kernel`). In
memory the blocks are stacked on a leading axis; on disk every layer is a tensor of its own, so
that a reader can take what it needs.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.model.wan_dit import DTYPES
from realisvsr_jax.sampling.solvers import SamplerConfig
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE

CARD, PROMPTS = "model.json", "prompts.safetensors"
RUN_FILE = "run.json"  # what a training RUN has in the place of a card
FORMAT = 1
SHARD_BYTES = 4 << 30
STACKED = (("dit", "blocks"), ("cpc", "blocks"), ("cpc", "out"))


@dataclasses.dataclass(frozen=True)
class ReleaseCard:
    """What belongs to the weights: architecture and the settings they were trained for.

    `tile` is the largest (frames, height, width), in pixels of the output, that the network sees
    at once, None for no limit; neighbouring tiles share `overlap`. `model` is None where only a
    VAE was trained. `commit` is that of the training code.
    """

    vae: VAEConfig
    model: RealisVSRConfig | None = None
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    scale: int = 4
    tile: tuple[int, int, int] | None = None
    overlap: tuple[int, int, int] = (0, 0, 0)
    prompt: str = ""
    commit: str = ""


@dataclasses.dataclass
class Release:
    """A release in memory; `model` and `prompts` are None where only a VAE was trained."""

    card: ReleaseCard
    vae: WanVAE
    model: RealisVSR | None = None
    prompts: PromptCache | None = None


def save_release(
    folder: str | Path,
    release: Release,
    *,
    model_dtype: str = "float32",
    overwrite: bool = False,
) -> None:
    """Writes the folder under a temporary name, then renames it.

    `model_dtype` is the stored type of the transformer's kernels, "float32" or "bfloat16"; the
    VAE, every vector and the modulation tables stay float32. Raises InputError for another
    type, and if `folder` exists and may not be replaced.
    """
    folder = Path(folder)
    check_dtype(model_dtype)
    if folder.exists() and not overwrite:
        raise InputError(f"{folder} exists; name a new folder for the release")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        card = settings.to_mapping(release.card) | {"format": FORMAT}
        (partial / CARD).write_text(json.dumps(card, indent=1) + "\n")
        _save_tensors(partial, "vae", _tensors(release.vae, "float32"))
        if release.model is not None:
            _save_tensors(partial, "model", _tensors(release.model, model_dtype))
        if release.prompts is not None:
            release.prompts.save(partial / PROMPTS)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_dtype(model_dtype: str) -> None:
    """Raises InputError for a `model_dtype` that no release can have."""
    if model_dtype not in DTYPES:
        raise InputError(f"model_dtype is {model_dtype!r}; known: {', '.join(DTYPES)}")


def load_card(folder: str | Path) -> ReleaseCard:
    """Reads `model.json` alone; raises InputError where there is none or it is no card."""
    path = Path(folder) / CARD
    if not path.is_file():
        raise InputError(f"{folder} is not a release folder: it has no {CARD}")
    try:
        mapping = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(mapping, dict) or mapping.pop("format", None) != FORMAT:
        raise InputError(f"{path} is not of release format {FORMAT}")
    try:
        return settings.from_mapping(ReleaseCard, mapping)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def load_vae(folder: str | Path) -> WanVAE:
    """The VAE of a release folder alone; errors as in `load_release`."""
    folder = Path(folder)
    config = load_card(folder).vae
    return build(lambda: WanVAE(config, rngs=nnx.Rngs(0)), _Tensors(folder, "vae"))


def load_release(folder: str | Path) -> Release:
    """Loads a release folder; tensors that are missing, extra or misshapen are an InputError."""
    folder = Path(folder)
    card = load_card(folder)
    vae = load_vae(folder)
    if card.model is None:
        return Release(card, vae)
    config = card.model
    model = build(lambda: RealisVSR(config, rngs=nnx.Rngs(0)), _Tensors(folder, "model"))
    size = (config.dit.text_length, config.dit.text_dim)
    cache = folder / PROMPTS
    prompts = (
        PromptCache.load(cache, *size) if cache.is_file() else PromptCache.empty_prompt_only(*size)
    )
    return Release(card, vae, model, prompts)


def release_hash(folder: str | Path) -> str:
    """SHA-256 over the names and contents of the card and the tensors, and of nothing beside."""
    digest = hashlib.sha256()
    for path in sorted([*Path(folder).glob(CARD), *Path(folder).glob("*.safetensors")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def build(constructor: Any, tensors: "_Tensors") -> Any:
    """The network that `constructor` describes, with the values of `tensors`, in float32."""
    graph, state = nnx.split(nnx.eval_shape(constructor))
    flat = nnx.to_flat_state(state)
    with tensors:
        leaves = [
            (path, leaf.replace(_gather(tensors, path, tuple(leaf.shape)))) for path, leaf in flat
        ]
        tensors.check_all_used()
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def _gather(tensors: "_Tensors", path: tuple, shape: tuple[int, ...]) -> jax.Array:
    names = list(_layer_names(path, shape[:1]))
    if names == [_join(path)]:
        return jnp.asarray(tensors.take(names[0], shape), jnp.float32)
    stacked = np.empty(shape, np.float32)
    for layer, name in enumerate(names):
        stacked[layer] = tensors.take(name, shape[1:])
    return jnp.asarray(stacked)


def _layer_names(path: tuple, leading: tuple[int, ...]) -> Iterator[str]:
    """The tensor names of one parameter: one, or one a layer if its blocks are stacked."""
    if path[:2] not in STACKED:
        yield _join(path)
        return
    for layer in range(leading[0]):
        yield _join((*path[:2], layer, *path[2:]))


def _join(path: tuple) -> str:
    return ".".join(str(part) for part in path)


def _tensors(network: nnx.Module, dtype: str) -> dict[str, jax.Array]:
    """Every tensor by name; kernels, the factors of matrix products, are stored as `dtype`."""
    tensors: dict[str, jax.Array] = {}
    for path, leaf in nnx.to_flat_state(nnx.state(network)):
        value = leaf[...]
        names = list(_layer_names(path, value.shape[:1]))
        layers = [value] if names == [_join(path)] else list(value)
        for name, layer in zip(names, layers, strict=True):
            tensors[name] = layer.astype(dtype if path[-1] == "kernel" else jnp.float32)
    return tensors


def _save_tensors(folder: Path, part: str, tensors: Mapping[str, jax.Array]) -> None:
    shards: list[dict[str, jax.Array]] = [{}]
    size = 0
    for name, tensor in sorted(tensors.items()):
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    for i, shard in enumerate(shards):
        name = f"{part}.safetensors"
        if len(shards) > 1:
            name = f"{part}-{i + 1:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / name)
        (folder / name).chmod(0o644)  # safetensors leaves it to its owner alone


class _Tensors:
    """The tensors of one part of a release, read one at a time, each exactly once."""

    def __init__(self, folder: Path, part: str):
        self.paths = sorted([*folder.glob(f"{part}.safetensors"), *folder.glob(f"{part}-*-of-*")])
        if not self.paths:
            raise InputError(f"{folder} has no {part}.safetensors")
        self.part = part
        self.left: dict[str, Any] = {}

    def __enter__(self) -> "_Tensors":
        for path in self.paths:
            try:
                file = safe_open(path, "flax")
            except (OSError, SafetensorError) as error:
                raise InputError(f"{path} cannot be read: {error}") from error
            for name in file.keys():  # noqa: SIM118  (a safe_open is no mapping)
                if name in self.left:
                    raise InputError(f"{path}: the tensor {name} is there twice")
                self.left[name] = file
        return self

    def __exit__(self, *_: object) -> None:
        self.left.clear()

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self.left:
            raise InputError(f"{self.paths[0]}: the tensor {name} is missing")
        tensor = self.left.pop(name).get_tensor(name)
        if tensor.shape != shape:
            raise InputError(
                f"{self.paths[0]}: {name} has shape {tensor.shape}, the settings in {CARD} say "
                f"{shape}; the weights are those of another configuration"
            )
        return np.asarray(tensor, np.float32)

    def check_all_used(self) -> None:
        if self.left:
            names = sorted(self.left)
            raise InputError(
                f"{self.paths[0]} has {len(names)} tensors that the settings in {CARD} do not "
                f"use: {', '.join(names[:3])}"
            )
