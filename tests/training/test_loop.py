"""What a run says of itself while it goes."""

import re

import jax.numpy as jnp
import pytest

from realisvsr_jax.training.loop import Journal
from realisvsr_jax.training.settings import LogConfig


def test_speeds_are_of_the_steps_however_late_their_metrics_come(tmp_path, caplog):
    """Steps of 2 s; on a CPU the metrics of two come at once where a checkpoint is due."""
    caplog.set_level("INFO", logger="realisvsr_jax")
    journal = Journal(tmp_path, LogConfig(print_every=1), 5)
    start = journal.since
    for step in range(4):
        journal.record(step, {"loss": jnp.float32(1)}, 8, 0.5, start + 2.0 * (step + 1))
    journal.close()
    speeds = [float(speed) for speed in re.findall(r"([\d.]+) clips/s", caplog.text)]
    assert speeds == [pytest.approx(4, abs=0.01)] * 4
    assert re.findall(r"data (\d+)%", caplog.text) == ["25"] * 4
