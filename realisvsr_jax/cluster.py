"""Several processes as one run: how they find each other, wait for each other, and end together.

JAX finds Slurm, Open MPI, Kubernetes and TPU slices by itself; elsewhere a process is told who
it is. Nothing waits without a limit: a process whose peers are gone ends with one line.
"""

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from realisvsr_jax.errors import InputError
from realisvsr_jax.supervisor import EXIT_STATUS, is_announced, met, not_all_came

HEARTBEAT = 30  # seconds without a sign of life until a process counts as dead
FAILED = 78  # EX_CONFIG: above EXIT_STATUS, since a task's highest status is Slurm's for all
PATIENCE = 1800.0  # seconds that processes wait for each other at most


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes of this run, if there are any; before JAX looks for devices.

    `coordinator` is HOST:PORT of process 0; without it, JAX finds the others where the
    environment announces them. Raises InputError for a description that is incomplete; ends the
    process with one line where another has not come within `timeout` seconds.
    """
    given = {"--num_processes": num_processes, "--process_id": process_id}
    if coordinator is None:
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} needs --coordinator HOST:PORT, where process 0 runs")
        if not is_announced(environment):
            return
    else:
        _check(coordinator, num_processes, process_id)
        if process_id:
            _reach(coordinator, timeout)
    # Before JAX's own limit, at which it aborts with a stack trace.
    late = threading.Timer(timeout, _leave, (not_all_came(coordinator, timeout), EXIT_STATUS))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=timeout + HEARTBEAT,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=2 * HEARTBEAT,
        )
    except ValueError as error:
        raise InputError(
            "there should be other processes, but JAX cannot find them: give every process "
            f"--coordinator HOST:PORT --num_processes N --process_id I ({error})"
        ) from error
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        _leave(f"{not_all_came(coordinator, timeout)} ({reason})", EXIT_STATUS)
    finally:
        late.cancel()
    met()
    if not is_first():
        logging.getLogger("realisvsr_jax").setLevel(logging.WARNING)


def _check(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    if not coordinator.rpartition(":")[0] or not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator is {coordinator!r}; give HOST:PORT, as 10.0.0.1:8476")
    if num_processes is None or process_id is None:
        raise InputError("--coordinator needs --num_processes N and --process_id 0 … N − 1")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id is {process_id}; of {num_processes} processes they go from 0 to "
            f"{num_processes - 1}"
        )


def _reach(coordinator: str, timeout: int) -> None:
    """Returns when something listens there; ends the process after `timeout` seconds.

    JAX would wait as long, and then abort with a stack trace.
    """
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + timeout
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                return
        except OSError as error:
            if time.monotonic() > until:
                _leave(f"{not_all_came(coordinator, timeout)} ({error})", EXIT_STATUS)
            time.sleep(0.2)


def check_joined() -> None:
    """Raises InputError for a process that has peers, as on a TPU slice, and has not joined them.

    It would train for itself and write what they write.
    """
    if not is_alone() and not jax.distributed.is_initialized():
        raise InputError(
            f"this is one of {jax.process_count()} processes of a slice; give each of them "
            "--coordinator HOST:PORT --num_processes N --process_id I (docs/clusters.md)"
        )


def keep_programs(folder: Path) -> None:
    """Compiled programs stay in `folder`, so that a restart need not compile them again.

    Where JAX_COMPILATION_CACHE_DIR is set, that one holds; on a CPU none without it, since
    another machine of the same run may lack an instruction.
    """
    if jax.default_backend() != "cpu" and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))


def is_first() -> bool:
    """Whether this process writes what a run writes once."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether there is no other process."""
    return jax.process_count() == 1


def wait_for_all(what: str, seconds: float = PATIENCE) -> None:
    """Returns when every process is here; ends this one after `seconds`."""
    if not is_alone():
        with limited(seconds, what):
            multihost_utils.sync_global_devices(what)


def whole(array: Any) -> np.ndarray:
    """All of an array on the host, whoever holds its parts: every process has to call this."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


class Watchdog:
    """Ends the process with one line if `alive` is not called for `seconds`; 0 never does."""

    def __init__(self, seconds: float, what: str):
        self.seconds, self.what = seconds, what
        self._timer: threading.Timer | None = None

    def alive(self) -> None:
        """Starts the time anew."""
        self.stop()
        if self.seconds:
            self._timer = threading.Timer(self.seconds, self._bite)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """Lets the process live."""
        if self._timer is not None:
            self._timer.cancel()

    def _bite(self) -> None:
        end(f"{self.what} took more than {self.seconds:g} s")


@contextlib.contextmanager
def limited(seconds: float, what: str) -> Iterator[None]:
    """Ends the process where the block takes more than `seconds`."""
    watchdog = Watchdog(seconds, what)
    watchdog.alive()
    try:
        yield
    finally:
        watchdog.stop()


def end(reason: str, status: int = EXIT_STATUS) -> NoReturn:
    """Leaves at once, with one line, without waiting for processes that may be gone."""
    _leave(f"process {_index()}: {reason}; the same commands go on where they were", status)


def _leave(line: str, status: int) -> NoReturn:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    os._exit(status)


def _index() -> int:
    # Where the others never came, asking JAX for the index would wait for them.
    return jax.process_index() if jax.distributed.is_initialized() else 0


def guarded(main: Callable[[], int]) -> int:
    """`main()`; where other processes take part, its failure ends this one without them.

    A process that fails would else wait for the others at its end, and they for it.
    """
    try:
        return main()
    except InputError as error:
        if jax.distributed.is_initialized():
            _leave(f"error: {error}", FAILED)
        raise
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        lost = isinstance(error, jax.errors.JaxRuntimeError) and _is_about_peers(str(error))
        if lost:
            reason = " ".join(str(error).split())[:200]
            end(f"another process of this run has ended, so this one ends too ({reason})")
        logging.getLogger(__name__).exception("process %d failed", jax.process_index())
        os._exit(FAILED)


def _is_about_peers(message: str) -> bool:
    signs = ("Gloo", "onnection", "UNAVAILABLE", "DEADLINE_EXCEEDED", "NCCL", "peer", "heartbeat")
    return any(sign in message for sign in signs)
