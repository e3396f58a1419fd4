"""The whole recipe on a clip: shapes, purity, independence of threads, the margin."""

import cv2
import numpy as np
import pytest

from realisvsr_jax.data.degradation import (
    apply_plan,
    degrade_clip,
    preset_named,
    sample_plan,
    stages,
)
from realisvsr_jax.data.degradation.plan import Codec, DegradationPlan, Noise
from realisvsr_jax.errors import InputError


def clip(num_frames=4, height=48, width=64):
    """A bright disc that drifts over a gradient."""
    y, x = np.mgrid[:height, :width]
    frames = []
    for t in range(num_frames):
        disc = (y - height / 2) ** 2 + (x - width / 3 - 2 * t) ** 2 < (height / 4) ** 2
        grey = np.where(disc, 220, 40 + 2 * x)
        frames.append(np.stack([grey, grey // 2, 255 - grey], -1))
    return np.clip(frames, 0, 255).astype(np.uint8)


def plan_for(frames, seed, preset="paper"):
    return sample_plan(np.random.default_rng(seed), *frames.shape[:3], preset=preset)


@pytest.mark.parametrize("preset", ["paper", "static", "light"])
def test_any_seed_gives_the_low_quality_size(preset):
    frames = clip()
    for seed in range(12):
        degraded = apply_plan(plan_for(frames, seed, preset), frames)
        assert degraded.shape == (4, 12, 16, 3)
        assert degraded.dtype == np.uint8


def test_the_result_is_a_pure_function_of_plan_and_frames():
    frames = clip()
    before = frames.copy()
    for seed in range(4):
        plan = plan_for(frames, seed)
        again = DegradationPlan.from_json(plan.to_json())
        np.random.seed(seed)  # noqa: NPY002 (global state must not matter)
        np.testing.assert_array_equal(apply_plan(plan, frames), apply_plan(again, frames))
    np.testing.assert_array_equal(frames, before)


def test_seeds_differ():
    frames = clip()
    first, second = (apply_plan(plan_for(frames, seed), frames) for seed in (0, 1))
    assert np.abs(first.astype(int) - second).mean() > 1


def test_threads_do_not_change_the_result():
    frames = clip(3, 128, 128)
    plans = [plan_for(frames, seed) for seed in range(5)]
    assert {item.name for plan in plans for item in plan.operations if isinstance(item, Codec)} == {
        "libx264",
        "mpeg4",
    }
    threads = cv2.getNumThreads()
    try:
        results = []
        for count in (1, 4):
            cv2.setNumThreads(count)
            results.append([apply_plan(plan, frames) for plan in plans])
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(*results)


def test_light_stays_nearer_to_the_clip_than_paper():
    frames = clip(4, 64, 64)
    small = np.stack(
        [cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA) for frame in frames]
    )

    def error(preset):
        degraded = [apply_plan(plan_for(frames, seed, preset), frames) for seed in range(16)]
        return np.mean([np.abs(item.astype(int) - small).mean() for item in degraded])

    assert error("light") < 0.7 * error("paper")


def test_stages_end_where_apply_ends():
    frames = clip()
    plan = plan_for(frames, 3)
    steps = list(stages(plan, frames))
    assert [operation for operation, _ in steps] == [None, *plan.operations]
    last = np.clip(np.rint(np.stack(steps[-1][1])), 0, 255)
    np.testing.assert_array_equal(last, apply_plan(plan, frames))


def test_noise_is_fresh_in_each_frame_and_the_same_in_each_run():
    still = np.repeat(clip(1), 3, axis=0)
    noise = Noise("gaussian", False, (10.0,) * 3, seed=5)
    plan = DegradationPlan("paper", 3, 48, 64, 1, (noise,))
    first, second = apply_plan(plan, still), apply_plan(plan, still)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first[0].astype(int) - first[1]).mean() > 5


def test_the_lead_is_degraded_and_dropped():
    frames = clip(6)
    whole = apply_plan(plan_for(frames, 7), frames)
    kept = degrade_clip(frames, np.random.default_rng(7), lead=2)
    np.testing.assert_array_equal(kept, whole[2:])


def test_a_margin_without_frames_mirrors_the_clip_in_time():
    frames = clip(4)
    mirrored = np.concatenate([frames[[3, 2, 1]], frames])
    expected = apply_plan(plan_for(mirrored, 7), mirrored)[3:]
    np.testing.assert_array_equal(
        degrade_clip(frames, np.random.default_rng(7), margin=3), expected
    )
    single = degrade_clip(frames[:1], np.random.default_rng(7), margin=3)
    assert single.shape == (1, 12, 16, 3)


def test_a_lead_as_long_as_the_clip_is_refused():
    with pytest.raises(ValueError, match="a lead of 4 frames leaves none of 4"):
        degrade_clip(clip(4), np.random.default_rng(0), lead=4)


def test_frames_of_another_size_than_planned_are_refused():
    frames = clip(4)
    with pytest.raises(ValueError, match=r"shape \(4, 48, 64, 3\), not \(3, 48, 64, 3\)"):
        apply_plan(plan_for(frames, 0), frames[:3])


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(
        InputError, match="unknown degradation preset 'papre'; did you mean 'paper'"
    ):
        preset_named("papre")
