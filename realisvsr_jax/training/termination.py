"""SIGTERM, as schedulers send it before they take a machine away: save, then exit."""

import signal

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command will go on


class Terminated(Exception):
    """The run was told to stop; what could be saved is saved."""


class Termination:
    """Notes a SIGTERM while `with` lasts: at once an exception, unless `patient`.

    Training is patient while it takes steps, which it can save between; only a second signal
    breaks one off. Handlers are Python's, so a compilation under way ends first.
    """

    def __init__(self) -> None:
        self.patient = False
        self.asked = False

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.asked

    def _note(self, *_: object) -> None:
        again, self.asked = self.asked, True
        if again or not self.patient:
            raise Terminated

    def __enter__(self) -> "Termination":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)
