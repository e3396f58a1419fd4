"""Table 3, row 1: an ordinary ControlNet under plain rectified flow. Paper: SPMCS 26.54 dB."""

from typing import Any

from configs.ablations import cpc


def get_config() -> Any:
    """The condition branch sees the noisy latent too."""
    config = cpc.get_config()
    config.model.cpc.inject_noisy_latent = True
    return config
