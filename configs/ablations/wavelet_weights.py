"""Table 5: the wavelet loss with w_LH = w_HL = w_HH of 1, 1.5, 2 or 3, and no HOG term.

Command: python -m realisvsr_jax.train --config configs/ablations/wavelet_weights.py:1.5 …
Paper: SPMCS 26.08, 26.67, 27.24, 26.19 dB. A weight of 1 is the plain flow loss, twice.
"""

from typing import Any

from configs.ablations import cpc_wavelet


def get_config(high: str = "2.0") -> Any:
    """`high` stands behind the colon of the file's name."""
    config = cpc_wavelet.get_config()
    config.loss.wavelet_weights = (1.0, *(float(high),) * 3)
    return config
