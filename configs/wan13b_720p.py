"""The same model on 720P crops: one pass for a 720P clip ("Ours-720P" of Table 4).

Command: python -m realisvsr_jax.train --config configs/wan13b_720p.py --workdir runs/wan13b_720p
Expected in the paper: 86 s for 49 frames of 720P, against 216 s from four 480P tiles.
Devices: a multiple of four, four to a clip, at most 32; fewer with --config.mesh.seq=1 or 2.
Not run to the end here (see wan13b.py).
"""

from typing import Any

from configs import wan13b
from realisvsr_jax.data.buckets import buckets_720p


def get_config() -> Any:
    """`wan13b` with 720P buckets and tiles."""
    config = wan13b.get_config()
    config.data.buckets = buckets_720p(frames=49)
    config.mesh.seq = 4
    config.release.tile = (49, 720, 1280)
    return config
