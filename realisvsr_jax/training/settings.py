"""Everything a training run can be told, as frozen dataclasses with the paper's values.

`configs/` holds small diffs over these defaults; a ConfigDict becomes a `TrainingConfig` at the
entry point and nowhere else.
"""

from dataclasses import dataclass, field
from typing import Any

from realisvsr_jax import settings
from realisvsr_jax.data.pipeline import DataConfig
from realisvsr_jax.errors import InputError
from realisvsr_jax.losses.hr import HRLossConfig
from realisvsr_jax.model.realisvsr import RealisVSRConfig
from realisvsr_jax.sampling.solvers import SamplerConfig
from realisvsr_jax.vae.wan_vae import VAEConfig


@dataclass(frozen=True)
class FlowConfig:
    """How t is drawn: 'uniform' or 'logit_normal', through `shift`."""

    shift: float = 5.0
    time: str = "uniform"


@dataclass(frozen=True)
class VAELossConfig:
    """Weights of the VAE's terms; `low_quality` is the share of clips that are degraded ones."""

    l1: float = 1.0
    lpips: float = 0.05
    kl: float = 1e-5
    low_quality: float = 0.3


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. `schedule` after the warm-up: 'constant', or 'cosine' down to zero."""

    learning_rate: float = 1e-5
    weight_decay: float = 1e-4
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    warmup_steps: int = 100
    schedule: str = "constant"
    clip_norm: float = 1.0
    ema_decay: float = 0.999


@dataclass(frozen=True)
class LogConfig:
    """Intervals in steps; 0 means never. `keep` is the number of checkpoints that stay."""

    metrics_every: int = 1
    print_every: int = 10
    save_every: int = 500
    preview_every: int = 500
    keep: int = 3


@dataclass(frozen=True)
class ReleaseConfig:
    """What an export writes beside the weights (see `ReleaseCard`)."""

    scale: int = 4
    tile: tuple[int, int, int] | None = None
    overlap: tuple[int, int, int] = (0, 0, 0)
    model_dtype: str = "bfloat16"


@dataclass(frozen=True)
class TrainingConfig:
    """One experiment.

    `task` is 'restoration' or 'vae'. `init` gives the initial weights: a release or RUN folder
    or a hub id; '' draws them at random. `init_vae` takes the VAE from another release ('tiny'
    is the one that ships). `parameters` are regular expressions over parameter paths: what
    matches is trained. The batch of `data.batch_size` is split into `accumulate` micro-batches.
    `precomputed` is a folder of pairs or latents made by `realisvsr_jax.data.precompute`.
    """

    task: str = "restoration"
    seed: int = 0
    steps: int = 12_000
    init: str = ""
    init_vae: str = ""
    parameters: tuple[str, ...] = ("cpc/.*", "gamma")
    accumulate: int = 8
    condition_scale: float = 1.0
    captions: bool = True
    prompt_cache: str = ""
    precomputed: str = ""
    model: RealisVSRConfig = field(default_factory=RealisVSRConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    data: DataConfig = field(default_factory=DataConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    loss: HRLossConfig = field(default_factory=HRLossConfig)
    vae_loss: VAELossConfig = field(default_factory=VAELossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    log: LogConfig = field(default_factory=LogConfig)


def from_flag(value: Any) -> TrainingConfig:
    """The experiment that a `--config` flag holds, a ConfigDict.

    Raises InputError for a file that could not be read and for a setting that is unknown.
    """
    try:
        mapping = value.to_dict()
    except OSError as error:
        # ml_collections keeps the reason until the first access, on several lines.
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"--config: {reason}") from error
    return settings.from_mapping(TrainingConfig, mapping)
