"""What is read off a compiled program's text, and the arithmetic of a step."""

import pytest

from configs import wan13b
from realisvsr_jax import settings
from realisvsr_jax.planning.report import collectives, flops
from realisvsr_jax.training.settings import TrainingConfig

TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %c = f32[] add(%a, %b)
}

%inner (p: (s32[], bf16[2,4])) -> (s32[], bf16[2,4]) {
  %g = bf16[2,4]{1,0} all-gather(%x), dimensions={0}
}

%body (p: (s32[], bf16[2,4])) -> (s32[], bf16[2,4]) {
  %a = (bf16[2,4]{1,0}, bf16[2,4]{1,0}) all-to-all(%x, %y), replica_groups={}
  %w = (s32[], bf16[2,4]) while(%t), condition=%c2, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %r = f32[8]{0} all-reduce-start(%x), to_apply=%add
  %w = (s32[], bf16[2,4]) while(%t), condition=%c1, body=%body, backend_config={"known_trip_count":{"n":"30"}}
}
"""  # noqa: E501


def test_what_a_loop_exchanges_counts_as_often_as_it_runs():
    assert collectives(TEXT) == {
        "all-reduce": {"count": 1, "bytes": 32},
        "all-to-all": {"count": 30, "bytes": 30 * 32},
        "all-gather": {"count": 90, "bytes": 90 * 16},
    }


def test_the_arithmetic_is_that_of_the_published_figures():
    """480p × 81 frames is 283 TFLOP a forward of the 1.3B, 720p × 49 with four blocks 605."""
    config = settings.from_mapping(TrainingConfig, wan13b.get_config().to_dict())
    assert forward(config, (21, 60, 104)) == pytest.approx(283e12, rel=0.02)
    with_control = forward(config, (13, 90, 160)) * 34 / 30
    assert with_control == pytest.approx(605e12, rel=0.02)


def forward(config, latent):
    """Of the DiT alone: a third of the control branch's training, per block, without its linear."""
    found = flops(config, 1, latent)
    tokens = latent[0] * latent[1] * latent[2] / 4
    block = found["cpc"] / (3 * config.model.cpc.num_blocks) - 2 * tokens * config.model.dit.dim**2
    return block * config.model.dit.num_layers


def test_frozen_blocks_cost_no_weight_gradients():
    config = settings.from_mapping(TrainingConfig, wan13b.get_config().to_dict())
    found = flops(config, 8, (13, 60, 104))
    one = forward(config, (13, 60, 104)) * 8
    assert 2.3 * one < found["dit"] < 2.8 * one
