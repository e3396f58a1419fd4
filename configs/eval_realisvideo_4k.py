"""RealisVideo-4K, the paper's 140 test clips; `--upscale_bicubic` scores what cannot reach 4K."""

from typing import Any

from configs import eval_set


def get_config() -> Any:
    """`eval_set` by that layout."""
    config = eval_set.get_config()
    config.layout = "realisvideo-4k"
    return config
