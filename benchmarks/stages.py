"""Where the time of a restoration goes, stage by stage, in whole jobs of `upscale`.

    python -m benchmarks.stages --output out/stages                          # the shipped weights
    python -m benchmarks.stages --config wan13b_720p --size 49x720x1280      # random weights

Each job restores a clip of one scene from one file to another. The first compiles (with
JAX_COMPILATION_CACHE_DIR, what JAX has not kept there); the figures are medians of those after it.
A device program is waited for where it is called, which jobs do anyway; beside them, in threads,
pass decoding and encoding of the video. Leaves stages.json.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.seams import textures
from realisvsr_jax import settings
from realisvsr_jax.evals import pages
from realisvsr_jax.files import replacing
from realisvsr_jax.jobs.released import Released
from realisvsr_jax.jobs.single import Request, restore_file
from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.sampling import restore
from realisvsr_jax.sampling.options import Options
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.training import networks
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.vae.wan_vae import WanVAE
from realisvsr_jax.weights.release import Release, ReleaseCard

PROGRAMS = ("encode", "sample", "decode")
Row = dict[str, float]


def main() -> None:
    """Reads the command line, restores, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/stages"), help="folder to fill")
    parser.add_argument("--config", default="", help="of configs/, with random weights")
    parser.add_argument("--size", default="17x128x128", help="T×H×W of the result")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=3, help="measured, after the first")
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    restorer = Timed(
        random_release(flags.config) if flags.config else restore._read(restore.find())
    )
    frames, height, width = map(int, flags.size.split("x"))
    clip = flags.output / "clip.mp4"
    make_clip(clip, frames, height // restorer.card.scale, width // restorer.card.scale)
    weights = InMemory(restorer, Options(scale=restorer.card.scale, steps=flags.steps))
    rows = [job(clip, flags.output / "restored.mp4", restorer, weights)]
    rows += [job(clip, flags.output / "restored.mp4", restorer, weights) for _ in range(flags.jobs)]
    steps = flags.steps or restorer.card.sampler.steps
    found = {
        "config": flags.config or "shipped",
        "size": flags.size,
        "tile": restorer.card.tile,
        "steps": steps,
        "device": jax.devices()[0].device_kind,
        "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0),
        "first": rows[0],
        "jobs": rows[1:],
    }
    with replacing(flags.output / "stages.json") as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n")
    print(page(found))


def page(found: dict[str, Any]) -> str:
    """The table and what is derived from it."""
    median = {
        name: float(np.median([row[name] for row in found["jobs"]])) for name in found["first"]
    }
    lines = [
        [name, f"{value:.2f} s", f"{value / median['job']:.0%}"] for name, value in median.items()
    ]
    device = sum(median[name] for name in PROGRAMS)
    text = pages.table(("stage", "median", "of the job"), lines)
    text += f"\n{found['config']}, {found['size']}, {found['steps']} steps, {found['device']}"
    text += f"; a step {median['sample'] / found['steps']:.2f} s; device programs {device:.2f} s"
    text += f", the rest adds {median['job'] / device - 1:.1%}; the first job took "
    text += f"{found['first']['job']:.1f} s; peak {found['peak_bytes'] / 2**30:.1f} GiB\n"
    return text


class Timed(restore.Restorer):
    """Counts the seconds of each device program."""

    def __init__(self, release: Release):
        super().__init__(release)
        self.seconds: dict[str, float] = defaultdict(float)

    def encode(self, video: Any, cache: Any) -> Any:
        """See `Programs`."""
        return self._timed("encode", super().encode, video, cache)

    def decode(self, latent: Any, cache: Any) -> Any:
        """See `Programs`."""
        return self._timed("decode", super().decode, latent, cache)

    def sample(self, *arguments: Any, **options: Any) -> Any:
        """See `Programs`."""
        return self._timed("sample", super().sample, *arguments, **options)

    def _timed(self, name: str, program: Any, *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        found = jax.block_until_ready(program(*arguments, **options))
        self.seconds[name] += time.perf_counter() - began
        return found


class InMemory(Released):
    """Opens scenes with networks that are in memory already."""

    def __init__(self, restorer: Timed, options: Options):
        super().__init__(Path("in memory"), None, options)
        self.restorer = restorer

    @functools.cached_property
    def _restorer(self) -> Any:
        return self.restorer

    @functools.cached_property
    def _card(self) -> Any:
        return self.restorer.card


def job(clip: Path, output: Path, restorer: Timed, weights: InMemory) -> Row:
    """Seconds of one restoration, by stage; those of its threads beside the others."""
    restorer.seconds.clear()
    began = time.perf_counter()
    report = restore_file(Request(str(clip), str(output), overwrite=True, scenes=False), weights)
    whole = time.perf_counter() - began
    stages = dataclasses.asdict(report.stages)
    row = {name: restorer.seconds[name] for name in PROGRAMS}
    row["beside programs"] = stages["restore"] - sum(row.values())
    row["waiting for frames"] = stages["decode"]
    row["waiting for the encoder"] = stages["save"]
    row["first look, joining"] = whole - stages["restore"] - stages["decode"] - stages["save"]
    row["video encoder, in its thread"] = stages["encode"]
    return row | {"job": whole}


def random_release(name: str) -> Release:
    """The networks of a configuration with random weights; the empty prompt is zeros."""
    module = importlib.import_module(f"configs.{name}")
    config = settings.from_mapping(TrainingConfig, module.get_config().to_dict())
    card = networks.described(ReleaseCard(model=config.model, vae=config.vae), config)
    model = drawn(lambda: RealisVSR(config.model, rngs=nnx.Rngs(0)))
    vae = drawn(lambda: WanVAE(config.vae, rngs=nnx.Rngs(0)))
    dit = config.model.dit
    return Release(card, vae, model, PromptCache.empty_prompt_only(dit.text_length, dit.text_dim))


def drawn(constructor: Callable[[], Any]) -> Any:
    """The network with random numbers, one block of them again and again: quicker than its own."""
    graph, state = nnx.split(nnx.eval_shape(constructor))
    block = np.random.default_rng(0).standard_normal(1 << 22, np.float32)

    def of(leaf: Any) -> jax.Array:
        inputs = max(1, math.prod(leaf.shape[:-1]))
        return jnp.asarray(np.resize(block, leaf.shape) * np.float32(inputs**-0.5))

    return nnx.merge(graph, jax.tree.map(of, state))


def make_clip(path: Path, frames: int, height: int, width: int) -> None:
    """A texture that moves, as a video."""
    side = max(height, width) + max(height, width) % 2
    clip = ((textures(0, frames, side)[:, :height, :width] + 1) * 127.5).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in clip:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())


if __name__ == "__main__":
    main()
