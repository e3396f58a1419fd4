"""RealisVideo-720P, the same clips by area at 720P."""

from typing import Any

from configs import eval_set


def get_config() -> Any:
    """`eval_set` by that layout."""
    config = eval_set.get_config()
    config.layout = "realisvideo-720p"
    return config
