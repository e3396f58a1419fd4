"""YouHQ40, 40 clips of some 32 frames of 1080p."""

from typing import Any

from configs import eval_set


def get_config() -> Any:
    """`eval_set` by that layout."""
    config = eval_set.get_config()
    config.layout = "youhq40"
    return config
