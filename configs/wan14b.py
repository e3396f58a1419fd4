"""RealisVSR on Wan2.1 14B, with five control blocks (r = 8). The paper has no such model.

Command: python -m realisvsr_jax.train --config configs/wan14b.py --workdir runs/wan14b
Settings are those of the 1.3B. Devices: a multiple of eight, eight to a clip, at most 64, which
share out parameters, moments and average. Not run to the end here (see wan13b.py).
"""

from typing import Any

from configs import wan13b


def get_config() -> Any:
    """`wan13b` with the 14B's width and depth."""
    config = wan13b.get_config()
    config.init = "Wan-AI/Wan2.1-T2V-14B"
    config.model.dit.update(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40)
    config.model.cpc.num_blocks = 5
    config.mesh.seq = 8
    return config
