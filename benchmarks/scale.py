"""What the large configurations need on TPUs that are not here, into docs/scale.md.

    python -m benchmarks.scale --write

Compiles, one process after the other: the training step of each configuration, on latents and
whole; the 1.3B's forward on one chip and on four; the VAE's decoder, whole clip and frame by frame.
Each result is a JSON file in --output, with the versions that it was made with, and what is there
is not compiled again without --again. Needs libtpu (pip install -e '.[plan]') and hours on 2
cores, nearly all for the VAE; --only takes the programs whose names contain a word, as latents.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from realisvsr_jax.evals import pages
from realisvsr_jax.files import replacing

TARGETS = (
    ("wan13b", "v5e:4x4", "49x480x832"),
    ("wan13b", "v6e:2x4", "49x480x832"),
    ("wan13b_720p", "v6e:4x4", "49x720x1280"),
    ("wan14b", "v5p:4x4x4", "49x480x832"),
    ("wan14b", "v6e:8x8", "49x480x832"),
)
LATENTS = ((13, 60, 104), (21, 60, 104))
DECODED = (13, 60, 104)
GIBI = 2**30
TILES_MEMORY = 3 * GIBI
DECODES = {
    "whole clip": "decode-whole",
    "frame by frame": "decode-stream",
    "{tiles} tiles of {tile[0]}×{tile[1]}, frame by frame": "decode-tiles",
}


def jobs() -> dict[str, list[str]]:
    """The command of each program by its name, the quick ones first."""
    planner = [sys.executable, "-m", "realisvsr_jax.plan", "--json"]
    found: dict[str, list[str]] = {}
    for program in ("latents", "train"):
        for config, topology, bucket in TARGETS:
            options = [f"--config=configs/{config}.py", f"--topology={topology}"]
            options += [f"--bucket={bucket}", f"--program={program}"]
            found[_name(program, config, topology)] = planner + options
        if program == "latents":
            for frames, _, _ in LATENTS:
                for grid in ("1x1", "2x2"):
                    name = f"forward-{frames}-{grid}"
                    found[name] = [sys.executable, "-m", "benchmarks.scale", f"--one={name}"]
            for name in ("decode-tiles", "decode-stream", "decode-whole"):
                found[name] = [sys.executable, "-m", "benchmarks.scale", f"--one={name}"]
    return found


def _name(program: str, config: str, topology: str) -> str:
    return f"{program}-{config}-{topology.replace(':', '-')}"


def main() -> None:
    """Compiles what is missing, then writes the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("docs/scale"), help="folder to fill")
    parser.add_argument("--only", default="", help="programs whose names contain this")
    parser.add_argument("--again", action="store_true", help="compile what is there, too")
    parser.add_argument("--minutes", type=float, default=120, help="before a program is given up")
    parser.add_argument("--write", action="store_true", help="the tables of docs/scale.md")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(one(flags.one)))
        return
    flags.output.mkdir(parents=True, exist_ok=True)
    for name, command in jobs().items():
        path = flags.output / f"{name}.json"
        if flags.only in name and (flags.again or not path.exists()) and flags.minutes > 0:
            print(f"{name} …", flush=True)
            print(f"{name}: {_run(command, path, flags.minutes)}", flush=True)
    found = {p.stem: json.loads(p.read_text()) for p in sorted(flags.output.glob("*.json"))}
    tables = {"targets": targets(found), "forward": forwards(found), "decode": decodes(found)}
    for name, table in tables.items():
        print(table)
        if flags.write:
            pages.replace_between(Path("docs/scale.md"), name, table)


def _run(command: list[str], path: Path, minutes: float) -> str:
    """What came of it, in a line."""
    began = time.monotonic()
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return f"given up after {minutes:g} minutes"
    if ended.returncode:
        return ended.stderr.strip().splitlines()[-1][:500]
    made_with = {name: metadata.version(name) for name in ("jax", "libtpu")}
    with replacing(path) as partial:
        partial.write_text(
            json.dumps(json.loads(ended.stdout) | {"made_with": made_with}, indent=1)
        )
    return f"{time.monotonic() - began:.0f} s"


def one(name: str) -> dict[str, Any]:
    """Compiles a forward or a decode for the v6e."""
    from realisvsr_jax.planning import topologies

    topologies.compile_only(1)
    kind, *rest = name.split("-")
    if kind == "forward":
        return forward(int(rest[0]), f"v6e:{rest[1]}")
    return decode_tiles() if rest[0] == "tiles" else decode(stream=rest[0] == "stream")


def forward(frames: int, topology: str) -> dict[str, Any]:
    """Of the 1.3B in bfloat16, on one chip or sharded over all along the sequence."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax.sharding import NamedSharding, PartitionSpec

    from realisvsr_jax.mesh import MeshConfig, make_mesh
    from realisvsr_jax.model.wan_dit import DiTConfig, WanDiT
    from realisvsr_jax.planning import topologies
    from realisvsr_jax.training import sharding

    config = DiTConfig(dtype="bfloat16", residual_dtype="bfloat16", attention="splash")
    devices = topologies.parse(topology).devices()
    mesh = make_mesh(MeshConfig(fsdp=1, seq=len(devices)), config.num_heads, devices)
    graph, state = nnx.split(nnx.eval_shape(lambda: WanDiT(config, rngs=nnx.Rngs(0))))

    def stored(path: Any, leaf: Any) -> Any:
        where = sharding.spec("/".join(("dit", *map(str, path))), tuple(leaf.shape), mesh)
        place = NamedSharding(mesh, where)
        return leaf.replace(jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=place))

    everywhere = NamedSharding(mesh, PartitionSpec())
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)
        for shape, dtype in (
            ((1, frames, 60, 104, 16), jnp.bfloat16),
            ((1,), jnp.float32),
            ((1, config.text_length, config.text_dim), jnp.bfloat16),
        )
    ]
    state = nnx.map_state(stored, state)
    began = time.monotonic()
    with jax.set_mesh(mesh):
        program = jax.jit(lambda state, z, t, text: nnx.merge(graph, state)(z, t, text))
        compiled = program.lower(state, *arguments).compile()
    return _measured(compiled, time.monotonic() - began)


def decode(*, stream: bool) -> dict[str, Any]:
    """Of the VAE in float32: the worst of a stream's two programs, or the whole clip's."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax.sharding import SingleDeviceSharding

    from realisvsr_jax.planning import topologies
    from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE

    device = topologies.parse("v6e:1x1").devices()[0]
    place = SingleDeviceSharding(device)

    def on(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
        )

    config = VAEConfig(conv="native")
    graph, state = nnx.split(nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0))))

    def chunk(state: Any, latent: Any, cache: Any) -> Any:
        return nnx.merge(graph, state).decode_chunk(latent, cache)

    program = jax.jit(chunk, donate_argnums=2)
    frames, height, width = DECODED
    latent = jax.ShapeDtypeStruct(
        (1, 1 if stream else frames, height, width, config.z_dim), jnp.float32, sharding=place
    )
    if not stream:
        program = jax.jit(lambda state, latent: nnx.merge(graph, state).decode(latent))
        began = time.monotonic()
        return _measured(program.lower(on(state), latent).compile(), time.monotonic() - began)
    cache, found = None, []
    for _ in range(2):
        began = time.monotonic()
        compiled = program.lower(on(state), latent, cache).compile()
        found.append(_measured(compiled, time.monotonic() - began))
        cache = on(jax.eval_shape(chunk, on(state), latent, cache)[1])
    return _worst(found)


def decode_tiles() -> dict[str, Any]:
    """As `upscale --memory 3.2GB` decodes: the worst of its two programs, which run in turn."""
    from flax import nnx
    from jax.sharding import SingleDeviceSharding

    from realisvsr_jax.planning import topologies
    from realisvsr_jax.vae.tile_plan import plan_tiles
    from realisvsr_jax.vae.tiled import TiledDecoder
    from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE

    config = VAEConfig(conv="native")
    vae = nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    size = DECODED[1] * config.spatial_factor, DECODED[2] * config.spatial_factor
    plan = plan_tiles(config, size, TILES_MEMORY, decoding=True)
    place = SingleDeviceSharding(topologies.parse("v6e:1x1").devices()[0])
    found = []
    for lowered in TiledDecoder(vae, size, plan.tile).lowered(sharding=place).values():
        began = time.monotonic()
        found.append(_measured(lowered.compile(), time.monotonic() - began))
    return _worst(found) | {"tile": plan.tile, "tiles": plan.count}


def _worst(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The program that takes the most, with the time to compile all of them."""
    worst = max(found, key=lambda row: row["total_bytes_per_chip"])
    return worst | {"compile_seconds": sum(row["compile_seconds"] for row in found)}


def _measured(compiled: Any, seconds: float) -> dict[str, Any]:
    from realisvsr_jax.planning import report
    from realisvsr_jax.planning.hlo import Program

    memory = report.memory(compiled)
    return {
        "arguments_bytes": memory.arguments,
        "temporaries_bytes": memory.temporaries,
        "total_bytes_per_chip": memory.total,
        "collectives": Program(compiled.as_text()).collectives(),
        "compile_seconds": round(seconds, 1),
    }


def targets(found: Mapping[str, Any]) -> str:
    """A row a configuration and topology: on latents, whole."""
    heads = ["configuration", "topology", "mesh", "program", "parameters", "moments, average"]
    heads += ["activations", "VAE encode's peak", "in all", "a chip has", "fits", "TFLOP a step"]
    heads += ["at full speed", "compiled in"]
    rows = []
    for config, topology, _ in TARGETS:
        for program, label in (("latents", "on latents"), ("train", "whole")):
            plan = found.get(_name(program, config, topology))
            rows.append([f"`{config}`", topology, *(_target(plan, label))])
    return pages.table(heads, rows)


def _target(plan: Mapping[str, Any] | None, label: str) -> list[str]:
    if plan is None:
        return ["", label, "not compiled", *[""] * 9]
    (row,) = plan["buckets"]
    roof = row["roofline"]
    mesh = " × ".join(f"{name} {size}" for name, size in plan["mesh"].items() if size > 1)
    encode = row["encode_peak_bytes"]
    return [
        mesh,
        label,
        *map(_gib, (row["parameters_bytes"], row["optimizer_bytes"], row["activations_bytes"])),
        _gib(encode) if encode else "–",
        _gib(plan["total_bytes_per_chip"]),
        _gib(plan["chip_memory_bytes"]),
        "yes" if plan["fits"] else "no",
        f"{sum(row['flops'].values()) / 1e12:,.0f}",
        f"{roof['seconds']:.2f} s ({roof['bound']})",
        f"{row['compile_seconds']:.0f} s",
    ]


def forwards(found: Mapping[str, Any]) -> str:
    """A row a latent and number of chips."""
    heads = ["latent", "chips", "weights", "temporaries", "all-to-all", "all-gather"]
    rows = []
    for frames, height, width in LATENTS:
        for grid, chips in (("1x1", "1"), ("2x2", "4")):
            row = found.get(f"forward-{frames}-{grid}")
            rows.append([f"{frames}×{height}×{width}", chips, *_forward(row)])
    return pages.table([*heads, "collective-permute", "compiled in"], rows)


def _forward(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return ["not compiled", *[""] * 5]
    kinds = [row["collectives"].get(k) for k in ("all-to-all", "all-gather", "collective-permute")]
    shown = [f"{k['count']}, {_gib(k['bytes'])}" if k else "0" for k in kinds]
    memory = [_gib(row["arguments_bytes"]), _gib(row["temporaries_bytes"])]
    return [*memory, *shown, f"{row['compile_seconds']:.0f} s"]


def decodes(found: Mapping[str, Any]) -> str:
    """A row a way of decoding."""
    kinds: dict[str, Callable[[Any], str]] = {
        "peak": lambda row: _gib(row["total_bytes_per_chip"]),
        "temporaries": lambda row: _gib(row["temporaries_bytes"]),
        "compiled in": lambda row: f"{row['compile_seconds']:.0f} s",
    }
    rows = []
    for label, name in DECODES.items():
        row = found.get(name)
        label = label.format(**row) if row else label
        rest = [shown(row) for shown in kinds.values()] if row else ["not compiled", "", ""]
        rows.append([label, *rest])
    return pages.table(["13×60×104, float32, one v6e", *kinds], rows)


def _gib(count: int) -> str:
    return f"{count / GIBI:.2f} GiB"


if __name__ == "__main__":
    main()
