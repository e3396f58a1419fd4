"""A parent for each process of several, which can say why its child was ended. Knows no JAX.

Where a process of a run is gone, JAX aborts the others from a thread of its own, with a stack
trace for a message. The parent makes one line of it, and a status that schedulers restart.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command will go on
# What says that a process is one of several, where JAX can find the others.
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")


def is_announced(environment: Mapping[str, str]) -> bool:
    """Whether the variables say that this process is one of several that JAX can find."""
    if any(environment.get(name, "1") not in ("", "1") for name in _TASKS):
        return True
    if any("," in environment.get(name, "") for name in _HOSTS):
        return True
    if "MEGASCALE_COORDINATOR_ADDRESS" in environment or "JAX_COORDINATOR_ADDRESS" in environment:
        return True
    return "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment


_MARK = "REALISVSR_SUPERVISED"  # in the environment of a child: its parent's number
_MET = "REALISVSR_MET"  # in it too: the file descriptor to say so through
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def not_all_came(coordinator: str | None, timeout: int) -> str:
    """What to say, and to do, where processes did not find each other within `timeout` seconds."""
    where = f"at {coordinator}" if coordinator else "that the environment announces"
    return (
        f"error: the processes of this run {where} did not all come within {timeout} s: start "
        "every one of them, with the same --coordinator and --num_processes; "
        "--initialization_timeout SECONDS waits longer"
    )


def met() -> None:
    """Of a child: tells its parent that all processes of the run have found each other."""
    if descriptor := os.environ.pop(_MET, ""):
        with os.fdopen(int(descriptor), "wb") as parent:
            parent.write(b"1")


def supervised(main: Callable[[], int], apart: str) -> int:
    """The status of this very command, run by a child; EXIT_STATUS where its peers were gone.

    In the child, that of `main()`. Signals reach the child, and it ends with its parent, even by
    SIGKILL. `apart` is what is said where the others never came. Elsewhere than on Linux, `main()`
    runs here.
    """
    if sys.platform != "linux":
        return main()
    if os.environ.get(_MARK) == str(os.getppid()):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return main()
    command = [sys.executable, *sys.orig_argv[1:]]
    ours, theirs = os.pipe()
    marks = {_MARK: str(os.getpid()), _MET: str(theirs)}
    child = subprocess.Popen(command, env=os.environ | marks, pass_fds=(theirs,))
    os.close(theirs)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    status = child.wait()
    if status == -signal.SIGABRT:
        lost = (
            "another process of this run has ended, so this one was ended too; the same commands, "
            "all of them, go on from the newest checkpoint"
        )
        sys.stderr.write(f"{lost if os.read(ours, 1) else apart}\n")
        return EXIT_STATUS
    return status if status >= 0 else 128 - status
