"""The small VAE of the shipped weights, from scratch: 4× in space, 2× in time, 1.8 M parameters.

Command: python -m realisvsr_jax.train --config configs/tiny_vae.py --workdir runs/tiny_vae
    --export runs/tiny_vae_release
Data: `make tiny-data`. Cost: about 0.7 s a step on 2 cores.
"""

from typing import Any

import ml_collections

from configs import common
from realisvsr_jax import settings
from realisvsr_jax.vae.wan_vae import TINY_VAE


def get_config() -> Any:
    """Wan's VAE at 1/6 of its width, without its norm (see VAEConfig)."""
    config = common.get_config()
    config.task = "vae"
    config.steps = 1600
    config.parameters = (".*",)
    config.accumulate = 1
    config.vae = ml_collections.ConfigDict(settings.to_mapping(TINY_VAE))
    config.data.sources = ("data/tiny/clips",)
    config.data.buckets = ((1, 96, 96), (5, 64, 64), (9, 64, 64), (17, 48, 48))
    config.data.batch_size = 4
    config.precomputed = "data/tiny/pairs"
    config.log.update(print_every=20, save_every=100, preview_every=400)
    config.validation.update(every=400, sources=("data/tiny/validation",), bucket=(9, 128, 128))
    with config.optimizer.unlocked():
        config.optimizer.update(
            name="muon",
            learning_rate=1.2e-3,
            schedule="cosine",
            warmup_steps=100,
            ema_decay=0.995,
        )
    return config
