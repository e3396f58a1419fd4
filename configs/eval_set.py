r"""What every benchmark has in common: the paper's degradation at ×4, us and bicubic.

    python -m realisvsr_jax.evaluate --config configs/eval_reds.py --config.truth=REDS \
        --output out/reds --config.upscale="('--checkpoint=runs/wan13b',)"

All keys with their meaning: realisvsr_jax/evals/benchmark.py.
"""

from typing import Any

import ml_collections

from realisvsr_jax import settings
from realisvsr_jax.evals.benchmark import BenchmarkConfig


def get_config() -> Any:
    """All settings as a locked ConfigDict (typed Any: its attributes are dynamic)."""
    return ml_collections.ConfigDict(settings.to_mapping(BenchmarkConfig()))
