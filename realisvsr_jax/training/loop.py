"""Steps in order: dispatch step n, then read what step n − 1 measured."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from realisvsr_jax.training.settings import LogConfig
from realisvsr_jax.training.state import TrainState
from realisvsr_jax.training.step import Metrics

log = logging.getLogger(__name__)

StepFunction = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]
# Called after every `interval` steps with the state, which it must not keep.
Callback = tuple[int, Callable[[TrainState], None]]


class Journal:
    """Losses to `metrics.jsonl`, everything to TensorBoard, now and then a line to the log.

    The file holds only what is a function of the state, so that steps repeated after a resume
    can be compared; times go to TensorBoard and the log.
    """

    def __init__(self, folder: Path, config: LogConfig, steps: int):
        from tensorboardX import SummaryWriter

        self.file = (folder / "metrics.jsonl").open("a")
        self.board = SummaryWriter(str(folder / "tensorboard"))
        self.config, self.steps = config, steps
        self.since = time.monotonic()
        self.waited, self.clips, self.counted, self.reports = 0.0, 0, 0, 0

    def record(self, step: int, metrics: Metrics, clips: int, waited: float) -> None:
        """`step` is the one that was done; `waited` the seconds its data took to come."""
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        self.waited, self.clips, self.counted = (
            self.waited + waited,
            self.clips + clips,
            self.counted + 1,
        )
        if step % self.config.metrics_every == 0:
            self.file.write(json.dumps({"step": step} | values) + "\n")
            self.file.flush()
        if (step + 1) % self.config.print_every == 0 or step + 1 == self.steps:
            self._report(step, values)

    def _report(self, step: int, values: dict[str, float]) -> None:
        seconds = max(time.monotonic() - self.since, 1e-9)
        speed = {
            "clips_per_second": self.clips / seconds,
            "share_of_time_waiting_for_data": self.waited / seconds,
        }
        for name, value in (values | speed).items():
            self.board.add_scalar(name, value, step)
        # The first steps compile, so their time says nothing of the others.
        minutes = (self.steps - step - 1) * seconds / self.counted / 60
        left = f"{minutes:.1f} min left" if self.reports else ""
        self.reports += 1
        log.info(
            "step %d/%d  %s  %.2f clips/s  data %.0f%%  %s",
            step + 1,
            self.steps,
            "  ".join(f"{k} {v:.4g}" for k, v in values.items() if not k.endswith("_gradient")),
            speed["clips_per_second"],
            100 * speed["share_of_time_waiting_for_data"],
            left,
        )
        self.since = time.monotonic()
        self.waited, self.clips, self.counted = 0.0, 0, 0

    def picture(self, name: str, step: int, pixels: np.ndarray) -> None:
        """`pixels`: bytes [H, W, 3]."""
        self.board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is still buffered."""
        self.file.close()
        self.board.close()


def run_steps(
    state: TrainState,
    step_function: StepFunction,
    frozen: Any,
    batches: Iterable[dict[str, Any]],
    journal: Journal,
    callbacks: Sequence[Callback],
) -> TrainState:
    """Trains on every batch and returns the last state."""
    step = int(state.step)
    pending: tuple[int, Metrics, int, float] | None = None
    for batch, waited in _timed(batches):
        state, metrics = step_function(state, frozen, batch)
        if pending:
            journal.record(*pending)
        pending = (step, metrics, len(batch["position"]), waited)
        step += 1
        for interval, callback in callbacks:
            if interval and step % interval == 0:
                callback(state)
    if pending:
        journal.record(*pending)
    return jax.block_until_ready(state)


def _timed(batches: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], float]]:
    iterator = iter(batches)
    while True:
        start = time.monotonic()
        batch = next(iterator, None)
        if batch is None:
            return
        yield batch, time.monotonic() - start
