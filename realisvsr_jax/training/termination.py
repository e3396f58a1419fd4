"""SIGTERM, as schedulers send it before they take a machine away: save, then exit."""

import signal
import time

AT_ONCE = 2.0  # seconds within which signals count as one


class Terminated(Exception):
    """The run was told to stop; what could be saved is saved."""


class Termination:
    """Notes a SIGTERM while `with` lasts: at once an exception, unless `patient`.

    Training is patient while it takes steps, which it can save between; only a second signal
    breaks one off, of one process alone, and not at once: schedulers and a parent process may
    send the same one twice. Handlers are Python's, so a compilation under way ends first.
    """

    def __init__(self) -> None:
        self.patient = False
        self.shared = False  # with other processes, which would wait for this one
        self.asked = False
        self._since = 0.0

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.asked

    def _note(self, *_: object) -> None:
        now = time.monotonic()
        again = self.asked and now - self._since > AT_ONCE and not self.shared
        self._since = self._since if self.asked else now
        self.asked = True
        if again or not self.patient:
            raise Terminated

    def __enter__(self) -> "Termination":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        # JAX's own handler, where several processes run, is none of Python's.
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
