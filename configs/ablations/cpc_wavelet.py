"""Table 3, row 3: CPC and wavelet loss. Paper: SPMCS 27.24 dB."""

from typing import Any

from configs import wan13b


def get_config() -> Any:
    """Without the HOG term."""
    config = wan13b.get_config()
    config.loss.hog = 0.0
    return config
