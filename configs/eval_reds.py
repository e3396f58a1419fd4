"""REDS30, 30 clips of 100 frames."""

from typing import Any

from configs import eval_set


def get_config() -> Any:
    """`eval_set` by that layout."""
    config = eval_set.get_config()
    config.layout = "reds"
    return config
