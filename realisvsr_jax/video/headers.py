"""What the headers of MP4, Matroska and RIFF files say of their own size."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def declared_size(path: Path) -> int | None:
    """The size in bytes that a container's own headers imply; None where they do not say."""
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _matroska_size(file)
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little")
        if head[4:8] == b"ftyp":
            # Bytes behind the last known box may be anything and do not count.
            known = (b"mdat", b"moov", b"moof")
            return max((end for kind, end in mp4_boxes(path) if kind in known), default=None)
    return None


def mp4_boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """Type and end of each top-level box of an MP4 file (ISO 14496-12, section 4.2)."""
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                return
            position += length
            yield header[4:8], position


def _matroska_size(file: BinaryIO) -> int | None:
    file.read(4)
    file.seek(_variable_int(file) or 0, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    length = _variable_int(file)
    return None if length is None else file.tell() + length


def _variable_int(file: BinaryIO) -> int | None:
    """An EBML size; all ones means unknown (RFC 8794, section 6)."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    bits = 7 * (extra + 1)
    value = int.from_bytes(first + file.read(extra), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
