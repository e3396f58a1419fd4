"""The paper's settings; every other file here is a small diff over them.

Paper: "Implementation Details". All keys with their meaning: realisvsr_jax/training/settings.py.
"""

from typing import Any

import ml_collections

from realisvsr_jax import settings
from realisvsr_jax.training.settings import TrainingConfig


def get_config() -> Any:
    """All settings as a locked ConfigDict (typed Any: its attributes are dynamic)."""
    return ml_collections.ConfigDict(settings.to_mapping(TrainingConfig()))
