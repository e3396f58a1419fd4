"""Plans applied to frames: a pure function of both."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from realisvsr_jax.data.degradation import ops
from realisvsr_jax.data.degradation.plan import DegradationPlan, Operation, sample_plan

MARGIN = 10  # frames that an encoder spends before it comes down to its bitrate

Frames = UInt8[np.ndarray, "T H W 3"]
SmallFrames = UInt8[np.ndarray, "_ h w 3"]  # h = H / scale, w = W / scale


def apply_plan(plan: DegradationPlan, frames: Frames) -> SmallFrames:
    """The degraded clip, uint8 [T, H / scale, W / scale, 3], RGB.

    Equal on equal arguments, whatever the number of threads. Raises ValueError where the
    clip is not the one that the plan was drawn for.
    """
    current = _start(plan, frames)
    for operation in plan.operations:
        current = _drained(ops.apply_operation(operation, current))
    return np.stack([ops.to_bytes(frame) for frame in current])


def _drained(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, each let go as the next is taken: a clip of 4K is not in memory twice."""
    frames.reverse()
    while frames:
        yield frames.pop()


def stages(
    plan: DegradationPlan, frames: Frames
) -> Iterator[tuple[Operation | None, list[np.ndarray]]]:
    """The clip before the first operation (None) and behind each: float32 in grey levels.

    Sizes differ between stages, and between the frames of one where a resize walks.
    """
    current = list(_start(plan, frames))
    yield None, current
    for operation in plan.operations:
        current = ops.apply_operation(operation, current)
        yield operation, current


def _start(plan: DegradationPlan, frames: Frames) -> Iterator[np.ndarray]:
    expected = (plan.num_frames, plan.height, plan.width, 3)
    if frames.shape != expected:
        raise ValueError(f"the plan is for frames of shape {expected}, not {frames.shape}")
    return (frame.astype(np.float32) for frame in frames)


def degrade_clip(
    frames: Frames,
    rng: np.random.Generator,
    scale: int = 4,
    preset: str = "paper",
    *,
    lead: int = 0,
    margin: int | None = None,
) -> SmallFrames:
    """A degraded version of `frames[lead:]`, uint8 [T − lead, H / scale, W / scale, 3].

    The first `lead` frames are degraded with the others and dropped, since encoders start
    above their bitrate: MPEG-4 leaves the first five or so almost as they are, whatever the
    bitrate. MARGIN frames are enough where the source has them. `margin` > lead fills up
    with frames of the clip mirrored in time, at their cost; None takes the lead as it is.
    Raises ValueError where the size does not divide by `scale` or no frame is left.
    """
    if not 0 <= lead < len(frames):
        raise ValueError(f"a lead of {lead} frames leaves none of {len(frames)}")
    missing = max((lead if margin is None else margin) - lead, 0)
    extended = mirror_lead(frames, missing)
    num_frames, height, width, _ = extended.shape
    plan = sample_plan(rng, num_frames, height, width, scale, preset)
    return apply_plan(plan, extended)[missing + lead :]


def mirror_lead(frames: Frames, count: int) -> UInt8[np.ndarray, "_ H W 3"]:
    """The clip behind `count` more frames, its own, mirrored in time at the first one."""
    return np.pad(frames, ((count, 0), (0, 0), (0, 0), (0, 0)), mode="reflect")
