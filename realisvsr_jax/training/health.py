"""When a run stops by itself: losses that are not finite, data that cannot be read."""

import logging
from collections.abc import Callable, Sequence

from realisvsr_jax import cluster
from realisvsr_jax.errors import InputError
from realisvsr_jax.training.settings import HealthConfig

log = logging.getLogger(__name__)

FEW_PAIRS = 100  # before so many were seen, a share of them says little


class Health:
    """Watches the steps of one start of a run; `check` raises InputError when it must stop."""

    def __init__(self, config: HealthConfig, newest_checkpoint: Callable[[], int | None]):
        """`newest_checkpoint` tells where the run would go on."""
        self.config = config
        self.newest_checkpoint = newest_checkpoint
        self.skipped: list[tuple[int, Sequence[str]]] = []  # step and clips, in a row
        self.pairs, self.replaced = 0, 0
        self.unreadable: set[str] = set()
        stalled = 0.0 if cluster.is_alone() else config.stalled_seconds
        self.watchdog = cluster.Watchdog(stalled, "a step")

    @property
    def sound(self) -> bool:
        """Whether the last step was finite: a state worth saving."""
        return not self.skipped

    def check(
        self,
        step: int,
        finite: bool,
        pairs: int,
        clips: Sequence[str],
        replaced: Sequence[str],
        failed: int | None = None,
    ) -> None:
        """Judges a step that is done.

        `clips` are those of its batch, `replaced` the reasons why some of its `pairs` were
        made from others. Both are this process's; `failed` is how many reasons all have,
        without it as many as `replaced`.
        """
        self._check_data(pairs, replaced, len(replaced) if failed is None else failed)
        if finite:
            self.skipped = []
            return
        self.skipped.append((step, clips))
        log.warning("step %d: loss or gradient is not finite, the update is skipped", step)
        if len(self.skipped) >= self.config.skipped_steps:
            raise InputError(self._not_finite())

    def _check_data(self, pairs: int, replaced: Sequence[str], failed: int) -> None:
        self.pairs += pairs
        self.replaced += failed
        for reason in replaced:
            if reason not in self.unreadable:
                self.unreadable.add(reason)
                log.warning("clip replaced by another: %s", reason)
        if self.replaced > self.config.unreadable * max(self.pairs, FEW_PAIRS):
            raise InputError(
                f"{self.replaced} of {self.pairs} pairs had to be replaced, more than "
                f"health.unreadable = {self.config.unreadable:g} allows; mend or remove "
                + "; ".join(sorted(self.unreadable)[:5])
                + ("; …" if len(self.unreadable) > 5 else "")
            )

    def _not_finite(self) -> str:
        steps = [step for step, _ in self.skipped]
        clips = list(dict.fromkeys(clip for _, names in self.skipped for clip in names))
        newest = self.newest_checkpoint()
        where = (
            "there is no checkpoint yet"
            if newest is None
            else (f"the newest checkpoint is step {newest}, from before")
        )
        return (
            f"steps {steps[0]} to {steps[-1]}: loss or gradient was not finite"
            + (f", with {', '.join(clips)}" if clips else "")
            + f"; {where}; lower optimizer.learning_rate in a new --workdir, or mend the clips"
        )
