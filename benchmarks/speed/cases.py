"""What is measured: networks, sizes, targets, and the floating-point operations of each."""

import dataclasses
import math
from typing import Literal

import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.planning import arithmetic
from realisvsr_jax.planning.topologies import CHIPS
from realisvsr_jax.vae.wan_vae import WAN_VAE, VAEConfig

Size = tuple[int, int, int]
Work = Literal["forward", "backward", "step", "encode", "decode"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One row. `size` is (t, h, w) of the latent, for the VAE (T, H, W) of the video.

    `work`: the DiT's forward pass; that and the backward pass to all its parameters; the same of
    DiT and CPC with the DiT frozen, as in training; or the VAE's encoder or decoder. Targets:
    `ratio` of our time to diffusers' eager time, `compiled_ratio` to its compiled time, `seconds`,
    `peak` bytes of our process, `mfu`.
    """

    name: str
    work: Work
    size: Size
    device: Literal["cpu", "gpu"] = "cpu"
    model: RealisVSRConfig = RealisVSRConfig()  # noqa: RUF009
    vae: VAEConfig = WAN_VAE
    ratio: float | None = None
    compiled_ratio: float | None = None
    seconds: float | None = None
    peak: float | None = None
    mfu: float | None = None

    @property
    def is_vae(self) -> bool:
        """Else it is of the DiT."""
        return self.work in ("encode", "decode")

    @property
    def latent(self) -> Size:
        """(t, h, w) of the latent."""
        return self.vae.latent_size(self.size) if self.is_vae else self.size

    @property
    def tokens(self) -> int:
        """Of the DiT; of the VAE the tokens that a DiT would see of the clip."""
        return math.prod(self.latent) // math.prod(self.model.dit.patch_size)


def inputs(case: Case) -> dict[str, np.ndarray]:
    """Random, channels last: the video; or z_t, time, text, and what else the work takes."""
    rng = np.random.default_rng(0)
    if case.work == "encode":
        return {"video": rng.uniform(-1, 1, (1, *case.size, 3)).astype(np.float32)}
    dit = case.model.dit
    latent = (1, *case.latent, case.vae.z_dim if case.is_vae else dit.in_channels)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    if case.work == "decode":
        return {"latent": normal(*latent)}
    found = {
        "z_t": normal(*latent),
        "timestep": np.array([371.0], np.float32),
        "text": normal(1, dit.text_length, dit.text_dim),
    }
    if case.work != "forward":
        found["target"] = normal(*latent)
    if case.work == "step":
        found["condition"] = normal(*latent)
    return found


_CPU = DiTConfig(num_layers=4)
_GPU = DiTConfig(dtype="bfloat16", attention="cudnn")
_CONTROL = CPCConfig(num_blocks=1)
_CPU_VAE = (9, 96, 160)
_FASTER = 0.83  # 1.2 times as fast

CASES = (
    Case("dit-1170", "forward", (3, 30, 52), model=RealisVSRConfig(_CPU, None), ratio=0.95),
    Case(
        "dit-4680",
        "forward",
        (3, 60, 104),
        model=RealisVSRConfig(_CPU, None),
        ratio=0.92,
        peak=2.5 * 2**30,
    ),
    Case(
        "dit-backward-1170", "backward", (3, 30, 52), model=RealisVSRConfig(_CPU, None), ratio=0.94
    ),
    Case("cpc-step-1170", "step", (3, 30, 52), model=RealisVSRConfig(_CPU, _CONTROL)),
    Case("vae-encode", "encode", _CPU_VAE),
    Case("vae-decode", "decode", _CPU_VAE),
    Case(
        "gpu-dit-480p81",
        "forward",
        (21, 60, 104),
        "gpu",
        model=RealisVSRConfig(_GPU, None),
        seconds=0.5,
        compiled_ratio=_FASTER,
    ),
    Case(
        "gpu-cpc-step-20280",
        "step",
        (13, 60, 104),
        "gpu",
        model=RealisVSRConfig(dataclasses.replace(_GPU, remat="dots")),
        mfu=0.45,
        compiled_ratio=_FASTER,
    ),
    Case("gpu-vae-encode", "encode", (17, 480, 832), "gpu"),
    Case("gpu-vae-decode", "decode", (17, 480, 832), "gpu"),
)


def named(name: str) -> Case:
    """Raises InputError, with the known names, where there is no such case."""
    for case in CASES:
        if case.name == name:
            return case
    raise InputError(f"no case {name!r}; known: {', '.join(case.name for case in CASES)}")


def flops(case: Case) -> float:
    """Floating-point operations of the products of one run; what is computed twice counts once."""
    if case.work == "encode":
        return arithmetic.encode(case.vae, case.size)
    if case.work == "decode":
        return arithmetic.decode(case.vae, case.latent)
    if case.work == "step":
        parts = arithmetic.training(case.model, 1, case.size)
        return parts["dit"] + parts["cpc"]
    forward = arithmetic.forward(case.model, case.size)["dit"]
    return 3 * forward if case.work == "backward" else forward


def peak_flops(device: str) -> float | None:
    """Of an accelerator, FLOP/s in bfloat16, by the name that its driver gives; else None."""
    for name, chip in CHIPS.items():
        if chip.platform != "cpu" and name in device.lower():
            return chip.flops
    return None
