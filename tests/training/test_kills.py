"""Real processes, really stopped; 20 kills of a longer run are benchmarks/kills.py."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.kills import command, descendants, finish, lines, losses, still_alive, trial

OPTIONS = (
    "--config.steps=14",
    "--config.data.buckets=((1, 96, 96),)",
    "--config.log.preview_every=0",
)

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch, tmp_path_factory):
    """A compile cache for the processes, which otherwise spend most of their time on it."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "jax"))


def test_a_run_that_is_killed_again_and_again_is_the_undisturbed_one(tmp_path):
    digest, kills, problems = trial(tmp_path, OPTIONS, kills=3, rng=random.Random(1))
    assert problems == []
    assert {kill.kind for kill in kills} == {"step", "save", "start"}
    assert max(kill.workers for kill in kills) >= 2
    assert len(digest) == 64


def test_sigterm_to_all_its_processes_saves_and_exits_with_75(tmp_path):
    run = tmp_path / "run"
    training = subprocess.Popen(
        [*command(run, OPTIONS), "--config.log.save_every=100"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while training.poll() is None and len(lines(run)) < 3:
        time.sleep(0.01)
    workers = descendants(training.pid)
    os.killpg(training.pid, signal.SIGTERM)
    _, err = training.communicate(timeout=120)
    assert training.returncode == 75, err
    assert "stopped by SIGTERM; the same command goes on\n" in err
    assert "Traceback" not in err
    assert still_alive(workers) == []
    (saved,) = (int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert saved == max(losses(run)) + 1 < 14
    digest, err = finish(run, OPTIONS)
    assert f"going on from step {saved}" in err
    assert len(lines(run)) == 14
    assert digest == finish(tmp_path / "whole", OPTIONS)[0]
    assert [json.loads(line)["step"] for line in lines(run)] == list(range(14))
