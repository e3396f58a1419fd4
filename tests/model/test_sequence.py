"""Eight virtual devices give what one gives: forward, gradients, and the VAE's latents."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.mesh_equality import MESHES, TOLERANCE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compared():
    """The errors of every mesh, in a process of its own: devices are counted once a process."""
    program = subprocess.run(
        [sys.executable, "-m", "tests.model.mesh_equality"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
    )
    assert program.returncode == 0, program.stderr
    return [json.loads(line) for line in program.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(MESHES)), ids=map(str, MESHES))
def test_a_mesh_gives_what_one_device_gives(compared, number):
    found = compared[number]
    for axis, size in MESHES[number].items():
        if axis != "seq":
            assert found["mesh"][axis] == size
    assert max(found["errors"].values()) < TOLERANCE, found


def test_heads_and_keys_share_the_sequence(compared):
    """Four heads on eight devices: four by heads, and keys gathered over the other two."""
    inner = [(row["mesh"]["seq_heads"], row["mesh"]["seq_kv"]) for row in compared]
    assert inner[MESHES.index({"fsdp": 1, "seq": 8})] == (4, 2)
    assert inner[MESHES.index({"fsdp": 1, "seq": 4, "tensor": 2})] == (2, 2)
    assert inner[MESHES.index({"fsdp": 2, "seq": 4})] == (4, 1)
