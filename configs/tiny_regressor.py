"""What the shipped model is measured against: the same network, taught to answer at once.

Command: python -m realisvsr_jax.train --config configs/tiny_regressor.py
    --workdir runs/tiny_regressor --export runs/tiny_regressor_release
Same data, loss, steps and cost as configs/tiny.py, but no noise: from the low-quality latent alone
it gives the mean of what the clip may have been. Scores: docs/tiny.md.
"""

from typing import Any

from configs import tiny


def get_config() -> Any:
    """t is 1 and ε is 0 in training, and one Euler step from 0 restores."""
    config = tiny.get_config()
    config.flow.update(time="one", noise=0.0)
    config.sampler.update(steps=1, noise=0.0)
    return config
