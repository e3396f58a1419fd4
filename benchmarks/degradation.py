"""What the degradation of one crop costs on one core, and by which operations.

    python -m benchmarks.degradation --output out/degradation
    python -m benchmarks.degradation --size 17x480x832 --preset light --plans 0:50

The crop is the footage of the tests, mirrored up to its size in space and time. Seconds are those
of one process's CPU, with one thread, behind the drawing of the plan; the first plan is done twice
and counted once. Then the same plans go through several processes, whose bytes must be the
same. Leaves degradation.json.
"""

import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realisvsr_jax.data.degradation import apply_plan, ops, preset_named, sample_plan
from realisvsr_jax.data.degradation.plan import Codec, DegradationPlan, Noise, Operation
from realisvsr_jax.evals import pages
from realisvsr_jax.files import replacing
from realisvsr_jax.video import read_video

FOOTAGE = Path(__file__).parents[1] / "tests" / "footage" / "squirrel.mp4"
Job = tuple[int, str, tuple[int, int, int]]


def main() -> None:
    """Reads the command line, measures, prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/degradation"), help="a folder")
    parser.add_argument("--size", default="33x480x832", help="T×H×W of the crop")
    parser.add_argument("--preset", default="paper", help="of the degradation")
    parser.add_argument("--plans", default="0:25", help="seeds of the plans, first:behind the last")
    parser.add_argument("--workers", default="2", help="numbers of processes to compare with one")
    flags = parser.parse_args()
    preset_named(flags.preset)
    frames, height, width = map(int, flags.size.split("x"))
    seeds = range(*map(int, flags.plans.split(":")))
    jobs = [(seed, flags.preset, (frames, height, width)) for seed in seeds]
    cv2.setNumThreads(1)
    measure(jobs[0])
    rows = []
    for job in jobs:
        rows.append(measure(job))
        print(json.dumps(rows[-1]), flush=True)
    same = {}
    for workers in map(int, flags.workers.split(",")):
        began = time.perf_counter()
        digests = in_processes(jobs, workers)
        same[workers] = {
            "same_bytes": digests == [row["sha256"] for row in rows],
            "wall_seconds": time.perf_counter() - began,
        }
    found = {
        "size": flags.size,
        "preset": flags.preset,
        "plans": flags.plans,
        "cores": os.cpu_count(),
        "median_seconds": float(np.median([row["seconds"] for row in rows])),
        "mean_seconds": float(np.mean([row["seconds"] for row in rows])),
        "operations": mean_of(row["operations"] for row in rows),
        "processes": same,
        "rows": rows,
    }
    flags.output.mkdir(parents=True, exist_ok=True)
    with replacing(flags.output / "degradation.json") as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n")
    print(report(found))


def crop(size: tuple[int, int, int]) -> np.ndarray:
    """uint8 [T, H, W, 3] of real footage, mirrored where it is too small."""
    frames = read_video(FOOTAGE, threads=1).frames
    missing = [(0, max(want - have, 0)) for want, have in zip(size, frames.shape)]
    mirrored = np.pad(frames, (*missing, (0, 0)), mode="symmetric")
    return np.ascontiguousarray(mirrored[: size[0], : size[1], : size[2]])


def measure(job: Job) -> dict[str, Any]:
    """Seconds of a plan as training has it, then of each operation, and the result's SHA-256."""
    frames, plan = crop(job[2]), plan_of(job)
    began = time.process_time()
    result = apply_plan(plan, frames)
    seconds = time.process_time() - began
    shares: dict[str, float] = defaultdict(float)
    current: Iterable[np.ndarray] = (frame.astype(np.float32) for frame in frames)
    for operation in plan.operations:
        began = time.process_time()
        current = ops.apply_operation(operation, current)
        shares[kind_of(operation)] += time.process_time() - began
    digest = hashlib.sha256(result.tobytes()).hexdigest()
    return {"seed": job[0], "seconds": seconds, "operations": shares, "sha256": digest}


def plan_of(job: Job) -> DegradationPlan:
    """The plan of a seed."""
    seed, preset, size = job
    return sample_plan(np.random.default_rng(seed), *size, preset=preset)


def kind_of(operation: Operation) -> str:
    """An operation's name in the table."""
    name = type(operation).__name__.lower()
    match operation:
        case Noise():
            return f"{name}, {operation.kind}"
        case Codec():
            return f"{name}, {operation.name}"
    return name


def mean_of(shares: Iterable[dict[str, float]]) -> dict[str, float]:
    """The mean seconds of each operation over all plans, whether they have it or not."""
    shares = list(shares)
    names = sorted({name for share in shares for name in share})
    return {name: sum(share.get(name, 0) for share in shares) / len(shares) for name in names}


def in_processes(jobs: list[Job], workers: int) -> list[str]:
    """SHA-256 of each plan's result, made by so many processes."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        return list(pool.map(digest_of, jobs))


def digest_of(job: Job) -> str:
    """SHA-256 of a plan's result."""
    cv2.setNumThreads(1)
    return hashlib.sha256(apply_plan(plan_of(job), crop(job[2])).tobytes()).hexdigest()


def report(found: dict[str, Any]) -> str:
    """What was found, as text."""
    seconds = [row["seconds"] for row in found["rows"]]
    total = sum(found["operations"].values())
    rows = [
        (name, f"{mean:.3f}", f"{mean / total:.0%}")
        for name, mean in sorted(found["operations"].items(), key=lambda item: -item[1])
    ]
    lines = [
        f"{found['size']}, {found['preset']}, plans {found['plans']}: median "
        f"{found['median_seconds']:.2f} s, mean {found['mean_seconds']:.2f}, "
        f"{min(seconds):.2f} to {max(seconds):.2f}",
        "",
        pages.table(("operation", "mean s a clip", "share"), rows),
    ]
    for workers, result in found["processes"].items():
        same = "the same bytes" if result["same_bytes"] else "OTHER BYTES"
        lines.append(f"{workers} processes: {same}, {result['wall_seconds']:.1f} s in all")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
