"""The other side: diffusers in PyTorch, eager or compiled.

diffusers has no CPC: it is put together here from diffusers' blocks, as ours is from ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.cases import Case, inputs
from benchmarks.speed.worker import Run
from realisvsr_jax.files import replacing
from realisvsr_jax.model.realisvsr import RealisVSRConfig

Tensors = Mapping[str, torch.Tensor]


class Transformer(diffusers.WanTransformer3DModel):
    """diffusers' DiT; with a control branch, whose features join after the blocks, RealisVSR."""

    def __init__(self, config: RealisVSRConfig):
        dit = config.dit
        super().__init__(
            patch_size=dit.patch_size,
            num_attention_heads=dit.num_heads,
            attention_head_dim=dit.head_dim,
            in_channels=dit.in_channels,
            out_channels=dit.out_channels,
            text_dim=dit.text_dim,
            freq_dim=dit.freq_dim,
            ffn_dim=dit.ffn_dim,
            num_layers=dit.num_layers,
        )
        self.recomputed = dit.remat != "none"
        self.interval = 0
        if config.cpc is None:
            return
        self.interval = config.interval
        shape = (dit.dim, dit.ffn_dim, dit.num_heads, "rms_norm_across_heads", True, dit.eps)
        count = range(config.cpc.num_blocks)
        cpc: Any = torch.nn.Module()
        cpc.patch_embedding = torch.nn.Conv3d(
            dit.in_channels, dit.dim, dit.patch_size, dit.patch_size
        )
        cpc.blocks = torch.nn.ModuleList(WanTransformerBlock(*shape) for _ in count)
        cpc.out = torch.nn.ModuleList(torch.nn.Linear(dit.dim, dit.dim) for _ in count)
        self.cpc = cpc
        self.gamma = torch.nn.Parameter(torch.ones(dit.num_layers))

    def controlled(self, given: Tensors) -> torch.Tensor:
        """The velocity; the steps are those of diffusers' `forward`, with F added (Eq. 1)."""
        z = given["z_t"]
        turns = self.rope(z)
        time, modulation, text, _ = self.condition_embedder(given["timestep"], given["text"], None)
        context = (text, modulation.unflatten(1, (6, -1)), turns)
        x = self.cpc.patch_embedding(given["condition"]).flatten(2).transpose(1, 2).contiguous()
        features = []
        for block, out in zip(self.cpc.blocks, self.cpc.out):
            x = self.block(block, x, context)
            features.append(out(x))
        x = self.patch_embedding(z).flatten(2).transpose(1, 2).contiguous()
        for index, block in enumerate(self.blocks):
            x = self.block(block, x, context)
            x = x + self.gamma[index].to(x.dtype) * features[index // self.interval]
        shift, scale = (self.scale_shift_table + time.unsqueeze(1)).chunk(2, dim=1)
        x = self.proj_out((self.norm_out(x.float()) * (1 + scale) + shift).type_as(x))
        grid = [size // patch for size, patch in zip(z.shape[2:], self.config["patch_size"])]
        return rearrange(
            x,
            "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)",
            **dict(zip("thw", grid)),
            **dict(zip(("pt", "ph", "pw"), self.config["patch_size"])),
        )

    def block(self, block: Any, x: torch.Tensor, context: tuple) -> torch.Tensor:
        """One block, computed again in the backward pass where ours is."""
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(block, x, *context, use_reentrant=False)
        return block(x, *context)


def load(case: Case, weights: Path, threads: int, *, compiled: bool) -> tuple[Run, str]:
    """Ready to run; see `worker.Run`. Writes `weights`, drawn at random, where there are none."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as in our VAE
    device = torch.device("cuda" if case.device == "gpu" else "cpu")
    network = made(case, weights)
    network.requires_grad_(case.work == "backward")
    if case.work == "step":
        network.cpc.requires_grad_(True)
        network.gamma.requires_grad_(True)
    dtype = torch.float32
    if not case.is_vae and case.model.dit.dtype == "bfloat16":
        dtype = torch.bfloat16
        to_bfloat16(network)
    network.to(device).eval()
    given = {
        name: torch_array(value).to(device, torch.float32 if name == "timestep" else dtype)
        for name, value in inputs(case).items()
    }
    if compiled:
        compile_in_place(network, case)

    def run() -> Mapping[str, Any]:
        results = WORK[case.work](network, given)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return results

    return run, torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


def made(case: Case, weights: Path) -> Any:
    """The network with the weights of the file, which is written first if it is not there."""
    network: Any = (
        diffusers.AutoencoderKLWan(base_dim=case.vae.base_dim, z_dim=case.vae.z_dim)
        if case.is_vae
        else Transformer(case.model)
    )
    if weights.exists():
        network.load_state_dict(load_file(weights), assign=True)
        return network
    draw(network)
    with replacing(weights) as partial:
        save_file(network.state_dict(), partial)
    return network


def draw(network: torch.nn.Module) -> None:
    """No parameter at its initial 0 or 1; products keep the variance of what they multiply."""
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        kind = name.split(".")[-1]
        if kind == "gamma" or ("norm" in name and kind == "weight"):
            parameter.data.uniform_(0.6, 1.6)
        elif kind in ("bias", "scale_shift_table"):
            parameter.data.normal_(0.0, 0.2)
        else:
            inputs_of_one = parameter[0].numel()
            parameter.data.normal_(0.0, inputs_of_one**-0.5)


def to_bfloat16(network: Any) -> None:
    """As `from_pretrained(torch_dtype=torch.bfloat16)` would load it; what is trained stays."""
    kept = set(network._keep_in_fp32_modules) | {"gamma"}
    for name, parameter in network.named_parameters():
        if not set(name.split(".")) & kept:
            parameter.data = parameter.data.bfloat16()


def compile_in_place(network: Any, case: Case) -> None:
    """The DiT block by block, which diffusers recommends; of the VAE the half that runs."""
    if case.is_vae:
        (network.encoder if case.work == "encode" else network.decoder).compile()
        return
    for module in network.modules():
        if isinstance(module, WanTransformerBlock):
            module.compile()


@torch.no_grad()
def _encode(vae: Any, given: Tensors) -> Mapping[str, Any]:
    mean, deviation = _statistics(vae, given["video"])
    return {"out": _last((vae.encode(given["video"]).latent_dist.mean - mean) / deviation)}


@torch.no_grad()
def _decode(vae: Any, given: Tensors) -> Mapping[str, Any]:
    mean, deviation = _statistics(vae, given["latent"])
    return {"out": _last(vae.decode(given["latent"] * deviation + mean, return_dict=False)[0])}


@torch.no_grad()
def _forward(network: Any, given: Tensors) -> Mapping[str, Any]:
    return {"out": _last(_velocity(network, given))}


def _backward(network: Any, given: Tensors) -> Mapping[str, Any]:
    return _gradient(network, network, _velocity(network, given), given)


def _step(network: Any, given: Tensors) -> Mapping[str, Any]:
    return _gradient(network, network.cpc, network.controlled(given), given)


WORK = {
    "forward": _forward,
    "backward": _backward,
    "step": _step,
    "encode": _encode,
    "decode": _decode,
}


def _velocity(network: Any, given: Tensors) -> torch.Tensor:
    return network(given["z_t"], given["timestep"], given["text"], return_dict=False)[0]


def _gradient(
    network: Any, first: Any, velocity: torch.Tensor, given: Tensors
) -> Mapping[str, Any]:
    """The loss and the gradient of the first layer, through which all others go."""
    network.zero_grad(set_to_none=True)
    loss = torch.mean(torch.square(velocity.float() - given["target"].float()))
    loss.backward()
    gradient = first.patch_embedding.weight.grad
    return {"loss": loss, "gradient": gradient.permute(2, 3, 4, 1, 0)}


def _statistics(vae: Any, like: torch.Tensor) -> list[torch.Tensor]:
    pair = (vae.config.latents_mean, vae.config.latents_std)
    return [torch.tensor(values).to(like).view(1, -1, 1, 1, 1) for values in pair]


def torch_array(x: np.ndarray) -> torch.Tensor:
    """Channels first where it is a latent or a video."""
    return torch.from_numpy(rearrange(x, "b t h w c -> b c t h w").copy() if x.ndim == 5 else x)


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 4, 1)
