"""A bar on stderr for work on many clips, and what is said when the user stops it."""

import contextlib
from collections.abc import Callable, Iterator

from realisvsr_jax.errors import Stopped


@contextlib.contextmanager
def over_clips(
    total: int | None = None, kept: str = "what is done is kept"
) -> Iterator[Callable[[int, int], object]]:
    """Gives a function of clips done and clips in all; messages stand on lines of their own.

    Raises Stopped, which says what is `kept`, where the user stops the block.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    with tqdm(total=total, unit=" clips", disable=None) as bar, logging_redirect_tqdm():

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            yield progress
        except KeyboardInterrupt as stop:
            raise Stopped(f"stopped; {kept}, the same command goes on") from stop
