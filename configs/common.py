"""The paper's settings; every other file here is a small diff over them.

Paper: "Implementation Details". All keys with their meaning: realisvsr_jax/training/settings.py.
"""

import ml_collections

from realisvsr_jax import settings
from realisvsr_jax.training.settings import TrainingConfig


def get_config() -> ml_collections.ConfigDict:
    """All settings, unlocked for nothing: an unknown key is an error."""
    return ml_collections.ConfigDict(settings.to_mapping(TrainingConfig()))
