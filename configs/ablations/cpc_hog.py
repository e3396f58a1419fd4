"""Table 3, row 4: CPC and HOG loss. Paper: SPMCS 27.33 dB."""

from typing import Any

from configs import wan13b


def get_config() -> Any:
    """Without the wavelet term."""
    config = wan13b.get_config()
    config.loss.wavelet = 0.0
    return config
