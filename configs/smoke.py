"""The whole of training at the smallest size, on the clips that the tests ship.

Command: python -m realisvsr_jax.train --config configs/smoke.py --workdir runs/smoke
Cost: 30 steps, under a minute on 2 cores after compilation. Teaches nothing.
"""

from pathlib import Path
from typing import Any

from configs import common

CLIPS = Path(__file__).parent.parent / "tests" / "footage"


def get_config() -> Any:
    """A frozen random VAE and DiT; CPC and γ learn from degraded real clips with captions."""
    config = common.get_config()
    config.steps = 30
    config.accumulate = 2
    config.prompt_cache = str(CLIPS / "prompts.safetensors")
    config.data.update(
        sources=(str(CLIPS),), buckets=((5, 96, 96), (1, 96, 128)), batch_size=2, workers=0
    )
    config.model.dit.update(
        dim=48, ffn_dim=96, num_heads=2, num_layers=3, in_channels=4, out_channels=4
    )
    config.model.dit.update(text_dim=16, text_length=8, freq_dim=32)
    config.model.cpc.num_blocks = 2
    config.vae.update(
        base_dim=4, multipliers=(1, 2, 2), z_dim=4, encoder_blocks=1, decoder_blocks=1,
        temporal_downsample=(False, True), norm="none", mean=(0.0,) * 4, std=(1.0,) * 4,
    )  # fmt: skip
    config.optimizer.update(learning_rate=1e-3, warmup_steps=5)
    config.log.update(save_every=3, preview_every=15, print_every=5)
    return config
