"""What a file says of itself: titles and other metadata, chapters, fonts attached for subtitles."""

import logging
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer, OutputContainer

from realisvsr_jax.video.info import opened, start_of, video_stream
from realisvsr_jax.video.reading import PathLike

log = logging.getLogger(__name__)

# Of the old file's making, no longer true of the new one.
_OF_THE_FILE = {
    *("major_brand", "minor_version", "compatible_brands", "encoder", "rotate", "vendor_id"),
    *("bps", "duration", "number_of_frames", "number_of_bytes"),
}


def copy_labels(
    source: PathLike,
    output: OutputContainer,
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
) -> None:
    """Copies metadata, chapters and attachments of `source` before `output` has its first frame.

    Seconds count as in `read_video`; `start` becomes 0, and chapters are cut with the frames.
    What the container has no place for is left out by it.
    """
    with opened(source) as container:
        output.metadata.update(_kept(container.metadata))
        pictures = video_stream(container, source)
        output.streams.video[0].metadata.update(_kept(pictures.metadata))
        output.set_chapters(_chapters(container, start, end))
        for stream in container.streams.attachments:
            if output.format.name == "matroska":
                _attach(stream, output, source)


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower().partition("-")[0] not in _OF_THE_FILE
        and not key.lower().startswith("_statistics")
    }


def _chapters(container: InputContainer, start: Fraction, end: Fraction | None) -> list[Any]:
    origin = start_of(container) + start
    chapters: list[Any] = []
    for chapter in container.chapters():
        unit = chapter["time_base"] or Fraction(1, av.time_base)
        begins, ends = (
            max(chapter[side] * unit - origin, Fraction(0)) for side in ("start", "end")
        )
        if end is not None:
            ends = min(ends, end - start)
        if ends > begins:
            chapters.append(
                {
                    "id": len(chapters) + 1,
                    "start": round(begins / unit),
                    "end": round(ends / unit),
                    "time_base": unit,
                    "metadata": chapter["metadata"],
                }
            )
    return chapters


def _attach(stream: Any, output: OutputContainer, source: PathLike) -> None:
    try:
        output.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data)
    except (av.FFmpegError, ValueError, TypeError):
        log.warning("%s: attachment %r is left out", source, stream.name)
