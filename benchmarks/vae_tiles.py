"""The VAE by tiles: memory at 4K, time and memory beside the whole picture, error of a warm-up.

    python -m benchmarks.vae_tiles --output out/vae_tiles

Memory of programs is the compiler's for this machine's backend, at Wan's full width, for tiles
planned for each of --memory; nothing of that size runs. Time and peak memory are of the shipped VAE
on --size and --frames, each way in a process of its own: the whole stream frame by frame, and by
tiles. The error of a warm-up is of a second window whose stream starts anew on the last k latent
frames, against one that continues: ‖difference‖ / ‖exact‖. The shipped VAE sees its demo clip;
Wan's width has random weights and sees noise. Writes vae_tiles.json and vae_tiles.md.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from realisvsr_jax.errors import InputError, plain_messages
from realisvsr_jax.evals import pages
from realisvsr_jax.planning import report
from realisvsr_jax.training.networks import shipped_release
from realisvsr_jax.vae.tile_plan import plan_of, plan_tiles, stream_bytes
from realisvsr_jax.vae.tiled import Carry, TiledDecoder, TiledEncoder
from realisvsr_jax.vae.wan_vae import WAN_VAE, WanVAE
from realisvsr_jax.video.reading import read_video
from realisvsr_jax.weights.release import load_vae

FULL = (2160, 3840)
WAYS = ("whole", "tiled")
VAES = ("shipped", "wan")
DIRECTIONS: dict[str, Any] = {"decode": TiledDecoder, "encode": TiledEncoder}
Rows = list[dict[str, Any]]


def main() -> None:
    """Reads the command line, measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/vae_tiles"), help="folder to fill")
    parser.add_argument("--memory", type=float, nargs="+", default=[12, 16, 80], help="GB")
    parser.add_argument("--size", type=int, nargs=2, default=[272, 480], help="of timed pictures")
    parser.add_argument("--frames", type=int, default=9, help="of the timed clip")
    parser.add_argument("--tile", type=int, nargs=2, default=[34, 40], help="latent positions")
    parser.add_argument("--warm-ups", type=int, nargs="+", default=[1, 2, 4, 8, 17])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a direction and a way, timed
    flags = parser.parse_args()
    plain_messages()
    if flags.one:
        what, way = flags.one
        size, tile = (flags.size[0], flags.size[1]), (flags.tile[0], flags.tile[1])
        print(json.dumps(timed(what, way, size, flags.frames, tile)))
        return
    flags.output.mkdir(parents=True, exist_ok=True)
    parts = {
        "programs": lambda: [row for memory in flags.memory for row in programs(int(memory * 1e9))],
        "stream_cache_bytes": lambda: {
            what: stream_bytes(WAN_VAE, FULL, decoding=what == "decode") for what in DIRECTIONS
        },
        "timed": lambda: [apart(what, way) for what in DIRECTIONS for way in WAYS],
        "warm_up": lambda: [row for vae in VAES for row in warm_ups(vae, flags.warm_ups)],
    }
    found: dict[str, Any] = {"size": [flags.frames, *flags.size]}
    for name, measure in parts.items():
        found[name] = measure()
        (flags.output / "vae_tiles.json").write_text(json.dumps(found, indent=1) + "\n")
    page = markdown(found)
    (flags.output / "vae_tiles.md").write_text(page)
    sys.stdout.write(page)


def programs(memory: int) -> Rows:
    """Planned for `memory` bytes: estimates, and what the compiler says of each implementation."""
    rows = []
    for what, make in DIRECTIONS.items():
        try:
            plan = plan_tiles(WAN_VAE, FULL, memory, decoding=what == "decode")
        except InputError as error:
            rows.append({"memory": memory, "what": what, "refused": str(error)})
            continue
        row = {"memory": memory, "what": what, "plan": dataclasses.asdict(plan)}
        for conv in ("native", "taps"):
            config = dataclasses.replace(WAN_VAE, conv=conv)
            vae = nnx.eval_shape(lambda config=config: WanVAE(config, rngs=nnx.Rngs(0)))
            for name, lowered in make(vae, FULL, plan.tile).lowered().items():
                row[f"{conv}_{name}"] = report.memory(lowered.compile()).total
        rows.append(row)
    return rows


def apart(what: str, way: str) -> dict[str, Any]:
    """`timed`, in a process of its own with this one's options."""
    command = [sys.executable, "-m", "benchmarks.vae_tiles", *sys.argv[1:], "--one", what, way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"what": what, "way": way} | json.loads(done.stdout)


def timed(
    what: str, way: str, size: tuple[int, int], frames: int, tile: tuple[int, int]
) -> dict[str, Any]:
    """Seconds of a second run, without compiling, and what the process grew by at its peak."""
    vae = load_vae(shipped_release())
    config, rng = vae.config, np.random.default_rng(0)
    latent = config.latent_size((frames, *size))
    if what == "decode":
        x = rng.standard_normal((1, *latent, config.z_dim)).astype(np.float32)
    else:
        x = rng.uniform(-1, 1, (1, frames, *size, 3)).astype(np.float32)
    stream = DIRECTIONS[what](vae, size, tile)
    program = jax.jit(lambda vae, x, cache: getattr(vae, f"{what}_chunk")(x, cache))
    step = 1 if what == "decode" else config.temporal_factor
    starts = [0, *range(1, x.shape[1], step)]
    parts = [slice(a, b) for a, b in zip(starts, [*starts[1:], x.shape[1]])]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = 0.0
    for _ in range(2):
        began, cache = time.monotonic(), None
        if way == "tiled":
            getattr(stream, what)(x)
        else:
            made = []
            for part in parts:
                y, cache = program(vae, x[:, part], cache)
                made.append(np.asarray(y))
            np.concatenate(made, axis=1)
        seconds = time.monotonic() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    plan = plan_of(config, latent[1:], stream.grid, 1, 1, decoding=what == "decode")
    return {"seconds": seconds, "bytes": 1024 * grown, "tiles": plan.count, "work": plan.work}


def warm_ups(which: str, counts: list[int]) -> Rows:
    """Errors of a window of 2 latent frames, behind one frame more than the longest warm-up."""
    if which == "shipped":
        vae, size = load_vae(shipped_release()), (128, 192)
    else:
        vae, size = WanVAE(WAN_VAE, rngs=nnx.Rngs(0)), (32, 48)
    config, longest = vae.config, max(counts)
    frames = config.video_frames(longest + 3)
    tile = config.latent_size((1, *size))[1:]
    video = clip(frames, size) if which == "shipped" else noise(frames, size)
    latent, _ = TiledEncoder(vae, size, tile).encode(video)
    inputs = {
        "decode": (latent, longest + 1, lambda count: count),
        "encode": (video, config.video_frames(longest + 1), config.video_frames),
    }
    rows = []
    for what, make in DIRECTIONS.items():
        x, split, kept = inputs[what]
        stream = make(vae, size, tile, warm_up=longest)
        run, exact = getattr(stream, what), None
        for stream.carry in ("caches", "features", "inputs"):
            _, carry = run(x[:, :split])
            if exact is None:
                exact, _ = run(x[:, split:], carry)
                continue
            for count in counts:
                recent = carry.recent[:, -kept(count) :]
                ours, _ = run(x[:, split:], Carry(carry.whole, None, recent))
                row = {"vae": which, "what": what, "kind": stream.carry, "warm_up": count}
                row["error"] = float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))
                row["largest"] = float(np.abs(ours - exact).max())
                rows.append(row)
    return rows


def clip(frames: int, size: tuple[int, int]) -> np.ndarray:
    """The shipped demo clip, forth and back as often as it takes."""
    path = shipped_release().parent / "demo" / "gt.mkv"
    shown = read_video(path).frames
    order = np.abs((np.arange(frames) + len(shown) - 1) % (2 * len(shown) - 2) - len(shown) + 1)
    return shown[order][None, :, : size[0], : size[1]].astype(np.float32) / 127.5 - 1


def noise(frames: int, size: tuple[int, int]) -> np.ndarray:
    """Uniform in [−1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, (1, frames, *size, 3)).astype(np.float32)


def markdown(found: dict[str, Any]) -> str:
    """Four tables; see the module's docstring."""
    giga = "{:.2f}".format
    programs = []
    for row in found["programs"]:
        if "refused" in row:
            programs.append([f"{row['memory'] / 1e9:g}", row["what"], row["refused"], *[""] * 6])
            continue
        plan = row["plan"]
        cells = [f"{row['memory'] / 1e9:g}", row["what"]]
        cells.append(f"{plan['count']} of {plan['tile'][0]}×{plan['tile'][1]}")
        cells.append(f"{plan['work']:.2f}")
        for name in ("tile", "whole"):
            compiled = " / ".join(giga(row[f"{c}_{name}"] / 1e9) for c in ("native", "taps"))
            cells.append(f"{giga(plan[f'{name}_bytes'] / 1e9)}: {compiled}")
        cells.append(giga(plan["tile_cache_bytes"] / 1e9))
        cells.append(giga(plan["features_bytes"] / 1e9))
        cells.append(" / ".join(giga(b / 1e9) for b in plan["carry_bytes"].values()))
        programs.append(cells)
    heads = [
        "device memory, GB", "", "tiles (latent positions)", "work ÷ untiled",
        "tile program, GB, planned: native / taps", "whole layers, GB, planned: native / taps",
        "caches of a tile, GB", "features a latent frame, GB (host)",
        "carried, GB (host): caches / features / inputs",
    ]  # fmt: skip
    streams = [
        [what, giga(sum(levels) / 1e9), ", ".join(giga(level / 1e9) for level in levels)]
        for what, levels in found["stream_cache_bytes"].items()
    ]
    timings = [
        [row["what"], row["way"], str(row["tiles"] if row["way"] == "tiled" else 1),
         f"{row['work'] if row['way'] == 'tiled' else 1:.2f}",
         f"{row['seconds']:.1f}", giga(row["bytes"] / 1e9)]
        for row in found["timed"]
    ]  # fmt: skip
    counts = sorted({row["warm_up"] for row in found["warm_up"]})
    errors: dict[tuple, list[str]] = {}
    for row in found["warm_up"]:
        cell = f"{row['error']:.1e} ({row['largest']:.1e})"
        errors.setdefault((row["vae"], row["what"], row["kind"]), []).append(cell)
    frames, height, width = found["size"]
    return "\n".join(
        [
            f"Wan's VAE, {FULL[0]}×{FULL[1]}, compiled for {jax.default_backend()}\n",
            pages.table(heads, programs),
            "Caches of a stream that is not tiled, GB: in all; low-resolution layers, then each "
            "resolution\n",
            pages.table(["", "in all", "of which"], streams),
            f"The shipped VAE, {frames} frames of {height}×{width}, second run\n",
            pages.table(["", "", "tiles", "work", "seconds", "peak, GB more"], timings),
            "Error of a window that starts anew, relative (largest difference), by its warm-up in "
            "latent frames\n",
            pages.table(
                ["VAE", "", "carried", *map(str, counts)],
                [[*key, *cells] for key, cells in errors.items()],
            ),
        ]
    )


if __name__ == "__main__":
    main()
