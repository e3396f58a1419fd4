"""A run on eight virtual devices logs the losses of a run on one, also when the mesh changes."""

import json
import os
import shutil
import subprocess
import sys

import pytest

OPTIONS = (
    "--config=configs/smoke.py",
    "--config.steps=3",
    "--config.accumulate=0",
    "--config.data.buckets=((1, 96, 96),)",
    "--config.log.preview_every=0",
    "--config.log.save_every=2",
)


def train(folder, devices, *options):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    program = subprocess.run(
        [sys.executable, "-m", "realisvsr_jax.train", *OPTIONS, "--workdir", folder, *options],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert program.returncode == 0, program.stderr[-2000:]
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The log of one device."""
    return train(tmp_path_factory.mktemp("mesh") / "one", 1)


def assert_close(rows, alone):
    assert [row["step"] for row in rows] == [row["step"] for row in alone]
    for ours, theirs in zip(rows, alone):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)


def test_a_run_goes_on_with_another_mesh_and_number_of_devices(alone, tmp_path):
    folder = tmp_path / "run"
    mesh = ("--config.mesh.fsdp=2", "--config.mesh.seq=2", "--config.mesh.tensor=2")
    rows = train(folder, 8, *mesh)
    assert_close(rows, alone)
    (folder / "metrics.jsonl").unlink()
    shutil.rmtree(folder / "checkpoints" / "3")
    rows = train(folder, 2, "--config.mesh.seq=2")
    assert_close(rows, [row for row in alone if row["step"] >= 2])
