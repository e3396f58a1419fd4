"""RealisVSR on Wan2.1 1.3B at the 480P scale: the paper's main model ("Ours-480P").

Paper: "Implementation Details", Tables 1–4. Command:
    python -m realisvsr_jax.train --config configs/wan13b.py --workdir runs/wan13b
Data: folders of 4K clips in data/realisvideo4k, captions in NAME.txt beside NAME.mp4.
Paper's cost: 12K iterations, batch 8, on 8 H20 of 96 GB. Expected there: SPMCS 27.36 dB.
Devices: an even number, two to a clip, as the paper has them (sequence parallel 2), at most 16;
`python -m realisvsr_jax.plan` and docs/scale.md say what they need. One: --config.mesh.seq=1.
Not run to the end here: no accelerator and no Wan weights were at hand.
"""

from typing import Any

from configs import common
from realisvsr_jax.data.buckets import buckets_480p


def get_config() -> Any:
    """49 frames, AdamW 1e-5, weight decay 1e-4, batch 8 by accumulation, HR loss (1, 2, 2, 2)."""
    config = common.get_config()
    config.init = "Wan-AI/Wan2.1-T2V-1.3B"
    config.data.sources = ("data/realisvideo4k",)
    config.data.buckets = buckets_480p(frames=49)
    config.data.workers = 8
    config.mesh.seq = 2
    config.accumulate = 0
    config.encode_frames = 4
    config.model.dit.dtype = "bfloat16"
    config.model.dit.attention = "auto"
    config.model.dit.remat = "attention"
    config.vae.precision = "high"
    config.release.tile = (49, 480, 832)
    config.release.overlap = (8, 64, 64)
    return config
