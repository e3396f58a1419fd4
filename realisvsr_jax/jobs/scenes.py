"""Where a video is cut: PySceneDetect's content detector on small frames."""

from typing import Any

import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

THRESHOLD = 27.0  # PySceneDetect's default: mean change of hue, saturation and value
SHORTEST = 15  # frames; shorter ones, such as flashes, are joined with their neighbours
_SIDE = 256  # pixels of the longer side that are looked at


class CutFinder:
    """Given each frame in order, knows the numbers of those that begin a new scene."""

    def __init__(self) -> None:
        # Takes half a second to import, and is not needed without a search for cuts.
        from scenedetect.common import FrameTimecode
        from scenedetect.detectors import ContentDetector

        self._detector = ContentDetector(THRESHOLD, SHORTEST)
        self._timecode = FrameTimecode
        self._found: set[int] = set()
        self._last: Any = None

    def add(self, number: int, bgr: np.ndarray) -> None:
        """The next frame, uint8 [h, w, 3], of `shrunk`."""
        # The rate only names times here; scenes are counted in frames.
        self._last = self._timecode(number, fps=25.0)
        self._keep(self._detector.process_frame(self._last, bgr))

    def cuts(self) -> tuple[int, ...]:
        """Ascending, once all frames were added."""
        if self._last is not None:
            self._keep(self._detector.post_process(self._last))
        return tuple(sorted(self._found - {0}))

    def _keep(self, found: Any) -> None:
        self._found.update(int(cut.frame_num) for cut in found)


def shrunk(frame: Any, reformatter: VideoReformatter) -> np.ndarray:
    """uint8 [h, w, 3] BGR of 256 pixels at most, of PyAV's frame or of RGB."""
    if isinstance(frame, np.ndarray):
        height, width = _small(*frame.shape[:2])
        eight = frame if frame.dtype == np.uint8 else (frame >> 8).astype(np.uint8)
        small = cv2.resize(eight, (width, height), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    height, width = _small(frame.height, frame.width)
    return reformatter.reformat(
        frame, width, height, "bgr24", interpolation=Interpolation.FAST_BILINEAR, threads=1
    ).to_ndarray()


def _small(height: int, width: int) -> tuple[int, int]:
    factor = min(1.0, _SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))
