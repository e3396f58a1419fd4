"""What is read off a compiled program's text, the arithmetic of a step, and the verdict."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from configs import wan13b
from realisvsr_jax import settings
from realisvsr_jax.model.wan_dit import DiTConfig, WanDiT
from realisvsr_jax.planning import arithmetic, page, report
from realisvsr_jax.planning.hlo import Program
from realisvsr_jax.planning.topologies import CHIPS
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.vae.wan_vae import TINY_VAE

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


# What the TPU compiler writes: no number of rounds, and a gather that is cut into three fusions.
TPU_TEXT = """HloModule jit_step, is_scheduled=true

%start (p: bf16[4,8]) -> (bf16[4,8], bf16[16,8]) {
  %p = bf16[4,8]{1,0:T(8,128)} parameter(0)
  %g = bf16[16,8]{1,0:T(8,128)} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}
  ROOT %s = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%meanwhile (p.5: bf16[4,8]) -> bf16[16,8] {
  %p.5 = bf16[4,8]{1,0} parameter(0)
  ROOT %g.5 = bf16[16,8]{1,0:T(8,128)S(1)} all-gather(%p.5), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}
}

%done (p.1: bf16[4,8]) -> bf16[16,8] {
  %p.1 = bf16[4,8]{1,0} parameter(0)
  %g.1 = bf16[16,8]{1,0} all-gather(%p.1), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}
  ROOT %d = bf16[16,8]{1,0} custom-call(%g.1), custom_call_target="AsyncCollectiveDone"
}

%kept (p.2: f32[30,4], p.3: f32[1,4], p.4: s32[]) -> f32[30,4] {
  %p.2 = f32[30,4]{1,0} parameter(0)
  %p.3 = f32[1,4]{1,0} parameter(1)
  ROOT %u = f32[30,4]{1,0} dynamic-update-slice(%p.2, %p.3, %p.4)
}

%condition (c: (s32[], f32[30,4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(30)
  %c = (s32[], f32[30,4]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (b: (s32[], f32[30,4])) -> (s32[], f32[30,4]) {
  %b = (s32[], f32[30,4]) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%b), index=0
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)S(2)} add(%j, %two)
  %f1 = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) fusion(%x), kind=kCustom, calls=%start
  %f4 = bf16[16,8]{1,0:T(8,128)S(1)} fusion(%f1), kind=kCustom, calls=%meanwhile
  %f2 = bf16[16,8]{1,0} fusion(%f4), kind=kCustom, calls=%done
  %permute = (f32[8]{0}, f32[8]{0:T(128)S(1)}, u32[]{:S(2)}) collective-permute-start(%z), channel_id=3, source_target_pairs={{0,1},{1,0}}
  %f3 = f32[30,4]{1,0} fusion(%y, %w), kind=kLoop, calls=%kept
  ROOT %out = (s32[], f32[30,4]) tuple(%next, %f3)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %loop = (s32[], f32[30,4]) while(%t), condition=%condition, body=%body
}
"""  # noqa: E501


def test_what_a_loop_exchanges_counts_as_often_as_it_runs():
    found = Program(TEXT).collectives()
    assert {kind: (row["count"], row["bytes"]) for kind, row in found.items()} == {
        "all-reduce": (1, 32),
        "all-to-all": (30, 30 * 32),
        "all-gather": (90, 90 * 16),
    }


def test_the_tpu_compilers_text():
    """15 rounds, two at a time; of a gather by four a chip receives three quarters."""
    program = Program(TPU_TEXT)
    assert program.collectives() == {
        "all-gather": {"count": 15, "bytes": 15 * 256, "moved": 15 * 192},
        "collective-permute": {"count": 15, "bytes": 15 * 32, "moved": 15 * 32},
    }
    # One row of f3 is written in a round; the permuted result stays on the core.
    assert program.traffic() == 2 * 15 * 16


def test_the_time_that_cannot_be_beaten():
    chip = CHIPS["v5e"]
    work = {"bfloat16": 2 * chip.flops, "float32": chip.flops, "high": chip.flops}
    found = report.roofline(chip, 4, work, traffic=round(chip.bandwidth), moved=0)
    assert found["arithmetic"] == pytest.approx((2 + 6 + 3) / 4)
    assert (found["memory"], found["interconnect"], found["bound"]) == (1, 0, "arithmetic")
    assert found["seconds"] == found["arithmetic"]
    unknown = report.roofline(chip, 4, work, traffic=None, moved=0)
    assert (unknown["memory"], unknown["bound"]) == (None, "arithmetic")


def test_the_formula_counts_the_products_of_a_traced_block():
    """Two depths, so that embeddings and head cancel."""

    def traced(layers):
        config = DiTConfig(
            dim=48, ffn_dim=96, num_heads=2, num_layers=layers, in_channels=4, out_channels=4,
            text_dim=16, text_length=8, freq_dim=32,
        )  # fmt: skip
        dit = nnx.eval_shape(lambda: WanDiT(config, rngs=nnx.Rngs(0)))
        shapes = [(1, 2, 6, 4, 4), (1,), (1, 8, 16)]
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        return config, arithmetic.counted(lambda dit, *x: dit(*x), dit, *arrays)

    config, three = traced(3)
    _, two = traced(2)
    assert three - two == sum(arithmetic.block(config, (2, 6, 4)))


def test_a_stream_through_the_vae_costs_what_the_whole_clip_does():
    whole = arithmetic.encode(TINY_VAE, (9, 32, 48))
    assert whole > 0
    assert arithmetic.encode(TINY_VAE, (9, 32, 48), chunk=2) == whole


def test_small_sizes_are_shown_in_smaller_units():
    assert page.size(3 * 2**30) == "3.00 GiB"
    assert page.size(3 * 2**20) == "3.00 MiB"
    assert page.work(5.7e9) == "5.700 GFLOP"


def test_the_verdict_names_the_knob():
    row = {"parameters_bytes": 2, "optimizer_bytes": 1, "activations_bytes": 9}
    assert "encode_frames to 4" in page.training_knob(row, 0, "none")
    assert "model.dit.remat to 'block'" in page.training_knob(row, 4, "none")
    assert "mesh.seq up" in page.training_knob(row, 4, "block")
    assert "mesh.fsdp up" in page.training_knob(row | {"parameters_bytes": 20}, 0, "none")
    found = {"chip_memory_bytes": 2**30, "total_bytes_per_chip": 2**31, "fits": False, "knob": "k"}
    assert page.verdict(found) == "It does not fit: 2.00 GiB of 1.00 GiB a chip. Turn k."


def test_the_arithmetic_is_that_of_the_published_figures():
    """480p × 81 frames is 283 TFLOP a forward of the 1.3B, 720p × 49 with four blocks 605."""
    config = settings.from_mapping(TrainingConfig, wan13b.get_config().to_dict())
    assert forward(config, (21, 60, 104)) == pytest.approx(283e12, rel=0.02)
    with_control = forward(config, (13, 90, 160)) * 34 / 30
    assert with_control == pytest.approx(605e12, rel=0.02)


def forward(config, latent):
    """Of the DiT alone."""
    return arithmetic.forward(config.model, latent)["dit"]


def test_frozen_blocks_cost_no_weight_gradients():
    config = settings.from_mapping(TrainingConfig, wan13b.get_config().to_dict())
    found = arithmetic.training(config.model, 8, (13, 60, 104))
    one = forward(config, (13, 60, 104)) * 8
    assert 2.3 * one < found["dit"] < 2.8 * one

    def recomputed(remat, attention="auto"):
        dit = dataclasses.replace(config.model.dit, remat=remat, attention=attention)
        model = dataclasses.replace(config.model, dit=dit)
        return arithmetic.training(model, 8, (13, 60, 104))["recomputed"]

    assert recomputed("none") == recomputed("dots") == 0
    assert recomputed("block") == pytest.approx(one * 34 / 30)
    # What attention gives is kept; the reference forms its scores again, half of its products.
    assert 0.3 * one < recomputed("attention") == found["recomputed"] < 0.5 * one
    assert recomputed("attention", "xla") > recomputed("attention")
    assert recomputed("attention", "xla") - recomputed("attention") == recomputed("dots", "xla")
