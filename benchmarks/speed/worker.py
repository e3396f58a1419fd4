"""A side of a comparison in a process of its own, and the handle that tells it what to do.

Each line in is a command, each line out its answer in JSON: `load` makes the network ready and
runs it once, `run` runs it and says how long it took, `save PATH` runs it and writes its results.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import counters
from benchmarks.speed.cases import Case, named
from realisvsr_jax.errors import InputError

SIDES = ("ours", "eager", "compiled")
Run = Callable[[], Mapping[str, Any]]
"""Runs the network once, to the end; the results are still the framework's own arrays."""


class SideFailed(InputError):
    """A side stopped, or did not answer in time; the message is the reason, in one line."""


class Side:
    """The parent's handle of one process; a context manager that ends it."""

    def __init__(self, side: str, case: Case, weights: Path, threads: int):
        self.side = side
        self.log = weights.parent / f"{case.name}-{side}.log"
        command = [sys.executable, "-m", "benchmarks.speed.worker", side, case.name]
        command += ["--weights", str(weights), "--threads", str(threads)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, command: str, timeout: float | None = None) -> dict[str, Any]:
        """Sends `command`; its answer. Raises SideFailed where there is none in `timeout` s."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(command.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(self._reason()) from None
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            raise SideFailed(f"not ready within {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise SideFailed(self._reason())
        return json.loads(line)

    def _reason(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else f"ended with status {self.process.wait()}"


def main() -> None:
    """The process itself: serves commands until its input ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("case")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    flags = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    case = named(flags.case)
    limit_threads(case, flags.threads)
    run: Run | None = None
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        if command == "load":
            run, device = loaded(flags.side, case, flags.weights, flags.threads)
            answer: dict[str, Any] = {"device": device}
            reset_peak()
            run()
        else:
            assert run is not None
            before, began = time.process_time(), time.perf_counter()
            results = run()
            answer = {
                "seconds": time.perf_counter() - began,
                "cpu_seconds": time.process_time() - before,
            }
            if command == "save":
                arrays = {name: as_numpy(value) for name, value in results.items()}
                np.savez(path, allow_pickle=False, **arrays)
        answer["peak"] = peak(case, flags.side)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def limit_threads(case: Case, threads: int) -> None:
    """Before any framework starts: JAX takes one thread for each processor that it may use."""
    if case.device == "gpu":
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # all sides share the card
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def loaded(side: str, case: Case, weights: Path, threads: int) -> tuple[Run, str]:
    """The network, ready to run, and the name of the device."""
    if side == "ours":
        from benchmarks.speed import ours

        return ours.load(case, weights)
    from benchmarks.speed import theirs

    return theirs.load(case, weights, threads, compiled=side == "compiled")


def reset_peak() -> None:
    """Linux: from now on VmHWM is the peak since here, weights included, not that of loading."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak(case: Case, side: str) -> int:
    """Bytes: on a CPU the peak of the process (VmHWM), on a GPU what the framework took there."""
    if case.device == "cpu":
        return counters.memory("VmHWM")
    if side == "ours":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    import torch

    return torch.cuda.max_memory_allocated()


def as_numpy(value: Any) -> np.ndarray:
    """Of either framework, float32."""
    if hasattr(value, "detach"):
        value = value.detach().float().cpu().numpy()
    return np.asarray(value, np.float32)


if __name__ == "__main__":
    main()
