"""Tensors of checkpoint files, mapped into memory: nothing is read until it is used.

Read are `.safetensors` and PyTorch's zip archives (`.pth`, `.pt`, `.bin`), whole or in shards.
"""

import contextlib
import json
import mmap
import pickle
import re
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from numpy.lib.array_utils import byte_bounds
from safetensors import SafetensorError, safe_open

from realisvsr_jax.errors import InputError

SAFETENSORS = (".safetensors",)
ARCHIVES = (".pth", ".pt", ".bin", ".ckpt")
ENDINGS = (*SAFETENSORS, *ARCHIVES)
LFS_POINTER = b"version https://git-lfs"
LEGACY = b"\x80"  # a bare pickle
# What torch says before the reason.
TORCH_ADVICE = re.compile(r"from a trusted source\.\s|WeightsUnpickler error:\s")
# Where a training script puts the state dict among other things.
WRAPPERS = ("state_dict", "model", "module", "params")
DAMAGED = "it may be cut short or damaged: download it again"
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


MADV_POPULATE_READ = 22  # Linux's number, which Python has no name for


class Tensor(NamedTuple):
    """A tensor of a file: its values, mapped, its name there, and the file."""

    value: np.ndarray
    name: str
    path: Path


Tensors = dict[str, Tensor]


def read_tensors(paths: Sequence[Path], mode: Literal["r", "c"] = "r") -> Tensors:
    """The tensors of all `paths`, shards of one checkpoint.

    In mode "c" they may be written to, which changes no file. Raises InputError for a file that
    cannot be read or would run code, and for tensors that stand in two files.
    """
    tensors: Tensors = {}
    for path in paths:
        found = _safetensors(path, mode) if path.suffix in SAFETENSORS else _archive(path)
        if doubled := sorted(found.keys() & tensors.keys()):
            raise InputError(
                f"{path}: {enumerated('tensor', doubled, 'doubled')}; also in "
                f"{tensors[doubled[0]].path}"
            )
        tensors |= found
    return tensors


def _safetensors(path: Path, mode: Literal["r", "c"]) -> Tensors:
    """The library checks the header, its size and every offset; the values are mapped here."""
    _first_bytes(path)
    try:
        with safe_open(path, "np"):
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {first_sentence(error)}; {DAMAGED}") from error
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, mode)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise InputError(
                f"{path}: the tensor {name} is of type {entry['dtype']}; known: {', '.join(DTYPES)}"
            )
        first, last = entry["data_offsets"]
        value = data[first:last].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = Tensor(value, name, path)
    return tensors


def prefetch(values: np.ndarray) -> None:
    """Has the system read a mapped array's pages at once; one by one, as used, is far slower."""
    root = values
    while isinstance(root.base, np.ndarray):
        root = root.base
    if sys.platform != "linux" or not isinstance(root.base, mmap.mmap):
        return
    low, high = (bound - root.ctypes.data for bound in byte_bounds(values))
    start = low - low % mmap.PAGESIZE
    with contextlib.suppress(OSError):  # kernels before 5.14 do not know it
        root.base.madvise(MADV_POPULATE_READ, start, high - start)


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself."""
    with safe_open(path, "np") as file:
        return file.metadata() or {}


def _archive(path: Path) -> Tensors:
    """Through torch's own reader, which unpickles nothing but tensors and maps their values."""
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{path} needs PyTorch to be read: pip install torch") from error
    first = _first_bytes(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: it holds more than tensors and could run code "
            f"({first_sentence(TORCH_ADVICE.split(str(error))[-1])})"
        ) from error
    except Exception as error:  # whatever a damaged pickle leads to
        if "_use_new_zipfile_serialization" not in str(error):
            reason = f"{first_sentence(error)}; {DAMAGED}"
        elif first.startswith(LEGACY):
            reason = "it is in PyTorch's format before 1.6; load it and torch.save it again"
        else:
            reason = f"it is no file of PyTorch's; {DAMAGED}"
        raise InputError(f"{path} cannot be read: {reason}") from error
    for _ in range(2):
        if isinstance(found, Mapping) and not any(_is_tensor(v) for v in found.values()):
            found = next((found[name] for name in WRAPPERS if name in found), found)
    if not isinstance(found, Mapping) or not all(_is_tensor(v) for v in found.values()):
        raise InputError(f"{path} is no state dict: it has to hold tensors by name alone")
    return {name: Tensor(_numpy(value, path, name), name, path) for name, value in found.items()}


def _first_bytes(path: Path) -> bytes:
    """Raises InputError for a file that cannot be opened, and for what stands in for one."""
    try:
        with path.open("rb") as file:
            first = file.read(len(LFS_POINTER))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if first == LFS_POINTER:
        raise InputError(f"{path} cannot be read: it is a pointer of Git LFS; run git lfs pull")
    return first


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _numpy(tensor: Any, path: Path, name: str) -> np.ndarray:
    """The same memory; NumPy's types for what it has no name of its own."""
    import torch

    others = {
        torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
        torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
        torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    }
    tensor = tensor.detach()
    if tensor.dtype in others:
        bits, dtype = others[tensor.dtype]
        return tensor.view(bits).numpy().view(dtype)
    if not tensor.is_floating_point():
        raise InputError(f"{path}: the tensor {name} is of type {tensor.dtype}, not a float")
    return tensor.numpy()


def weight_files(folder: Path) -> list[Path]:
    """The files with weights in `folder` itself, sorted.

    Where an index is there (`NAME.index.json`), its shards have to be there too. Raises
    InputError for shards that are missing and for links that lead out of the folder.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
    home = _home(folder)
    for path in paths:
        if not path.resolve().is_relative_to(home):
            raise InputError(f"{path} is a link that leads out of {folder}; copy the file there")
        if not path.is_file():
            raise InputError(f"{path} is no file")
    for index in sorted(folder.glob("*.index.json")):
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{index} cannot be read: {error}") from error
        if missing := sorted(names - {path.name for path in paths}):
            raise InputError(
                f"{folder}: {enumerated('shard', missing, f'of {index.name} missing')}"
            )
    return paths


def _home(folder: Path) -> Path:
    """Where links may lead: the folder, or all of a model in the hub's cache, which is links."""
    folder = folder.resolve()
    for parent in (folder, *folder.parents):
        if parent.parent.name == "snapshots" and (parent.parent.parent / "blobs").is_dir():
            return parent.parent.parent
    return folder


def enumerated(what: str, names: Iterable[str], how: str = "", most: int = 6) -> str:
    """'3 tensors missing: a, b, c', cut after `most` names."""
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    plural = "s" if len(names) != 1 else ""
    how = f" {how}" if how else ""
    return f"{len(names)} {what}{plural}{how}: {', '.join(names[:most])}{rest}"


def first_sentence(text: object) -> str:
    """Of an error's message, on one line and without its full stop."""
    return " ".join(str(text).split()).split(". ")[0].removesuffix(".")
