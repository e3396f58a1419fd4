"""The rows of Table 3 at the smallest size that learns, from scratch: 0.4 M parameters.

Command: python -m benchmarks.losses --output out/losses, which trains all five with three seeds
and compares them. One alone: python -m realisvsr_jax.train --config configs/tiny_losses.py:cpc_hog
--workdir RUN. Needs the latents of `make tiny-latents`. Cost: some 3 minutes a run on 2 cores.
"""

from typing import Any

from configs import tiny

ROWS = ("baseline", "cpc", "cpc_wavelet", "cpc_hog", "cpc_wavelet_hog")


def get_config(row: str = "cpc_wavelet_hog") -> Any:
    """`row` stands behind the colon of the file's name."""
    if row not in ROWS:
        raise ValueError(f"unknown row {row!r}; known: {', '.join(ROWS)}")
    config = tiny.get_config()
    config.steps = 600
    config.model.dit.update(dim=64, ffn_dim=256, num_heads=2, num_layers=4)
    config.model.cpc.update(num_blocks=2, inject_noisy_latent=row == "baseline")
    config.loss.wavelet = float("wavelet" in row)
    config.loss.hog = float("hog" in row)
    config.data.batch_size = 4
    config.log.update(save_every=200, preview_every=0)
    config.validation.update(every=0, clips=12)
    return config
