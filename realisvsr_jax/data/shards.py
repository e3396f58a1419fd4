"""ArrayRecord files: written so that their bytes depend on the records alone, read at random.

ArrayRecord keeps its index at the end of a file, so its own reader finds nothing in one that was
cut off. Records are stored one a chunk and uncompressed; a walk over the chunks' headers then
finds every record in front of the cut.
"""

import functools
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from realisvsr_jax.errors import InputError

# Riegeli's records file format, on which ArrayRecord rests: blocks of 64 KiB begin with 24 bytes
# of their own; the rest is chunks, each behind a header of five 64-bit numbers: its hash, bytes
# of data, their hash, kind and number of records, and bytes when decoded. The data of a chunk of
# records begin with the kind of their compression.
_BLOCK, _BLOCK_HEADER = 1 << 16, 24
_CHUNK_HEADER = struct.Struct("<5Q")
_SIMPLE, _FILE_START, _UNCOMPRESSED = ord("r"), ord("s"), 0


def write_shard(path: Path, records: Iterable[bytes]) -> None:
    """Writes the records to a new file."""
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    try:
        for record in records:
            writer.write(record)
        if not writer.ok():
            raise InputError(f"cannot write {path}: is the disk full?")
    finally:
        writer.close()


def read_record(path: Path, position: int) -> bytes:
    """One record; raises InputError where it is damaged, behind a cut, or its file is gone."""
    try:
        status = path.stat()
        reader = _reader(str(path), (status.st_mtime_ns, status.st_size))
        return reader.read([position])[0]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; copy the shard again") from error
    except (OSError, RuntimeError, IndexError, ValueError) as error:
        raise InputError(f"{path}: record {position} is damaged; copy the shard again") from error


def count_records(path: Path) -> int:
    """How many records of a file can be read: those in front of a cut; none of a missing file."""
    return _open(str(path)).num_records() if path.is_file() else 0


@functools.lru_cache(maxsize=64)
def _reader(path: str, version: tuple[int, int]) -> "ArrayRecordReader | _CutShort":
    return _open(path)


def _open(path: str) -> "ArrayRecordReader | _CutShort":
    reader = ArrayRecordReader(path, "readahead_buffer_size:0", file_reader_buffer_size=32768)
    return reader if reader.ok() else _CutShort(path)


class _CutShort:
    """The records of a file whose end is missing; `spans` are their places in its chunks."""

    def __init__(self, path: str):
        self._path = path
        self.spans: list[tuple[int, int]] = []
        size = os.path.getsize(path)
        place = 0
        with open(path, "rb") as file:
            while True:
                header = _chunk_bytes(file, place, _CHUNK_HEADER.size + 1)
                if len(header) <= _CHUNK_HEADER.size:
                    return
                _, length, _, kind_and_count, decoded = _CHUNK_HEADER.unpack(header[:-1])
                kind, count = kind_and_count & 0xFF, kind_and_count >> 8
                place += _CHUNK_HEADER.size
                whole = _in_file(place + length - 1) < size
                if not whole or (kind, count) not in ((_SIMPLE, 1), (_FILE_START, 0)):
                    return  # the cut, or the index behind the last record
                if kind == _SIMPLE and header[-1] != _UNCOMPRESSED:
                    return  # of another writer
                if kind == _SIMPLE:
                    self.spans.append((place + length - decoded, decoded))
                place += length

    def num_records(self) -> int:
        """As ArrayRecordReader's."""
        return len(self.spans)

    def read(self, positions: list[int]) -> list[bytes]:
        """As ArrayRecordReader's; that a record is what it was is for its hash to tell."""
        with open(self._path, "rb") as file:
            return [_chunk_bytes(file, *self.spans[position]) for position in positions]


def _in_file(place: int) -> int:
    """Where in the file the byte stands that is at `place` in the chunks."""
    block, offset = divmod(place, _BLOCK - _BLOCK_HEADER)
    return block * _BLOCK + _BLOCK_HEADER + offset


def _chunk_bytes(file, place: int, length: int) -> bytes:
    """`length` bytes of the chunks, without the headers of blocks between them."""
    if not length:
        return b""
    first, last = _in_file(place), _in_file(place + length - 1)
    file.seek(first)
    raw = file.read(last + 1 - first)
    head = min(length, _BLOCK - first % _BLOCK)
    parts = [raw[:head]]
    for start in range(_BLOCK - first % _BLOCK, len(raw), _BLOCK):
        parts.append(raw[start + _BLOCK_HEADER : start + _BLOCK])
    return b"".join(parts)
