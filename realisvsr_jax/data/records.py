"""Folders of records: clips as encoded bytes in ArrayRecord shards, with an index beside them.

`records.json` says what the shards are, `index.safetensors` has a row for each clip, so that a
million of them are indexed without touching a shard. A record is a video file as it is, or the
pictures of a folder one behind the other, behind a header of its own: the header's length (8
bytes, little-endian), the header (JSON), the payload.
"""

import functools
import hashlib
import json
import logging
import operator
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from realisvsr_jax.data import shards
from realisvsr_jax.data.clips import SourceClip
from realisvsr_jax.errors import InputError
from realisvsr_jax.files import replacing
from realisvsr_jax.video import read_clip
from realisvsr_jax.video.reading import Encoded

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST, INDEX = "records.json", "index.safetensors"
SUFFIX = ".array_record"
UNFINISHED = ".packing"  # the folder of what a packing that did not end has done
SIZES = ("frames", "height", "width")


def pack_record(header: dict[str, Any], payload: bytes) -> bytes:
    """One record. `header` has name, caption, sha256 of the payload, frames, height and width;
    of a folder also `pictures`, the name and the number of bytes of each."""
    text = json.dumps(header, sort_keys=True).encode()
    return b"".join((len(text).to_bytes(8, "little"), text, payload))


def unpack_record(record: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a record. Raises ValueError for what is none."""
    start = 8 + int.from_bytes(record[:8], "little")
    return json.loads(record[8:start]), record[start:]


def write_index(folder: Path, clips: Sequence[dict[str, Any]]) -> None:
    """Writes the index of clips in the order of the shards; of each, its header."""
    texts = [
        part.encode("utf-8", "surrogateescape")
        for clip in clips
        for part in (clip["name"], clip["caption"])
    ]
    ends = np.array(list(accumulate(map(len, texts))), np.int64).reshape(-1, 2)
    tensors = {
        **{name: np.array([clip[name] for clip in clips], np.int32) for name in SIZES},
        "sha256": _hashes([clip["sha256"] for clip in clips]),
        "texts": np.frombuffer(b"".join(texts), np.uint8),
        "ends": ends,
    }
    with replacing(folder / INDEX) as partial:
        partial.write_bytes(save(tensors))  # save_file's would be readable to its owner alone


def _hashes(digests: Sequence[str]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32)


def holds_records(folder: Path) -> bool:
    """Whether a folder has records in it, whole or not."""
    if (folder / MANIFEST).is_file() or (folder / UNFINISHED).is_dir():
        return True
    return next(folder.glob(f"*{SUFFIX}"), None) is not None


def index_records(folder: Path) -> tuple[list[SourceClip], int]:
    """The clips of a folder that can be read, and how many there should be.

    Shards that are missing or cut off are named in the log with what is lost. Raises InputError
    for an unfinished folder, another version's format and an index that is damaged.
    """
    table = open_table(folder)
    lost = np.zeros(table.total, bool)
    for shard, start in zip(table.shards, table.starts):
        count, reason = readable(folder / shard["name"], shard)
        lost[start + count : start + shard["clips"]] = True
        if reason:
            log.warning(
                "%s: %s %s: %d of its %d clips are lost; copy the shard again",
                *("left out of the data", folder / shard["name"], reason),
                *(shard["clips"] - count, shard["clips"]),
            )
    sizes = [table.column(name).tolist() for name in SIZES]
    rows = zip(range(table.total), *sizes)
    if lost.any():
        rows = (row for row, gone in zip(rows, lost.tolist()) if not gone)
    return [RecordClip(table, *row) for row in rows], table.total


def readable(path: Path, shard: dict[str, Any]) -> tuple[int, str]:
    """How many clips of a shard can be read, and why not all of them."""
    if not path.is_file():
        return 0, "is missing"
    size = path.stat().st_size
    if size < shard["bytes"]:
        count = min(shards.count_records(path), shard["clips"])
        return count, f"is cut short at {size:,} of {shard['bytes']:,} bytes"
    if size > shard["bytes"]:
        return 0, f"has {size:,} bytes in place of {shard['bytes']:,}"
    return shard["clips"], ""


def verify(folder: Path, progress: Callable[[int, int], object] = lambda *_: None) -> int:
    """Reads all shards and gives the number of clips; `progress` counts those.

    Raises InputError that names the shards which are not as they were packed.
    """
    manifest = read_manifest(folder)
    wrong, done = [], 0
    for shard in manifest["shards"]:
        path = folder / shard["name"]
        reason = readable(path, shard)[1]
        if not reason:
            with path.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == shard["sha256"]
            reason = "" if same else "has other bytes than were packed"
        if reason:
            wrong.append(f"{shard['name']} {reason}")
        done += shard["clips"]
        progress(done, manifest["clips"])
    if wrong:
        several = f" ({len(wrong)} shards in all)" if len(wrong) > 1 else ""
        raise InputError(f"{folder}: {', '.join(wrong[:5])}{several}; copy them again")
    return manifest["clips"]


def open_table(folder: Path) -> "RecordTable":
    """The table of a folder; one that did not change since is opened once in a process."""
    return _open_table(str(folder), _version(folder))


@functools.lru_cache(maxsize=64)
def _open_table(folder: str, version: Any) -> "RecordTable":
    return RecordTable(Path(folder))


def _version(folder: Path) -> Any:
    paths = [folder / MANIFEST, folder / INDEX]
    stats = [path.stat() for path in paths if path.is_file()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


class RecordTable:
    """What `records.json` and the index say of a folder; `shards` have name, clips and bytes.

    `starts` are the rows of the shards' first clips. Pickled by the folder's name, and texts and
    hashes stay in the file, so that worker processes hold next to nothing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        manifest = read_manifest(folder)
        self.shards: list[dict[str, Any]] = manifest["shards"]
        ends = list(accumulate(shard["clips"] for shard in self.shards))
        self.total = ends[-1] if ends else 0
        self.starts = [0, *ends[:-1]]
        path = folder / INDEX
        try:
            self._file = safe_open(path, "numpy")
            columns = [self._file.get_slice(name) for name in (*SIZES, "sha256", "ends")]
            rows = {column.get_shape()[0] for column in columns}
            self._file.get_slice("texts")
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"data.sources: {path} is missing or damaged; copy it again or pack anew"
            ) from error
        if rows != {self.total}:
            raise InputError(
                f"data.sources: {path} is of {max(rows)} clips, {MANIFEST} of {self.total}; copy "
                "both again or pack anew"
            )

    def __reduce__(self):
        return open_table, (self.folder,)

    def column(self, name: str) -> np.ndarray:
        """A column of the index, [total, …]."""
        return self._file.get_tensor(name)

    def texts(self, row: int) -> tuple[str, str]:
        """Name and caption of a clip."""
        begin = int(self._file.get_slice("ends")[row - 1 : row][0, 1]) if row else 0
        middle, end = self._file.get_slice("ends")[row : row + 1][0].tolist()
        text = self._file.get_slice("texts")[begin:end].tobytes()
        parts = (text[: middle - begin], text[middle - begin :])
        name, caption = (part.decode("utf-8", "surrogateescape") for part in parts)
        return name, caption

    def shard_of(self, row: int) -> tuple[Path, int]:
        """The shard of a clip and its position there."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.folder / self.shards[number]["name"], row - self.starts[number]

    def record(self, row: int, path: Path) -> tuple[dict[str, Any], bytes]:
        """Header and payload of a clip, whose hash has been checked.

        Raises InputError, which names `path`, where they are not those that were packed.
        """
        header, payload = {}, b""
        try:
            header, payload = unpack_record(shards.read_record(*self.shard_of(row)))
        except (ValueError, UnicodeDecodeError) as error:
            if isinstance(error, InputError):
                raise
        wanted = self._file.get_slice("sha256")[row : row + 1].tobytes()
        if hashlib.sha256(payload).digest() != wanted:
            raise InputError(f"{path}: the checksum does not match; copy the shard again")
        return header, payload


def read_manifest(folder: Path) -> dict[str, Any]:
    """`records.json` of a folder. Raises InputError where it is absent, damaged or not ours."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"data.sources: {folder} has records but no {MANIFEST}: packing did not end; the same "
            "python -m realisvsr_jax.data.pack goes on"
        )
    try:
        manifest = json.loads(path.read_text())
        known = manifest["format"]
        if known == FORMAT:
            for shard in manifest["shards"]:
                operator.itemgetter("name", "clips", "bytes")(shard)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"data.sources: {path} is damaged; copy it again") from error
    if known != FORMAT:
        raise InputError(
            f"data.sources: {path} is of format {known}, this version reads {FORMAT}; take the "
            "version of realisvsr_jax that packed it, or pack anew"
        )
    return manifest


class RecordClip(SourceClip):
    """A clip in a shard. Path and caption are looked up when they are asked for."""

    __slots__ = ("_row", "_table")

    def __init__(self, table: RecordTable, row: int, num_frames: int, height: int, width: int):
        for name, value in (
            *(("_table", table), ("_row", row)),
            *(("num_frames", num_frames), ("height", height), ("width", width)),
        ):
            object.__setattr__(self, name, value)

    def __reduce__(self):
        sizes = (self.num_frames, self.height, self.width)
        return RecordClip, (self._table, self._row, *sizes)

    @property
    def path(self) -> Path:  # pyright: ignore
        """The shard, with the clip's name as if it were a file in it."""
        return self._table.shard_of(self._row)[0] / self._table.texts(self._row)[0]

    @property
    def caption(self) -> str:  # pyright: ignore
        """'' where there is none."""
        return self._table.texts(self._row)[1]

    def read(self, start: int, frames: int) -> np.ndarray:
        """As SourceClip's; of the clip's bytes the hash is checked each time."""
        path = self.path
        header, payload = self._table.record(self._row, path)
        if header.get("pictures") is not None:
            return read_pictures(path, header["pictures"], payload, start, frames)
        return read_clip(Encoded(str(path), payload), start, frames).frames


def read_pictures(
    path: Path, pictures: Sequence[Sequence[Any]], payload: bytes, start: int, frames: int
) -> np.ndarray:
    """uint8 [frames, H, W, 3] from encoded pictures that stand one behind the other.

    `pictures` are name and number of bytes of each.
    """
    ends = list(accumulate(length for _, length in pictures))
    if start + frames > len(ends):
        raise InputError(f"{path} has {len(ends)} frames; {frames} from {start} on are too many")
    decoded = []
    for k in range(start, start + frames):
        data = np.frombuffer(payload, np.uint8)[ends[k] - pictures[k][1] : ends[k]]
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if picture is None:
            raise InputError(f"{path}/{pictures[k][0]} is not a picture that can be read")
        if decoded and picture.shape != decoded[0].shape:
            raise InputError(f"{path}: {pictures[k][0]} has another size than the one before")
        decoded.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    return np.stack(decoded)
