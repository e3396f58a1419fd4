import logging

import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.training.health import Health
from realisvsr_jax.training.settings import HealthConfig


def health(newest: int | None = 4, **settings) -> Health:
    return Health(HealthConfig(**settings), lambda: newest)


def test_steps_in_a_row_that_are_not_finite_stop_the_run_and_are_named():
    watch = health()
    watch.check(5, False, 2, ["a.mp4", "b.mp4"], [])
    assert not watch.sound
    watch.check(6, False, 2, ["b.mp4", "c.mp4"], [])
    with pytest.raises(InputError) as stopped:
        watch.check(7, False, 2, ["d.mp4"], [])
    message = str(stopped.value)
    assert "steps 5 to 7: loss or gradient was not finite" in message
    assert "with a.mp4, b.mp4, c.mp4, d.mp4;" in message
    assert "the newest checkpoint is step 4, from before" in message
    assert "lower optimizer.learning_rate" in message


def test_a_finite_step_between_them_starts_the_count_anew():
    watch = health(newest=None, skipped_steps=2)
    for step in range(0, 8, 2):
        watch.check(step, False, 1, [], [])
        watch.check(step + 1, True, 1, [], [])
        assert watch.sound
    watch.check(8, False, 1, [], [])
    with pytest.raises(InputError, match="there is no checkpoint yet"):
        watch.check(9, False, 1, [], [])


def test_clips_that_were_replaced_are_counted_and_named_once(caplog):
    watch = health(unreadable=0.5)
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            watch.check(step, True, 8, [], ["x.mp4 is damaged"])
    assert watch.replaced == 3
    assert caplog.text.count("clip replaced by another: x.mp4 is damaged") == 1


def test_too_many_of_them_stop_the_run():
    watch = health(unreadable=0.1)
    for step in range(10):
        watch.check(step, True, 20, [], ["x.mp4 is damaged", "y.mp4 is empty"])
    with pytest.raises(InputError) as stopped:
        watch.check(10, True, 20, [], ["z.mp4 is gone"] * 3)
    assert "23 of 220 pairs had to be replaced" in str(stopped.value)
    assert "x.mp4 is damaged; y.mp4 is empty; z.mp4 is gone" in str(stopped.value)


def test_a_few_at_the_start_do_not():
    watch = health(unreadable=0.1)
    watch.check(0, True, 2, [], ["x.mp4 is damaged"] * 2)
