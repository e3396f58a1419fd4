import os

import jax.numpy as jnp
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.training.checkpoint import Checkpoints, check_folder, saved_steps
from realisvsr_jax.training.settings import LogConfig, OptimizerConfig, TrainingConfig
from realisvsr_jax.training.state import TrainState, init_state, make_optimizer


def state_at(step: int) -> TrainState:
    state = init_state({"w": jnp.full(2, float(step))}, make_optimizer(OptimizerConfig(), 10))
    return TrainState(jnp.asarray(step, jnp.int32), state.params, state.opt_state, state.ema)


def steps(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_last_the_round_ones_and_the_best_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, LogConfig(keep=2, keep_every=5))
    scores = {2: 0.1, 4: 0.9, 6: 0.5}
    for step in range(1, 10):
        checkpoints.save(state_at(step), scores.get(step))
    assert steps(tmp_path) == [4, 5, 8, 9]
    assert checkpoints.latest_step() == 9
    assert checkpoints.best_step() == 4
    checkpoints.close()
    again = Checkpoints(tmp_path)
    assert again.best_step() == 4
    assert float(again.restore(state_at(0), 4).params["w"][0]) == 4.0
    assert float(again.restore(state_at(0)).params["w"][0]) == 9.0


def test_a_better_one_takes_the_place_of_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, LogConfig(keep=1))
    for step, score in ((1, -0.5), (2, -0.7), (3, -0.4), (4, None)):
        checkpoints.save(state_at(step), score)
    assert steps(tmp_path) == [3, 4]
    assert checkpoints.best_step() == 3


def test_without_scores_nothing_is_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, LogConfig(keep=1))
    checkpoints.save(state_at(1))
    checkpoints.save(state_at(2))
    assert steps(tmp_path) == [2]
    assert checkpoints.best_step() is None


@pytest.mark.parametrize("again", [None, 0.5])
def test_a_step_that_is_saved_is_not_saved_again(tmp_path, again):
    checkpoints = Checkpoints(tmp_path, LogConfig())
    checkpoints.save(state_at(3), 0.5)
    checkpoints.save(state_at(3), again)
    assert checkpoints.best_step() == 3


def test_the_steps_of_a_run_are_known_without_its_networks(tmp_path):
    assert saved_steps(tmp_path) == (None, None)
    checkpoints = Checkpoints(tmp_path / "checkpoints", LogConfig())
    checkpoints.save(state_at(3), 0.5)
    checkpoints.save(state_at(7))
    checkpoints.close()
    assert saved_steps(tmp_path) == (7, 3)


def test_a_folder_is_taken_if_it_is_new_empty_or_left_by_a_kill(tmp_path, tiny_release):
    run = tmp_path / "a" / "run"
    check_folder(run, TrainingConfig())
    assert not run.parent.exists()
    (run / ".init.partial").mkdir(parents=True)
    check_folder(run, TrainingConfig())
    (run / "init").symlink_to(tiny_release)
    (run / ".run.json.partial").write_text("{")
    check_folder(run, TrainingConfig())


def test_any_other_folder_is_refused(tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "init").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"run is no RUN: it has init in it, but no run\.json; name"
    ):
        check_folder(run, TrainingConfig())
    for name in "abcd":
        (run / name).write_text("mine")
    with pytest.raises(InputError, match=r"it has a, b, c, … in it, but no run\.json"):
        check_folder(run, TrainingConfig())
    for below in (run / "a", run / "a" / "deep" / "run"):
        with pytest.raises(InputError, match=r"--workdir: .*run/a is a file; name a folder"):
            check_folder(below, TrainingConfig())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=f"--workdir: {tmp_path} may not be written"):
        check_folder(tmp_path / "new", TrainingConfig())
