"""VideoLQ, 50 real clips without a ground truth: --config.low_quality=DIR."""

from typing import Any

from configs import eval_set


def get_config() -> Any:
    """`eval_set` by that layout."""
    config = eval_set.get_config()
    config.layout = "videolq"
    return config
