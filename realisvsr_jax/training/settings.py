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
from realisvsr_jax.mesh import MeshConfig
from realisvsr_jax.model.realisvsr import RealisVSRConfig
from realisvsr_jax.sampling.solvers import SamplerConfig
from realisvsr_jax.vae.wan_vae import VAEConfig


@dataclass(frozen=True)
class FlowConfig:
    """How t is drawn: 'uniform' or 'logit_normal', through `shift`, or 'one'.

    `noise` scales ε; with 0 and t = 1 the network learns x0 from the condition alone.
    """

    shift: float = 5.0
    time: str = "uniform"
    noise: float = 1.0


@dataclass(frozen=True)
class VAELossConfig:
    """Weights of the VAE's terms; `low_quality` is the share of clips that are degraded ones."""

    l1: float = 1.0
    lpips: float = 0.05
    kl: float = 1e-5
    low_quality: float = 0.3


@dataclass(frozen=True)
class OptimizerConfig:
    """`name`: 'adamw', or 'muon', which orthogonalises the updates of kernels; AdamW has the rest.

    `muon_rms`: root mean square of a kernel's update, in learning rates; AdamW's is 0.2 to 0.4.
    `schedule` after the warm-up: 'constant', or 'cosine' down to zero.
    """

    name: str = "adamw"
    muon_rms: float = 0.2
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
    """Intervals in steps; 0 means never.

    Checkpoints that stay: the last `keep`, those at a multiple of `keep_every`, and the best by
    validation.
    """

    metrics_every: int = 1
    print_every: int = 10
    save_every: int = 500
    preview_every: int = 500
    keep: int = 3
    keep_every: int = 0


@dataclass(frozen=True)
class ValidationConfig:
    """Every `every` steps (0: never) on the same `clips` pairs, for raw and averaged weights.

    Pairs of size `bucket` (T, H, W) are made from `sources`, clips that are not trained on, as
    training's are. The checkpoint whose averaged weights have the best `metric` ('lpips' or
    'psnr') is kept.
    """

    every: int = 0
    sources: tuple[str, ...] = ()
    clips: int = 6
    bucket: tuple[int, int, int] = (9, 128, 128)
    seed: int = 0
    metric: str = "lpips"


@dataclass(frozen=True)
class HealthConfig:
    """When a run stops by itself.

    `skipped_steps`: after so many steps in a row whose loss or gradient was not finite.
    `unreadable`: when more than this share of the pairs had to be replaced. `stalled_seconds`:
    when, of several processes, one has waited so long for a step, compilations included; 0: never.
    """

    skipped_steps: int = 3
    unreadable: float = 0.05
    stalled_seconds: float = 3600.0


@dataclass(frozen=True)
class ReleaseConfig:
    """What an export writes beside the weights (see `ReleaseCard`).

    `checkpoint`: 'last', or 'best' by validation.
    """

    scale: int = 4
    tile: tuple[int, int, int] | None = None
    overlap: tuple[int, int, int] = (0, 0, 0)
    model_dtype: str = "bfloat16"
    checkpoint: str = "last"


@dataclass(frozen=True)
class TrainingConfig:
    """One experiment.

    `task` is 'restoration' or 'vae'. `init` gives the initial weights: a release folder, a
    PyTorch checkpoint or a hub id; '' draws them at random. `init_vae` takes the VAE from
    another ('tiny' is the release that ships). `parameters` are regular expressions over
    parameter paths: what matches is trained. The batch of `data.batch_size` is split into
    `accumulate` micro-batches; 0 takes as many as leave each device one clip at a time. `mesh`
    shares the work out among devices and may change between two starts of a run.
    `encode_frames`: frames that the VAE encodes at once, after a clip's first; 0 for all, which
    large clips have no memory for.
    `precomputed` is a folder of pairs or latents made by `realisvsr_jax.precompute`.
    `caption_dropout` is the share of clips that are shown the empty prompt instead of their
    caption, without which guidance means nothing.
    """

    task: str = "restoration"
    seed: int = 0
    steps: int = 12_000
    init: str = ""
    init_vae: str = ""
    parameters: tuple[str, ...] = ("cpc/.*", "gamma")
    accumulate: int = 8
    encode_frames: int = 0
    condition_scale: float = 1.0
    captions: bool = True
    caption_dropout: float = 0.1
    prompt_cache: str = ""
    precomputed: str = ""
    model: RealisVSRConfig = field(default_factory=RealisVSRConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    data: DataConfig = field(default_factory=DataConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    loss: HRLossConfig = field(default_factory=HRLossConfig)
    vae_loss: VAELossConfig = field(default_factory=VAELossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    log: LogConfig = field(default_factory=LogConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    health: HealthConfig = field(default_factory=HealthConfig)


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
    return settings.from_config(TrainingConfig, mapping, "training")
