"""The model that ships: DiT and CPC of 2.5 M parameters, from scratch, on the tiny VAE.

Command: python -m realisvsr_jax.train --config configs/tiny.py --workdir runs/tiny
    --export runs/tiny_release
Needs the latents of `make tiny-data tiny-vae tiny-latents`. Cost and scores: docs/tiny.md.
"""

from typing import Any

from configs import tiny_vae


def get_config() -> Any:
    """Everything is trained: there is no prior to keep."""
    config = tiny_vae.get_config()
    config.task = "restoration"
    config.steps = 2400
    config.init_vae = "runs/tiny_vae_release"
    config.precomputed = "data/tiny/latents"
    config.parameters = (".*",)
    config.captions = False
    config.model.dit.update(
        dim=128, ffn_dim=512, num_heads=4, num_layers=6, in_channels=8, out_channels=8
    )
    config.model.dit.update(text_dim=32, text_length=4, freq_dim=64)
    config.model.cpc.num_blocks = 3
    config.data.buckets = ((5, 96, 96),)
    config.data.batch_size = 8
    config.optimizer.update(learning_rate=1.5e-3, muon_rms=1.0, warmup_steps=100, ema_decay=0.998)
    config.log.update(save_every=100, preview_every=500)
    config.validation.update(every=500, clips=6)
    config.sampler.update(solver="euler", steps=3)
    config.release.update(tile=(5, 96, 96), overlap=(2, 32, 32))
    return config
