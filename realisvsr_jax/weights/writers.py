"""Tensors into safetensors files, one after the other: what is in memory is one piece of one."""

import collections
import contextlib
import errno
import json
import logging
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realisvsr_jax.weights.readers import DTYPES, prefetch

log = logging.getLogger(__name__)

SHARD_BYTES = 4 << 30
PIECE_BYTES = 32 << 20
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Stored:
    """A tensor to be stored: an array or a view of a mapped file, and the type on disk.

    `origin` is what a warning calls it; `broken` counts values that were not finite.
    """

    value: Any
    dtype: np.dtype
    origin: str = ""
    broken: list[int] = field(default_factory=list, compare=False)

    @property
    def nbytes(self) -> int:
        """On disk."""
        return math.prod(self.value.shape) * self.dtype.itemsize


def save_tensors(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Stored],
    *,
    shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
    index: bool = False,
) -> list[Path]:
    """Writes STEM.safetensors, or STEM-00001-of-00002.safetensors and so on; returns the paths.

    With `index`, shards get STEM.safetensors.index.json as in transformers. Values that are
    not finite are logged with the tensor's origin. The caller renames into place.
    """
    shards: list[dict[str, Stored]] = [{}]
    size = 0
    for name, tensor in sorted(tensors.items()):
        if shards[-1] and size + tensor.nbytes > (shard_bytes or SHARD_BYTES):
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    count = len(shards)
    names = [f"{stem}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    paths = [folder / name for name in (names if count > 1 else [f"{stem}.safetensors"])]
    for path, shard in zip(paths, shards):
        _save(path, shard, metadata or {})
    if index and count > 1:
        where = {name: path.name for path, shard in zip(paths, shards) for name in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        table = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(table, indent=1) + "\n")
    return paths


def _save(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """One file: the length of the header, the header, the values in little-endian order."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    # Wide types first, as the library has it: every value is then aligned.
    order = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    for name, tensor in order:
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.value.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        _reserve(file, 8 + len(text) + offset)
        file.write(struct.pack("<Q", len(text)) + text)
        for buffer in _ahead(
            (lambda p=p, t=t: _values(p, t)) for _, t in order for p in _pieces(t)
        ):
            file.write(buffer)
    for _, tensor in order:
        if tensor.broken:
            count = sum(tensor.broken)
            log.warning("%s: %d values are not finite (NaN or infinite)", tensor.origin, count)


def _reserve(file: Any, size: int) -> None:
    """Takes the space at once: a full disk shows before the work is done."""
    with contextlib.suppress(AttributeError):  # macOS has no such call
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise


def _ahead(tasks: Iterator[Callable[[], Any]], most: int = 1) -> Iterator[Any]:
    """What the tasks give, in order; a thread works on the next ones meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending: collections.deque[Future] = collections.deque()
        for task in tasks:
            pending.append(pool.submit(task))
            if len(pending) > most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _values(piece: np.ndarray, tensor: Stored) -> memoryview:
    """The bytes of a piece on disk; what is not finite is counted."""
    prefetch(piece)
    values = _contiguous(piece)
    wide = values if values.dtype.itemsize >= 4 else values.astype(np.float32)
    with np.errstate(all="ignore"):
        total = wide.sum(dtype=wide.dtype)
    if not np.isfinite(total) and (broken := int(wide.size - np.isfinite(wide).sum())):
        tensor.broken.append(broken)
    return values.astype(tensor.dtype, copy=False).reshape(-1).view(np.uint8).data


def _contiguous(piece: np.ndarray) -> np.ndarray:
    """In C order; of a transposed matrix by OpenCV, which is several times as fast as NumPy."""
    if not _is_transposed(piece):
        return np.ascontiguousarray(piece)
    # NumPy's memory comes in huge pages, OpenCV's own does not.
    out = np.empty(piece.shape, piece.dtype)
    size = piece.dtype.itemsize
    bits = f"u{size}" if size < 4 else f"f{size}"
    cv2.transpose(piece.T.view(bits), out.view(bits))
    return out


def _is_transposed(value: np.ndarray) -> bool:
    return value.ndim == 2 and value.flags.f_contiguous and not value.flags.c_contiguous


def _pieces(tensor: Stored) -> Iterator[np.ndarray]:
    """Rows of some PIECE_BYTES each; a transposed matrix as a whole."""
    value = np.asarray(tensor.value)
    if not value.shape:
        return iter([value[None]])
    if _is_transposed(value):
        return iter([value])
    rows = len(value)
    step = max(1, PIECE_BYTES * rows // max(1, tensor.nbytes))
    return (value[i : i + step] for i in range(0, rows, step))
