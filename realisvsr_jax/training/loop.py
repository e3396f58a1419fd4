"""Steps in order: dispatch step n, then read what step n − 1 measured."""

import dataclasses
import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from realisvsr_jax.files import append_lines
from realisvsr_jax.training.health import Health
from realisvsr_jax.training.settings import LogConfig
from realisvsr_jax.training.state import TrainState
from realisvsr_jax.training.step import Metrics
from realisvsr_jax.training.together import Together

log = logging.getLogger(__name__)

StepFunction = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]
# Called after every `interval` steps with the state, which it must not keep.
Callback = tuple[int, Callable[[TrainState], None]]
# What a batch says of itself, which no program on a device takes: names of its clips, and why
# some had to be replaced.
NOTES = ("clip", "replaced")


class Quiet:
    """The journal of a process that leaves the writing to another."""

    def record(self, step: int, metrics: Metrics, clips: int, waited: float, at: float) -> None:
        """Nothing."""

    def validated(self, step: int, scores: dict[str, dict[str, float]]) -> None:
        """Nothing."""

    def picture(self, name: str, step: int, pixels: np.ndarray) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Journal(Quiet):
    """Losses to `metrics.jsonl`, everything to TensorBoard, now and then a line to the log.

    The file holds only what is a function of the state, so that steps repeated after a resume
    can be compared; times go to TensorBoard and the log.
    """

    def __init__(
        self, folder: Path, config: LogConfig, steps: int, rate: Callable[[int], Any] | None = None
    ):
        """`rate` is the learning rate at a step."""
        from tensorboardX import SummaryWriter

        self.folder, self.rate = folder, rate
        self.file = append_lines(folder / "metrics.jsonl")
        self.board = SummaryWriter(str(folder / "tensorboard"))
        self.config, self.steps = config, steps
        self.since = time.monotonic()
        self.waited, self.clips, self.counted, self.reports = 0.0, 0, 0, 0

    def record(self, step: int, metrics: Metrics, clips: int, waited: float, at: float) -> None:
        """`step` is the one that was done; `waited` the seconds its data took to come.

        `at` is when it was given to the device (`time.monotonic`). Metrics come later, those of
        several steps perhaps at once, so that the time between two of them says nothing.
        """
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
            self._report(step, values, at)

    def _report(self, step: int, values: dict[str, float], at: float) -> None:
        seconds = max(at - self.since, 1e-9)
        speed = {
            "clips_per_second": self.clips / seconds,
            "share_of_time_waiting_for_data": self.waited / seconds,
        }
        if self.rate:
            speed["learning_rate"] = float(self.rate(step))
        for name, value in (values | speed | memory()).items():
            self.board.add_scalar(name, value, step)
        # The first steps compile, so their time says nothing of the others.
        minutes = (self.steps - step - 1) * seconds / self.counted / 60
        left = f"{minutes:.1f} min left" if self.reports else ""
        self.reports += 1
        log.info(
            "step %d/%d  %s  %.2f clips/s  data %.0f%%  %s",
            step + 1,
            self.steps,
            "  ".join(f"{k} {v:.4g}" for k, v in values.items() if _worth_saying(k, v)),
            speed["clips_per_second"],
            100 * speed["share_of_time_waiting_for_data"],
            left,
        )
        self.since = at
        self.waited, self.clips, self.counted = 0.0, 0, 0

    def validated(self, step: int, scores: dict[str, dict[str, float]]) -> None:
        """A line in `validation.jsonl`: `scores` of 'average' and 'raw' weights by metric."""
        with append_lines(self.folder / "validation.jsonl") as file:
            file.write(json.dumps({"step": step} | scores) + "\n")
        for weights, values in scores.items():
            for name, value in values.items():
                self.board.add_scalar(f"validation/{name}_{weights}", value, step)
            line = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            log.info("step %d  validation, %s weights: %s", step, weights, line)

    def picture(self, name: str, step: int, pixels: np.ndarray) -> None:
        """`pixels`: bytes [H, W, 3]."""
        self.board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is still buffered."""
        self.file.close()
        self.board.close()


@dataclasses.dataclass(frozen=True)
class Share:
    """What of every batch is this process's, and how it acts with the others.

    `place` puts a batch's arrays where the step wants them. `counted` tells for each pair that it
    reads whether it answers for it; None: for all.
    """

    place: Callable[[Any], Any] = lambda arrays: arrays
    together: Together = dataclasses.field(default_factory=Together)
    counted: Sequence[bool] | None = None


def run_steps(
    state: TrainState,
    step_function: StepFunction,
    frozen: Any,
    batches: Iterable[dict[str, Any]],
    journal: Quiet,
    health: Health,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
    share: Share = Share(),
) -> TrainState:
    """Trains on every batch and returns the last state, early once `stop()` is true.

    Several processes end behind the same step, the one after any of them was asked to. When a
    callback is called, `health` has judged every step before it.
    """
    step = int(state.step)
    alone = share.together.alone
    pending: tuple[Any, ...] | None = None
    stopped = False

    def settle() -> None:
        nonlocal pending, stopped
        if pending is None:
            return
        done, metrics, notes, pairs, waited, at, said = pending
        pending = None
        stopped, failed = said()
        journal.record(done, metrics | {"replaced": failed}, pairs, waited, at)
        finite = not float(metrics.get("skipped", 0.0))
        health.check(done, finite, pairs, notes["clip"], notes["replaced"], failed)

    health.watchdog.alive()
    for batch, waited in _timed(batches, stop if alone else lambda: False):
        notes, failed = _notes(batch, share.counted)
        arrays = share.place({name: array for name, array in batch.items() if name not in NOTES})
        state, metrics = step_function(state, frozen, arrays)
        at = time.monotonic()
        said = share.together.say(stop(), failed)
        settle()
        health.watchdog.alive()
        pending = (step, metrics, notes, arrays["position"].shape[0], waited, at, said)
        step += 1
        due = [callback for interval, callback in callbacks if interval and step % interval == 0]
        if due:
            settle()
        for callback in due:
            callback(state)
        if stopped or (alone and stop()):
            break
    settle()
    state = jax.block_until_ready(state)
    health.watchdog.stop()
    return state


def _notes(
    batch: dict[str, Any], counted: Sequence[bool] | None
) -> tuple[dict[str, list[str]], int]:
    """Clips and reasons of a batch, and how many reasons this process answers for."""
    replaced = batch.get("replaced") or []
    counted = [True] * len(replaced) if counted is None else counted
    failed = sum(len(reasons) for reasons, ours in zip(replaced, counted) if ours)
    reasons = [reason for pair in replaced for reason in pair]
    return {"clip": batch.get("clip") or [], "replaced": reasons}, failed


def _timed(
    batches: Iterable[dict[str, Any]], stop: Callable[[], bool]
) -> Iterator[tuple[dict[str, Any], float]]:
    """Batches, and the seconds each took to come; a signal may have ended the workers first."""
    iterator = iter(batches)
    while True:
        start = time.monotonic()
        try:
            batch = next(iterator, None)
        except Exception:
            if stop():
                return
            raise
        if batch is None:
            return
        yield batch, time.monotonic() - start


def memory() -> dict[str, float]:
    """GB: the process's peak on the host and, where the backend counts, the first device's."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"memory/host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    counted = jax.local_devices()[0].memory_stats() or {}
    for name, key in (("in_use", "bytes_in_use"), ("peak", "peak_bytes_in_use")):
        if key in counted:
            found[f"memory/device_{name}"] = counted[key] / 1e9
    return found


def _worth_saying(name: str, value: float) -> bool:
    return not name.endswith("_gradient") and (value != 0 or name not in ("skipped", "replaced"))
