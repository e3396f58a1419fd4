"""A model on disk: `model.json` beside safetensors shards with one tensor a layer."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from flax import nnx
from safetensors import SafetensorError

from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.model.wan_dit import DTYPES, DiTConfig
from realisvsr_jax.sampling.solvers import SamplerConfig
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.text.umt5 import UMT5Config
from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE
from realisvsr_jax.weights.assembly import Placement, build, stored
from realisvsr_jax.weights.readers import Tensors, read_tensors
from realisvsr_jax.weights.writers import Stored, save_tensors

CARD, PROMPTS, TOKENIZER = "model.json", "prompts.safetensors", "tokenizer"
RUN_FILE = "run.json"  # what a training RUN has in the place of a card
FORMAT = 1
PARTS = ("vae", "model", "text_encoder")


class Kind(NamedTuple):
    """What a program writes: a folder is replaced only if it holds nothing else."""

    name: str
    files: tuple[str, ...]
    mark: str = ""  # a file that is always there


RELEASE = Kind(
    "a release",
    (
        CARD,
        PROMPTS,
        f"{TOKENIZER}/*.json",
        *(f"{part}{n}.safetensors" for part in PARTS for n in ("", "-*-of-*")),
    ),
    CARD,
)


@dataclasses.dataclass(frozen=True)
class ReleaseCard:
    """What belongs to the weights: architecture and the settings they were trained for.

    `tile` is the largest (frames, height, width), in pixels of the output, that the network sees
    at once, None for no limit; neighbouring tiles share `overlap`. `commit` is that of the
    training code. A part that is not there is None. Raises ValueError where no part is.
    """

    vae: VAEConfig | None = None
    model: RealisVSRConfig | None = None
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    scale: int = 4
    tile: tuple[int, int, int] | None = None
    overlap: tuple[int, int, int] = (0, 0, 0)
    prompt: str = ""
    commit: str = ""
    text_encoder: UMT5Config | None = None

    def __post_init__(self) -> None:
        if not (self.vae or self.model or self.text_encoder):
            raise ValueError("neither a vae, nor a model, nor a text_encoder is described")


@dataclasses.dataclass
class Release:
    """A release in memory, without its text encoder; a part that is not there is None."""

    card: ReleaseCard
    vae: WanVAE | None = None
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
    type, and as `check_output` does.
    """
    check_dtype(model_dtype)
    with new_folder(Path(folder), overwrite) as partial:
        tensors = {}
        if release.vae is not None:
            tensors["vae"] = stored(release.vae)
        if release.model is not None:
            tensors["model"] = stored(release.model, model_dtype)
        write_release(partial, release.card, tensors, release.prompts)


def write_release(
    folder: Path,
    card: ReleaseCard,
    parts: Mapping[str, Mapping[str, Stored]],
    prompts: PromptCache | None = None,
) -> None:
    """Writes what a release consists of into `folder`; `parts` are tensors by name, of PARTS."""
    mapping = settings.to_mapping(card) | {"format": FORMAT}
    (folder / CARD).write_text(json.dumps(mapping, indent=1) + "\n")
    for part, tensors in parts.items():
        save_tensors(folder, part, tensors)
    if prompts is not None:
        prompts.save(folder / PROMPTS)


@contextmanager
def new_folder(
    folder: Path, overwrite: bool = False, kind: Kind = RELEASE, source: Path | None = None
) -> Iterator[Path]:
    """A temporary folder that takes the name `folder` when the block ends, and is gone if it fails.

    Raises InputError as `check_output` does, and if `folder` cannot be written.
    """
    check_output(folder, overwrite, kind, source)
    place = folder.absolute()
    partial, old = (place.with_name(f".{place.name}.{end}") for end in ("partial", "old"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
        try:
            partial.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder} cannot be written: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_output(
    folder: Path,
    overwrite: bool = False,
    kind: Kind = RELEASE,
    source: Path | None = None,
    option: str = "",
) -> None:
    """Raises InputError where `folder` may not be made or replaced; changes nothing.

    It is replaced if `overwrite` says so and it is of `kind`, or empty. It has to lie apart from
    `source`, what is read. `option` is how the user may ask for a replacement.
    """
    try:
        if source is not None:
            _check_apart(folder, source)
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            what = "link" if folder.is_symlink() else "file"
            raise InputError(f"{folder} is a {what}; name a new folder")
        if folder.exists():
            _check_replaceable(folder, kind)
            if not overwrite:
                raise InputError(f"{folder} exists; name a new folder{option}")
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}") from error
    check_writable(folder)


def check_writable(path: Path) -> None:
    """Raises InputError where no file or folder `path` can be made; leaves nothing there."""
    try:
        place = next(parent for parent in path.absolute().parents if parent.exists())
        if not place.is_dir():
            raise InputError(f"{path} cannot be made: {place} is a file; name another place")
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=place))
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be made: {reason}; name another place") from error


def _check_apart(folder: Path, source: Path) -> None:
    if not source.exists():  # a model of the hub
        return
    target = folder.resolve()
    for read in {source.resolve(), source.parent.resolve() / source.name}:
        if target == read:
            how = "is the input itself"
        elif read.is_relative_to(target):
            how = f"contains the input {source}"
        elif target.is_relative_to(read):
            how = f"lies within the input {source}"
        else:
            continue
        raise InputError(f"{folder} {how}; name a folder elsewhere")


def _check_replaceable(folder: Path, kind: Kind) -> None:
    own = {path for pattern in kind.files for path in folder.glob(pattern)}
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    first = next((path for path in files if path not in own), None)
    if first is not None:
        raise InputError(
            f"{folder} is not replaced: it holds {first.relative_to(folder)}, which is no part "
            f"of {kind.name}; name a new folder"
        )
    if kind.mark and own and not (folder / kind.mark).is_file():
        raise InputError(
            f"{folder} is not replaced: it is not {kind.name} (no {kind.mark}); name a new folder"
        )


def check_dtype(model_dtype: str) -> None:
    """Raises InputError for a `model_dtype` that no release can have."""
    if model_dtype not in DTYPES:
        raise InputError(f"model_dtype is {model_dtype!r}; known: {', '.join(DTYPES)}")


def is_release(path: Path) -> bool:
    """Whether `path` is a release folder."""
    return (path / CARD).is_file()


def refuse_run(folder: Path) -> None:
    """Raises InputError for a RUN, where a release or a checkpoint is expected."""
    if (folder / RUN_FILE).is_file():
        raise InputError(
            f"{folder} is a RUN, the state of a training; use it with upscale --checkpoint, or "
            "make a release of it with train --export DIR"
        )


def load_card(folder: str | Path) -> ReleaseCard:
    """Reads `model.json` alone; raises InputError where there is none or it is no card."""
    path = Path(folder) / CARD
    if not path.parent.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not path.is_file():
        refuse_run(path.parent)
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


def load_vae(folder: str | Path, placement: Placement | None = None) -> WanVAE:
    """The VAE of a release folder alone; `placement` and errors as in `load_release`."""
    folder = Path(folder)
    config = load_card(folder).vae
    if config is None:
        raise InputError(f"{folder} has no VAE")
    return build(lambda: WanVAE(config, rngs=nnx.Rngs(0)), part(folder, "vae"), folder, placement)


def load_release(folder: str | Path, placement: Placement | None = None) -> Release:
    """Loads a release folder; tensors that are missing, extra or misshapen are an InputError.

    With `placement`, a process reads the slices of its own devices (see `assembly.build`).
    """
    folder = Path(folder)
    card = load_card(folder)
    release = Release(card)
    if card.vae is not None:
        release.vae = load_vae(folder, placement)
    if (config := card.model) is not None:
        constructor = lambda: RealisVSR(config, rngs=nnx.Rngs(0))  # noqa: E731
        release.model = build(constructor, part(folder, "model"), folder, placement)
        release.prompts = load_prompts(folder, config.dit)
    return release


def load_prompts(folder: Path, config: DiTConfig) -> PromptCache:
    """The prompts that a release brings, perhaps none."""
    cache, size = folder / PROMPTS, (config.text_length, config.text_dim)
    return PromptCache.load(cache, *size) if cache.is_file() else PromptCache({}, *size)


def part(folder: Path, name: str) -> Tensors:
    """The tensors of one of PARTS, mapped; raises InputError without its files."""
    paths = sorted([*folder.glob(f"{name}.safetensors"), *folder.glob(f"{name}-*-of-*")])
    if not paths:
        raise InputError(f"{folder} has no {name}.safetensors")
    return read_tensors(paths)


def release_hash(folder: str | Path) -> str:
    """SHA-256 over the names and contents of the card, VAE, model and prompts, and nothing else."""
    digest = hashlib.sha256()
    names = (CARD, "vae*.safetensors", "model*.safetensors", PROMPTS)
    for path in sorted(path for name in names for path in Path(folder).glob(name)):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
