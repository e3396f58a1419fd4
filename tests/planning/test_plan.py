"""The planner as its user runs it, for virtual CPUs; and what it refuses."""

import json
import os
import subprocess
import sys

import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.planning.topologies import parse


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --config configs/NAME.py and --topology KIND:GRID"),
        (["--topology=v9:4x4"], "kinds: v5e, v5p, v6e, a100, h100, h200, cpu"),
        (["--topology=cpu:8", "--config.mesh.seq=3"], "which does not fill 8 devices"),
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


def test_a_topology_is_its_chips():
    assert parse("v5p:4x4x4").chips == 64
    assert parse("h100:8").is_estimate
    assert parse("v6e:8x8").attention == "splash"


def test_without_the_tpu_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r"pip install 'realisvsr-jax\[plan\]'"):
        parse("v5e:2x2").devices()
