"""What a program needs on hardware that is not here: `python -m realisvsr_jax.plan`.

    python -m realisvsr_jax.plan --config configs/wan13b.py --topology v5e:4x4

Compiles the training step of each bucket for the topology (v5e:4x4, v6e:8x8, v5p:4x4x4, cpu:8;
h100:8 and other GPUs as an estimate, compiled for CPUs) and prints, per chip, what lies in memory,
what the devices exchange, and the time that they cannot beat. `--program latents` is the step on
latents that were made before (realisvsr_jax.precompute), `--program sample` a restoration of one
tile, which runs on one device. TPUs need their compiler: pip install 'realisvsr-jax[plan]'. It
takes some minutes a bucket, and many for the VAE; `--bucket` chooses one.
"""

import dataclasses
import json
import sys
import time
from typing import Any

from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, program

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
config_flags.DEFINE_config_file("config", None, "Experiment, such as configs/wan13b.py.", **_here)
flags.DEFINE_string("topology", None, "KIND:GRID, such as v5e:4x4, h100:8 or cpu:8.", **_here)
flags.DEFINE_enum(
    "program",
    "train",
    ["train", "latents", "sample"],
    "The step; the step on latents made before; a restoration.",
    **_here,
)
flags.DEFINE_string("bucket", None, "T×H×W of the configuration's, as 49x480x832.", **_here)
flags.DEFINE_string("clip", None, "T×H×W to restore by the release's tiles.", **_here)
flags.DEFINE_string("part", "", "Of a restoration: programs whose names hold this.", **_here)
flags.DEFINE_bool("encode", True, "Compile the VAE's encode alone too, for its peak.", **_here)
flags.DEFINE_bool("json", False, "Print one object instead.", **_here)


def main() -> None:
    """Compiles and prints."""
    if FLAGS.config is None or FLAGS.topology is None:
        raise InputError("give --config configs/NAME.py and --topology KIND:GRID")
    from realisvsr_jax.planning import topologies

    topology = topologies.parse(FLAGS.topology)
    topologies.compile_only(topology.chips)
    from realisvsr_jax.planning import lower
    from realisvsr_jax.planning.page import page
    from realisvsr_jax.training.settings import from_flag

    config = lower.as_run_on(from_flag(FLAGS.config), topology)
    began = time.monotonic()
    plan = plan_restoration if FLAGS.program == "sample" else plan_training
    found = plan(config, topology)
    found |= {
        "program": FLAGS.program,
        "topology": topology.name,
        "estimate": topology.is_estimate,
        "attention": config.model.dit.attention,
        "chips": topology.chips,
        "chip_memory_bytes": topology.chip.memory,
        "compile_seconds": round(time.monotonic() - began, 1),
        "fits": found["total_bytes_per_chip"] <= topology.chip.memory,
    }
    found["knob"] = None if found["fits"] else found["knob"]
    sys.stdout.write((json.dumps(found, indent=1) if FLAGS.json else page(found)) + "\n")


def plan_training(config: Any, topology: Any) -> dict[str, Any]:
    """What the step needs in every bucket, or in the one that was chosen."""
    from realisvsr_jax.planning import lower
    from realisvsr_jax.planning.page import training_knob

    programs = lower.training_programs(config, topology.devices())
    chosen = lower.chosen_buckets(config.data.buckets, FLAGS.bucket)
    buckets = [plan_bucket(config, topology, programs, bucket) for bucket in chosen]
    worst = max(buckets, key=lambda row: row["total_bytes_per_chip"])
    return {
        "mesh": dict(programs.mesh.shape),
        "micro_batches": programs.accumulate,
        "total_bytes_per_chip": worst["total_bytes_per_chip"],
        "knob": training_knob(worst, config.encode_frames, config.model.dit.remat),
        "buckets": buckets,
    }


def plan_bucket(config: Any, topology: Any, programs: Any, bucket: Any) -> dict[str, Any]:
    """What one bucket's training step needs."""
    from concurrent.futures import ThreadPoolExecutor

    from realisvsr_jax.planning import report

    began = time.monotonic()
    encoded = FLAGS.program == "latents"
    lowered = [programs.lower_step(config, bucket, encoded=encoded)]
    if FLAGS.encode and not encoded:
        lowered.append(programs.lower_encode(config, bucket))
    with ThreadPoolExecutor() as pool:
        compiled, *encode = pool.map(lambda program: program.compile(), lowered)
    seconds = time.monotonic() - began
    flops, work = _step_flops(config, bucket, encoded)
    state = programs.state
    return {
        "bucket": list(bucket),
        "parameters_bytes": report.bytes_per_chip((programs.frozen["network"], state.params)),
        "optimizer_bytes": report.bytes_per_chip((state.opt_state, state.ema)),
        "vae_bytes": 0 if encoded else report.bytes_per_chip(programs.frozen["vae"]),
        "encode_peak_bytes": report.memory(encode[0]).total if encode else None,
        "flops": flops,
        "compile_seconds": round(seconds, 1),
        **_of_compiled(compiled, topology, topology.chips, work),
    }


def _step_flops(config: Any, bucket: Any, encoded: bool) -> tuple[dict[str, float], Any]:
    """FLOP by part, and by the dtype they are done in."""
    from realisvsr_jax.planning import arithmetic

    size, dtype = config.data.batch_size, config.model.dit.dtype
    flops = dict(arithmetic.training(config.model, size, config.vae.latent_size(bucket)))
    work = {dtype: sum(flops.values())}
    if not encoded:
        once = arithmetic.encode(config.vae, bucket, config.encode_frames)
        flops["vae"] = 2 * size * once
        name = "high" if config.vae.precision == "high" else "float32"
        work[name] = work.get(name, 0.0) + flops["vae"]
    return flops, work


def plan_restoration(config: Any, topology: Any) -> dict[str, Any]:
    """What each program of a restoration of one window needs on one device."""
    from realisvsr_jax.planning import lower, restoration
    from realisvsr_jax.planning.page import restoration_knob

    size = restoration.size_of(config)
    if FLAGS.bucket:
        (size,) = lower.chosen_buckets(config.data.buckets, FLAGS.bucket)
    if FLAGS.clip:
        size = restoration.clip_of(FLAGS.clip, config)
    tiling = restoration.tiling_of(config, size)
    rows, names = [], []
    for part in restoration.parts(config, size, tiling, topology.devices()[0]):
        names.append(part.name)
        if FLAGS.part not in part.name:
            continue
        began = time.monotonic()
        compiled = part.lower().compile()
        row = {"name": part.name, "times": part.times, "flops": part.flops}
        row |= _of_compiled(compiled, topology, 1, {part.dtype: part.flops})
        row["weights_bytes"] = restoration.weights_bytes(config)
        row["total_bytes_per_chip"] += part.beside
        rows.append(row | {"compile_seconds": round(time.monotonic() - began, 1)})
    if not rows:
        raise InputError(
            f"--part {FLAGS.part}: no program's name holds it; they are {'; '.join(names)}"
        )
    worst = max(rows, key=lambda row: row["total_bytes_per_chip"])
    return {
        "mesh": {},
        "clip": list(size),
        "tiles": tiling.count,
        "flops": sum(row["flops"] * row["times"] for row in rows),
        "seconds": sum(row["roofline"]["seconds"] * row["times"] for row in rows),
        "total_bytes_per_chip": worst["total_bytes_per_chip"],
        "knob": restoration_knob(worst["name"]),
        "parts": rows,
    }


def _of_compiled(compiled: Any, topology: Any, chips: int, work: Any) -> dict[str, Any]:
    """Memory, exchanges and times of a program that runs on `chips` of the topology."""
    from realisvsr_jax.planning import report
    from realisvsr_jax.planning.hlo import Program

    memory = report.memory(compiled)
    text = Program(compiled.as_text())
    collectives, moved = report.exchanges(text)
    return {
        "activations_bytes": memory.temporaries,
        "memory": dataclasses.asdict(memory),
        "total_bytes_per_chip": memory.total,
        "collectives": collectives,
        # What a program compiled for a CPU reads and writes is not what a GPU's would.
        "roofline": report.roofline(
            *(topology.chip, chips, work),
            traffic=None if topology.is_estimate else text.traffic(),
            moved=moved,
        ),
    }


def run() -> None:
    """The console script."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
