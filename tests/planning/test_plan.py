"""The planner as its user runs it, for virtual CPUs; and what it refuses."""

import json
import os
import subprocess
import sys

import pytest

from configs import smoke, tiny, wan13b
from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.planning import arithmetic, lower, restoration
from realisvsr_jax.planning.topologies import GRIDS, parse
from realisvsr_jax.training.settings import TrainingConfig


def plan(*options):
    program = [sys.executable, "-m", "realisvsr_jax.plan", "--config=configs/smoke.py", *options]
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.run(program, env=os.environ | flags, capture_output=True, text=True)


def test_a_step_on_eight_virtual_devices():
    ended = plan(
        "--topology=cpu:8",
        "--json",
        "--config.mesh.seq=2",
        "--config.accumulate=0",
        "--config.mesh.fsdp=2",
        "--config.mesh.data=2",
        "--config.data.batch_size=4",
        "--config.data.buckets=((1, 96, 96),)",
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["fits"]
    assert found["chips"] == 8
    assert not found["estimate"]
    assert found["mesh"] == {"data": 2, "fsdp": 2, "seq_kv": 1, "seq_heads": 2, "tensor": 1}
    (bucket,) = found["buckets"]
    assert bucket["bucket"] == [1, 96, 96]
    assert found["total_bytes_per_chip"] == bucket["total_bytes_per_chip"] > 0
    assert bucket["collectives"]["all-gather"]["count"] > 0
    # The moments and the average of what is trained, shared out over fsdp × seq.
    assert 0 < bucket["optimizer_bytes"] < 4 * bucket["parameters_bytes"]
    assert 0 < bucket["encode_peak_bytes"] < bucket["total_bytes_per_chip"]
    assert bucket["activations_bytes"] == bucket["memory"]["temporaries"]
    assert bucket["flops"]["vae"] > 0
    roof = bucket["roofline"]
    assert roof["seconds"] == roof[roof["bound"]] >= roof["arithmetic"] > 0


def test_a_restoration_on_one_of_two_devices():
    ended = plan("--topology=cpu:2", "--json", "--program=sample", "--bucket=1x96x128")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["program"], found["fits"], found["chips"]) == ("sample", True, 2)
    assert (found["clip"], found["tiles"]) == ([1, 96, 128], 1)
    names = [part["name"] for part in found["parts"]]
    assert names == ["VAE encode, first frame", "sampler, 20 steps", "VAE decode, first frame"]
    # Both networks lie on the device, whichever program runs.
    assert all(part["total_bytes_per_chip"] > part["weights_bytes"] > 0 for part in found["parts"])
    assert not any(part["collectives"] for part in found["parts"])


def test_a_clip_of_four_tiles_passes_through_the_sampler_in_one_program():
    size = ("--config=configs/tiny.py", "--clip=1x160x160", "--part=sampler")
    ended = plan("--topology=cpu:1", "--json", "--program=sample", *size)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["clip"], found["tiles"]) == ([1, 160, 160], 4)
    (part,) = found["parts"]
    wanted = settings.from_mapping(TrainingConfig, tiny.get_config().to_dict())
    assert part["name"] == f"sampler, {wanted.sampler.steps} steps of 4 tiles"
    tile = sum(arithmetic.forward(wanted.model, wanted.vae.latent_size((1, 96, 96))).values())
    assert part["flops"] == wanted.sampler.steps * 4 * tile


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("720x1280", "--clip is '720x1280'; give frames, height and width, as 49x720x1280"),
        ("5x96x100", "--clip 5x96x100: height and width are multiples of 8"),
        ("5x0x96", "height and width are multiples of 8"),
        ("4x96x96", "--clip 4x96x96: the VAE takes 1 [+] 2k frames, the clip has 4"),
        ("9x96x96", "--clip has 9 frames, a window 5; windows follow one another"),
    ],
)
def test_clips_that_cannot_be_planned(clip, message):
    wanted = settings.from_mapping(TrainingConfig, smoke.get_config().to_dict())
    with pytest.raises(InputError, match=message):
        restoration.clip_of(clip, wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --config configs/NAME.py and --topology KIND:GRID"),
        (["--topology=v9:4x4"], "kinds: v5e, v5p, v6e, a100, h100, h200, cpu"),
        (["--topology=v6e:3x3"], "does not exist; v6e comes as 1x1, 2x2, 2x4, 4x4, 4x8, 8x8"),
        (["--topology=cpu:8", "--config.mesh.seq=3"], "which does not fill 8 devices"),
        (
            ["--topology=cpu:1", "--bucket=5x96x97"],
            "--bucket 5x96x97 is not in data.buckets, which has 5x96x96, 1x96x128",
        ),
        (
            ["--topology=cpu:1", "--program=sample", "--part=decoder"],
            "--part decoder: no program's name holds it; they are VAE encode, first frame;",
        ),
        (["--topology=cpu:8", "--config.accumulate=2"], "do not divide the 1 clips of a micro"),
    ],
)
def test_what_cannot_be_planned_is_one_line(options, message):
    ended = plan(*options)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["v5e", "v5e:", "v5e:4by4", "v7:4x4", "cpu:0"])
def test_topologies_that_are_none(name):
    with pytest.raises(InputError, match=f"topology '{name}' (is not known|has no chips)"):
        parse(name)


@pytest.mark.parametrize("name", ["v6e:3x3", "v5e:4x4x4", "v5p:4x4", "v5p:4x4x6", "v5p:0x4x4"])
def test_grids_that_no_tpu_comes_in(name):
    with pytest.raises(InputError, match=f"'{name}' does not exist; {name[:3]} comes as .*2x2"):
        parse(name)


def test_a_topology_is_its_chips():
    assert parse("v5p:4x4x4").chips == 64
    assert parse("v5p:4x4x20").chips == 320
    assert parse("h100:8").is_estimate
    for kind, grids in GRIDS.items():
        assert all(parse(f"{kind}:{grid}").chips for grid in grids)


@pytest.mark.parametrize(
    ("config", "topology", "attention", "conv"),
    [
        (wan13b, "v5e:4x4", "splash", "native"),
        (wan13b, "h100:8", "xla", "native"),
        (wan13b, "cpu:8", "xla", "taps"),
        (smoke, "v5e:4x4", "xla", "native"),
    ],
)
def test_kernels_are_those_that_a_run_would_take_there(config, topology, attention, conv):
    """A kernel that the configuration names stays; no compiler for GPUs is at hand."""
    wanted = settings.from_mapping(TrainingConfig, config.get_config().to_dict())
    found = lower.as_run_on(wanted, parse(topology))
    assert (found.model.dit.attention, found.vae.conv) == (attention, conv)


def test_without_the_tpu_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r"pip install 'realisvsr-jax\[plan\]'"):
        parse("v5e:2x2").devices()
