"""Vid4, 4 clips of 34 to 49 frames: the paper's temporal profiles."""

from typing import Any

from configs import eval_set


def get_config() -> Any:
    """`eval_set` by that layout."""
    config = eval_set.get_config()
    config.layout = "vid4"
    return config
