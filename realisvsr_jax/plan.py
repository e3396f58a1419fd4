"""What training needs on hardware that is not here: `python -m realisvsr_jax.plan`.

    python -m realisvsr_jax.plan --config configs/wan13b.py --topology v5e:4x4 --config.mesh.seq=2

Compiles the training step of each bucket for the topology (v5e:4x4, v6e:8x8, v5p:4x4x4, cpu:8;
h100:8 and other GPUs as an estimate, compiled for CPUs) and prints, per chip, what lies in memory,
what the devices exchange, and the time that the arithmetic alone takes. TPUs need their compiler:
pip install 'realisvsr-jax[plan]'. Compiling takes minutes.
"""

import dataclasses
import json
import os
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
flags.DEFINE_bool("json", False, "Print one object instead.", **_here)


def main() -> None:
    """Compiles and prints."""
    if FLAGS.config is None or FLAGS.topology is None:
        raise InputError("give --config configs/NAME.py and --topology KIND:GRID")
    from realisvsr_jax.planning import topologies

    topology = topologies.parse(FLAGS.topology)
    _before_jax_looks_for_devices(topology.chips)
    from realisvsr_jax.planning import lower
    from realisvsr_jax.training.settings import from_flag

    config = lower.as_run_on(from_flag(FLAGS.config), topology)
    began = time.monotonic()
    programs = lower.training_programs(config, topology.devices())
    buckets = [plan_bucket(config, topology, programs, bucket) for bucket in config.data.buckets]
    found = {
        "topology": topology.name,
        "estimate": topology.is_estimate,
        "chips": topology.chips,
        "chip_memory_bytes": topology.chip.memory,
        "mesh": dict(programs.mesh.shape),
        "micro_batches": programs.accumulate,
        "compile_seconds": round(time.monotonic() - began, 1),
        "total_bytes_per_chip": max(row["total_bytes_per_chip"] for row in buckets),
        "fits": all(row["total_bytes_per_chip"] <= topology.chip.memory for row in buckets),
        "buckets": buckets,
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if FLAGS.json else _page(found))


def _before_jax_looks_for_devices(chips: int) -> None:
    """The host's own devices stand in for chips that no compiler knows, in one process."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    flag = f"--xla_force_host_platform_device_count={chips}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def plan_bucket(config: Any, topology: Any, programs: Any, bucket: Any) -> dict[str, Any]:
    """What one bucket's training step needs."""
    from realisvsr_jax.planning import report

    began = time.monotonic()
    compiled = programs.lower_step(config, bucket).compile()
    memory = report.memory(compiled)
    work = report.flops(config, config.data.batch_size, config.vae.latent_size(bucket))
    state = programs.state
    return {
        "bucket": list(bucket),
        "parameters_bytes": report.bytes_per_chip((programs.frozen["network"], state.params)),
        "optimizer_bytes": report.bytes_per_chip((state.opt_state, state.ema)),
        "vae_bytes": report.bytes_per_chip(programs.frozen["vae"]),
        "temporary_bytes": memory.temporaries,
        "memory": dataclasses.asdict(memory),
        "total_bytes_per_chip": memory.total,
        "flops": work,
        "arithmetic_seconds": sum(work.values()) / topology.chips / topology.chip.flops,
        "collectives": report.collectives(compiled.as_text()),
        "compile_seconds": round(time.monotonic() - began, 1),
    }


def _page(found: dict[str, Any]) -> str:
    giga = 2**30
    mesh = " × ".join(f"{name} {size}" for name, size in found["mesh"].items() if size > 1)
    note = " (an estimate: compiled for CPUs)" if found["estimate"] else ""
    lines = [
        f"{found['topology']}: {found['chips']} chips of "
        f"{found['chip_memory_bytes'] / giga:.0f} GiB{note}; mesh {mesh or '1'}; "
        f"{found['micro_batches']} micro-batches"
    ]
    for row in found["buckets"]:
        lines += [
            f"bucket {'×'.join(map(str, row['bucket']))}, GiB a chip: "
            f"parameters {row['parameters_bytes'] / giga:.2f}, "
            f"moments and average {row['optimizer_bytes'] / giga:.2f}, "
            f"VAE {row['vae_bytes'] / giga:.2f}, temporaries {row['temporary_bytes'] / giga:.2f}; "
            f"in all {row['total_bytes_per_chip'] / giga:.2f}",
            f"  {sum(row['flops'].values()) / 1e12:.1f} TFLOP a step without the VAE, "
            f"{row['arithmetic_seconds']:.3f} s at the chips' full speed; "
            f"compiled in {row['compile_seconds']:.0f} s",
        ]
        for kind, exchanged in sorted(row["collectives"].items()):
            lines.append(f"  {kind}: {exchanged['count']}, {exchanged['bytes'] / giga:.3f} GiB")
    lines.append(_verdict(found))
    return "\n".join(lines) + "\n"


def _verdict(found: dict[str, Any]) -> str:
    if found["fits"]:
        return "It fits."
    worst = max(found["buckets"], key=lambda row: row["total_bytes_per_chip"])
    held = worst["parameters_bytes"] + worst["optimizer_bytes"]
    knob = (
        "mesh.fsdp: more chips to share parameters and moments"
        if held > worst["temporary_bytes"]
        else "encode_frames=4, mesh.seq, or model.dit.remat='block'"
    )
    return f"It does not fit; what helps most: {knob}."


def run() -> None:
    """The console script."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
