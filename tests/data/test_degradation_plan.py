"""Plans: the recipe's ranges and odds, walks, determinism, JSON."""

import collections
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from realisvsr_jax.data.degradation.plan import (
    Blur,
    Codec,
    DegradationPlan,
    Jpeg,
    Noise,
    Resize,
    sample_plan,
)
from realisvsr_jax.errors import InputError

GOLDEN = Path(__file__).parent / "degradation_golden.json"


def plans(count, num_frames=8, height=256, width=256, preset="paper"):
    return [
        sample_plan(np.random.default_rng(seed), num_frames, height, width, preset=preset)
        for seed in range(count)
    ]


def operations(kind, plans):
    return [item for plan in plans for item in plan.operations if isinstance(item, kind)]


def assert_walk(values, low, high, step):
    assert min(values) >= low
    assert max(values) <= high
    assert np.abs(np.diff(values)).max() <= step + 1e-12
    assert step == 0 or len(set(values)) > 1


def test_the_golden_plan_still_is_what_its_seed_gives():
    plan = sample_plan(np.random.default_rng(2024), 3, 64, 96)
    expected = DegradationPlan.from_json(GOLDEN.read_text())
    assert _rounded(plan) == _rounded(expected)


def _rounded(plan):
    """Transcendental-free, yet a last bit may differ between builds of numpy."""
    return json.loads(plan.to_json(), parse_float=lambda text: round(float(text), 9))


@pytest.mark.parametrize("preset", ["paper", "static", "light"])
def test_json_gives_back_an_equal_plan(preset):
    for plan in plans(20, preset=preset):
        again = DegradationPlan.from_json(plan.to_json())
        assert again == plan
        assert again.to_json() == plan.to_json()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"operations": [{"op": "smear"}]}'])
def test_text_that_is_no_plan_is_an_input_error(text):
    with pytest.raises(InputError, match="not a degradation plan"):
        DegradationPlan.from_json(text)


def test_plans_follow_the_generator_and_nothing_global():
    np.random.seed(0)  # noqa: NPY002 (global state must not matter)
    first = plans(3)
    np.random.seed(1)  # noqa: NPY002
    assert plans(3) == first
    assert len(set(first)) == 3


def test_operations_come_in_the_recipe_s_order():
    kinds = {Blur: "b", Resize: "r", Noise: "n", Jpeg: "j", Codec: "c"}
    orders = collections.Counter(
        "".join(kinds[type(item)] for item in plan.operations) for plan in plans(400)
    )
    second = {"brnj": 0.8, "rnj": 0.2}
    endings = {"crb": 0.4, "cr": 0.1, "rbc": 0.4, "rc": 0.1}
    expected = {f"brnjc{a}{b}": p * q for a, p in second.items() for b, q in endings.items()}
    assert set(orders) <= set(expected)
    for order, odds in expected.items():
        assert orders[order] / 400 == pytest.approx(odds, abs=0.07)


def test_odds_of_the_choices_are_the_recipe_s():
    many = plans(1500, num_frames=2)
    firsts = [plan.operations[0] for plan in many]
    resizes = [plan.operations[1] for plan in many]
    noises = operations(Noise, many)

    def share(items, name, value):
        return sum(getattr(item, name) == value for item in items) / len(items)

    table = {
        "iso": 0.405,
        "aniso": 0.225,
        "generalized_iso": 0.108,
        "generalized_aniso": 0.027,
        "plateau_iso": 0.108,
        "plateau_aniso": 0.027,
        "sinc": 0.1,
    }
    for kind, odds in table.items():
        assert share(firsts, "kind", kind) == pytest.approx(odds, abs=0.045)
    for mode, odds in {"up": 0.2, "down": 0.7, "keep": 0.1}.items():
        assert share(resizes, "mode", mode) == pytest.approx(odds, abs=0.04)
    for name in ("bilinear", "area", "bicubic"):
        assert share(operations(Resize, many), "interpolation", name) == pytest.approx(
            1 / 3, abs=0.03
        )
    assert share(noises, "kind", "poisson") == pytest.approx(0.5, abs=0.03)
    assert share(noises, "grey", True) == pytest.approx(0.4, abs=0.03)
    assert share(operations(Codec, many), "name", "libx264") == pytest.approx(2 / 3, abs=0.03)
    assert {item.size for item in firsts} == {7, 9, 11, 13, 15, 17, 19, 21}


def test_walks_stay_in_range_and_step_by_step():
    for plan in plans(120):
        first, second = plan.operations[:5], plan.operations[5:]
        for part, sigma, gaussian, poisson in ((first, 3, 30, 3), (second, 1.5, 25, 2.5)):
            for item in part:
                if isinstance(item, Noise) and item.kind == "gaussian":
                    assert_walk(item.strength, 1, gaussian, 0.1)
                elif isinstance(item, Noise):
                    assert_walk(item.strength, 0.05, poisson, 0.005)
                elif isinstance(item, Blur) and item.kind != "sinc":
                    assert_walk(item.sigma_x, 0.2, sigma, 0.02)
                elif isinstance(item, Jpeg):
                    assert 30 <= min(item.quality) <= max(item.quality) <= 95
                    assert np.abs(np.diff(item.quality)).max() <= 3


def test_anisotropy_beta_and_omega_walk_where_the_kernel_uses_them():
    """β walks by its step; a β redrawn in each frame would flicker."""
    blurs = operations(Blur, plans(600))
    for item in blurs:
        anisotropic = item.kind.endswith("aniso")
        assert len(item.sigma_y) == len(item.angle) == (8 if anisotropic else 0)
        if anisotropic:
            assert_walk(item.angle, -math.pi, math.pi, 0.31416)
        if item.kind.startswith("generalized"):
            assert_walk(item.beta, 0.5, 4, 0.05)
        elif item.kind.startswith("plateau"):
            assert_walk(item.beta, 1, 2, 0.1)
        else:
            assert item.beta == ()
        if item.kind == "sinc":
            low = math.pi / 3 if item.size < 13 else math.pi / 5
            assert item.sigma_x == ()
            assert_walk(item.omega, min(low, math.pi / 3), math.pi, 0.0628)
    assert {item.kind for item in blurs if item.beta} == {
        f"{family}_{shape}" for family in ("generalized", "plateau") for shape in ("iso", "aniso")
    }


def test_the_closing_sinc_keeps_at_least_a_third_of_the_band():
    for plan in plans(60):
        closing = [item for item in plan.operations[8:] if isinstance(item, Blur)]
        assert all(item.kind == "sinc" and min(item.omega) >= math.pi / 3 for item in closing)


def test_kept_sizes_do_not_drift_and_scaled_ones_do():
    modes = collections.defaultdict(list)
    for item in operations(Resize, plans(150, num_frames=16)):
        modes[item.mode].append(len(set(item.sizes)))
    assert set(modes["keep"]) == {1}
    assert set(modes["target"]) == {1}
    assert np.mean(modes["up"]) > 2
    assert np.mean(modes["down"]) > 2


def test_sizes_are_even_and_in_range():
    for plan in plans(150, height=92, width=252):
        first = plan.operations[1]
        for height, width in first.sizes:
            assert height % 2 == width % 2 == 0
            assert max(0.15 * 92 - 2, 8) <= height <= 1.5 * 92
            assert 0.15 * 252 - 2 <= width <= 1.5 * 252
    smallest = min(min(s) for item in operations(Resize, plans(99, 2, 32, 32)) for s in item.sizes)
    assert smallest == 8


def test_the_codec_sees_the_first_frame_s_size_or_the_target():
    for plan in plans(60):
        size = (plan.height, plan.width)
        for item in plan.operations:
            if isinstance(item, Resize):
                size = item.sizes[0]
            elif isinstance(item, Codec):
                assert item.size == size
        assert size == (64, 64)


def test_bits_follow_the_area():
    """The same bits a pixel at any size; 1e4..1e5 a frame at 256 × 256."""
    for small, large in zip(plans(40), plans(40, height=480, width=832)):
        for few, many in zip(operations(Codec, [small]), operations(Codec, [large])):
            assert 1e4 <= few.bits_per_frame <= 1e5
            assert many.bits_per_frame == pytest.approx(
                few.bits_per_frame * 480 * 832 / 256**2, rel=1e-3
            )


def test_static_draws_nothing_anew_from_frame_to_frame():
    for plan in plans(40, preset="static"):
        for item in plan.operations:
            for name, value in dataclasses.asdict(item).items():
                if isinstance(value, tuple) and name != "size":
                    assert len(set(value)) <= 1, (item, name)


def test_a_single_frame_has_a_plan():
    plan = sample_plan(np.random.default_rng(0), 1, 64, 64)
    assert all(len(item.sizes) == 1 for item in operations(Resize, [plan]))


@pytest.mark.parametrize(
    ("num_frames", "height", "width", "message"),
    [
        (0, 64, 64, "at least 1 frame"),
        (4, 66, 64, "66x64 does not divide by the scale 4"),
        (4, 64, 2, "64x2 does not divide by the scale 4"),
    ],
)
def test_sizes_that_cannot_be_are_refused(num_frames, height, width, message):
    with pytest.raises(ValueError, match=message):
        sample_plan(np.random.default_rng(0), num_frames, height, width)
