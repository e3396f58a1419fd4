"""The speed comparison: both sides do the same work, and its sums are right."""

import dataclasses

import numpy as np
import pytest

from benchmarks.speed import __main__ as speed
from benchmarks.speed import cases, ours, table, theirs, worker
from benchmarks.speed.cases import CASES, Case
from realisvsr_jax.errors import InputError
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig

SMALL = DiTConfig(
    dim=24,
    ffn_dim=40,
    num_heads=2,
    num_layers=3,
    in_channels=4,
    out_channels=4,
    text_dim=8,
    text_length=5,
    freq_dim=8,
    remat="block",
)
STEP = Case("small", "step", (2, 4, 6), model=RealisVSRConfig(SMALL, CPCConfig(num_blocks=2)))


def test_both_sides_take_the_same_training_step(tmp_path):
    """Loss and gradient; the control branch on the other side is put together by hand."""
    weights = tmp_path / "weights.safetensors"
    expected = theirs.load(STEP, weights, 1, compiled=False)[0]()
    found = ours.load(STEP, weights)[0]()
    assert found.keys() == expected.keys() == {"loss", "gradient"}
    for name, value in found.items():
        of_torch = worker.as_numpy(expected[name])
        assert np.linalg.norm(of_torch) > 0
        assert speed.relative(worker.as_numpy(value), of_torch) < 1e-5, name


def test_operations_by_work():
    """In forwards: with the backward pass three; of a frozen DiT less than those of a trained."""
    forward, backward = (cases.flops(cases.named(n)) for n in ("dit-1170", "dit-backward-1170"))
    assert backward == 3 * forward
    once = dataclasses.replace(STEP, model=dataclasses.replace(STEP.model, cpc=CPCConfig(1)))
    kept = dataclasses.replace(SMALL, remat="none")
    plain = dataclasses.replace(STEP, model=RealisVSRConfig(kept, STEP.model.cpc))
    assert cases.flops(once) < cases.flops(STEP) == cases.flops(plain)


def results(**changes):
    """Two slow rounds of both sides hide nothing: a ratio is taken within a round."""
    sides = {
        "ours": {"seconds": [1.0, 4.0, 2.0], "peak": 2**30, "device": "cpu"},
        "eager": {"seconds": [2.0, 5.0, 2.5], "peak": 2**31, "device": "cpu"},
        "compiled": {"failed": "not ready within 300 s"},
    }
    found = {"sides": sides | changes, "flops": 4e12, "difference": 2e-6}
    return found | {"machine": "a laptop", "threads": 2, "load": [0.1, 1.5]}


def test_ratios_are_paired_by_round():
    page = table.page([(CASES[0], results())])
    assert "| 2.00 s | 2.50 s | 0.80 (0.65–0.80) | – | ≤ 0.95 | 585 tokens/s | 2.000 | – |" in page
    assert "| 1.00 / 2.00 GiB | 2e-06 |" in page
    assert "dit-1170: torch.compile: not ready within 300 s." in page
    assert page.endswith("Short of the target: nothing.\n")


def test_what_falls_short_is_said_with_its_number():
    case = dataclasses.replace(CASES[0], ratio=0.79, peak=2.0**29, compiled_ratio=0.3)
    compiled = {"seconds": [2.0, 8.0, 5.0], "peak": 0, "device": "cpu"}
    missed = table.shortfall(case, results(compiled=compiled))
    assert missed == "0.80 of eager, not 0.79, 0.50 of compiled, not 0.3, 1.00 GiB, not 0.5"
    card = {"seconds": [0.01] * 3, "peak": 0, "device": "NVIDIA H100 80GB HBM3"}
    found = results(ours=card)
    assert table.shortfall(dataclasses.replace(case, mfu=0.45), found) == "MFU 40%, not 45%"


def test_a_side_that_fails_says_why(tmp_path):
    says = pytest.raises(InputError, match="no case 'small'; known: dit-1170")
    with worker.Side("ours", STEP, tmp_path / "weights", 1) as side, says:
        side.ask("load", 60)


def test_a_gpus_case_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(speed, "sees_gpu", lambda: False)
    with pytest.raises(InputError, match="need one that JAX and PyTorch both see"):
        speed.chosen(["dit-1170", "gpu-dit-480p81"])
    assert {case.device for case in speed.chosen(None)} == {"cpu"}
