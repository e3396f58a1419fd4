"""The two-order degradation: a plan (pure, serialisable), then its application."""

from realisvsr_jax.data.degradation.apply import MARGIN, apply_plan, degrade_clip, stages
from realisvsr_jax.data.degradation.plan import DegradationPlan, sample_plan
from realisvsr_jax.data.degradation.presets import PRESETS, preset_named

__all__ = [
    "MARGIN",
    "PRESETS",
    "DegradationPlan",
    "apply_plan",
    "degrade_clip",
    "preset_named",
    "sample_plan",
    "stages",
]
