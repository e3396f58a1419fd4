"""In the place of the networks: bicubic, in windows that hand a number on; counts its calls.

As a program it carries out a job that can be killed: standin.py INPUT OUTPUT CALLS [resume].
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from realisvsr_jax.jobs.scene import Needs, Outlook

WINDOW = 4


@dataclass(frozen=True)
class Window:
    index: int
    reads: range
    writes: range


class Standin:
    """Weights and scene in one. Each window adds what the one before it has left: 0, 1, 2 …"""

    def __init__(self, scale=2, calls=None, window=WINDOW, wait=0.0):
        self.scale, self.window, self.wait = scale, window, wait
        self.calls = [] if calls is None else calls

    def outlook(self, info):
        size = (round(info.height * self.scale), round(info.width * self.scale))
        return Outlook(size, self.windows, lambda frames: Needs(len(self.windows(frames))))

    def windows(self, frames):
        starts = range(0, frames, self.window)
        pieces = [range(start, min(start + self.window, frames)) for start in starts]
        return [Window(k, piece, piece) for k, piece in enumerate(pieces)]

    def scene(self, info):
        return self

    def restore(self, window, frames, state, *, frames_in_scene, first_frame, progress=None):
        assert len(frames) == len(window.reads)
        assert (state is None) == (window.index == 0)
        self.calls.append(first_frame + window.index)
        left = np.zeros(1, np.float32) if state is None else state
        height, width = frames.shape[1:3]
        size = (round(width * self.scale), round(height * self.scale))
        restored = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames]
        if frames.dtype == np.uint8:
            restored = [np.clip(frame + left, 0, 255).astype(np.uint8) for frame in restored]
        time.sleep(self.wait)
        if progress is not None:
            progress(1, 1)
        return np.stack(restored).reshape(len(frames), size[1], size[0], 3), left + 1

    def state_arrays(self, state):
        return {"left": state}

    def state_from(self, arrays):
        return arrays["left"]


class Calls(list):
    """Calls that also stand in a file, for a process that is killed."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def append(self, call):
        with self.path.open("a") as file:
            file.write(f"{call}\n")


def main(source, output, calls, *resume):
    from realisvsr_jax.jobs.single import Request, restore_file

    request = Request(source, output, scenes=False, resume=bool(resume))
    restore_file(request, Standin(calls=Calls(Path(calls)), wait=0.05))


if __name__ == "__main__":
    main(*sys.argv[1:])
