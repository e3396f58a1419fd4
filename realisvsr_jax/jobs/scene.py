"""What a job needs of whoever restores: sizes and windows beforehand, then window by window."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from realisvsr_jax.video import VideoInfo


@runtime_checkable
class Window(Protocol):
    """Numbers of frames within the scene: `reads` go in, `writes` come out."""

    index: int
    reads: range
    writes: range


@runtime_checkable
class Scene(Protocol):
    """Restores scenes of frames of one size; see `sampling.scene.SceneRestorer`."""

    def restore(
        self,
        window: Any,
        frames: np.ndarray,
        state: Any,
        *,
        frames_in_scene: int,
        first_frame: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> tuple[np.ndarray, Any]:
        """The frames `window.writes` and the state for the next window."""
        ...

    def state_arrays(self, state: Any) -> dict[str, np.ndarray]:
        """A state as arrays, bit by bit."""
        ...

    def state_from(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """What `state_arrays` took apart."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a scene takes: passes of the network, and bytes.

    `host` are those of frames and caches while a window is restored, `state` what a window leaves
    to the next, `device` those of the greatest program; `device_limit` is what a device has, None
    where its memory is the host's.
    """

    passes: int
    tiles: str = "untiled"
    host: int = 0
    state: int = 0
    device: int = 0
    device_limit: int | None = None


@dataclass(frozen=True)
class Outlook:
    """What is known of a restoration before any weights are read.

    `size` (h, w) is the result's; `windows` gives those of a scene of so many frames, `needs` what
    they take.
    """

    size: tuple[int, int]
    windows: Callable[[int], list[Any]]
    needs: Callable[[int], Needs]


@runtime_checkable
class Weights(Protocol):
    """Opens scenes for videos, with the weights read at the first one."""

    def outlook(self, info: VideoInfo) -> Outlook:
        """For a video; InputError for options that do not fit it."""
        ...

    def scene(self, info: VideoInfo) -> Scene:
        """For a video."""
        ...
