"""How fast training's data come: pairs a second by worker processes, and the index of records.

    python -m benchmarks.loader --output out/loader
    python -m benchmarks.loader --workers 0,1,2,4,8 --clips 64    # on a machine with more cores

The same clips are read from a folder of videos and from records, cropped, degraded and batched as
training does it. Pairs are counted once all workers are at work; the rounds take turns, and the
median counts. The processor's seconds a pair show what workers cost one another; fewer busy cores
than workers, that others were at work on the machine: pairs a second are one through the other.
Beside it, the index of so many small records: seconds, memory, and the same in a worker that is
handed the clips. Leaves loader.json.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import pickle
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.data import records
from realisvsr_jax.data.packing import Options, pack
from realisvsr_jax.data.pipeline import DataConfig, make_batches
from realisvsr_jax.data.shards import write_shard
from realisvsr_jax.data.sources import SourceClip, index_clips
from realisvsr_jax.evals import pages
from realisvsr_jax.files import replacing
from realisvsr_jax.video import write_video

INDEX_SHARD = 10_000
TIMED = 1000  # the first step that is timed


def main() -> None:
    """Reads the command line, measures, prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/loader"), help="folder to fill")
    parser.add_argument("--size", default="17x480x832", help="T×H×W of a crop")
    parser.add_argument("--clips", type=int, default=24, help="pairs that are timed in a round")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--preset", default="paper", help="of the degradation")
    parser.add_argument("--workers", default="0,1,2", help="numbers of processes")
    parser.add_argument("--records", type=int, default=100_000, help="of the index")
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.index:
        print(json.dumps(index_cost(flags.index)))
        return
    frames, height, width = map(int, flags.size.split("x"))
    folders = {"videos": flags.output / "videos", "records": flags.output / "records"}
    make_videos(folders["videos"], 2 * frames, height * 5 // 4, width * 5 // 4)
    pack(folders["videos"], folders["records"], Options(clips=4), overwrite=True)
    config = DataConfig(buckets=((frames, height, width),), batch_size=2, degradation=flags.preset)
    rounds = []
    for _ in range(flags.rounds):
        rounds += one_round(folders, config, list(map(int, flags.workers.split(","))), flags.clips)
    make_index(flags.output / "index", flags.records)
    found = {
        "size": flags.size,
        "preset": flags.preset,
        "cores": os.cpu_count(),
        "rounds": rounds,
        "records": flags.records,
        "index": index_in_own_process(flags.output / "index"),
    }
    with replacing(flags.output / "loader.json") as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n")
    print(page(found))


def one_round(
    folders: Mapping[str, Path], config: DataConfig, workers: Sequence[int], count: int
) -> list[dict[str, Any]]:
    """Every measurement once; `workers` is None where clips are read alone."""
    rows: list[dict[str, Any]] = []
    for name, folder in folders.items():
        rate, busy = reads_a_second(index_clips([folder]), config.buckets[0][0])
        rows.append({"workers": None, "source": name, "rate": rate, "busy": busy})
    for number in workers:
        for name, folder in folders.items():
            sources = dataclasses.replace(config, sources=(str(folder),), workers=number)
            rate, busy = pairs_a_second(sources, count)
            rows.append({"workers": number, "source": name, "rate": rate, "busy": busy})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def page(found: dict[str, Any]) -> str:
    """The tables."""
    frames = int(found["size"].split("x")[0])
    rows: dict[Any, list[str]] = {}
    first: dict[str, float] = {}
    for row in found["rounds"]:
        number, source = row["workers"], row["source"]
        if len(rows.setdefault(number, [])) == 2 * 3:
            continue  # a later round of the same
        same = [r for r in found["rounds"] if (r["workers"], r["source"]) == (number, source)]
        rate, busy = (statistics.median(r[key] for r in same) for key in ("rate", "busy"))
        seconds = statistics.median(r["busy"] / r["rate"] for r in same)
        times = "" if number is None else f" ({rate / first.setdefault(source, rate):.2f}×)"
        rows[number] += [f"{rate:.2f}{times}", f"{seconds:.2f}", f"{busy:.2f}"]
    alone = rows.pop(None)
    measured = ("pairs/s", "CPU s", "busy")
    heads = [f"{name}: {what}" for name in ("videos", "records") for what in measured]
    index = found["index"]
    return (
        f"Pairs a second, the processor's seconds a pair, busy cores: crops of {found['size']}, "
        f"preset {found['preset']}, {found['cores']} cores\n\n"
        + pages.table(["workers", *heads], [[str(n), *cells] for n, cells in rows.items()])
        + f"\nReading and decoding alone, one process: {alone[0]} clips a second from videos "
        f"({float(alone[0]) * frames:.0f} frames), {alone[3]} from records "
        f"({float(alone[3]) * frames:.0f}); {alone[1]} and {alone[4]} seconds of the processor a "
        f"clip\n\nIndex of {found['records']:,} records: {index['seconds']:.2f} s of the "
        f"processor, {index['bytes'] / 1e6:.0f} MB, {index['peak_bytes'] / 1e6:.0f} MB at the "
        f"peak; handed to a worker: {index['pickled'] / 1e6:.1f} MB, {index['unpickling']:.2f} s"
    )


def make_videos(folder: Path, frames: int, height: int, width: int, count: int = 8) -> None:
    """Videos of textures that move, all different."""
    from benchmarks.seams import textures

    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        path = folder / f"{seed}.mp4"
        if not path.exists():
            side = max(height, width)
            clip = (textures(seed, frames, side)[:, : height // 2 * 2, : width // 2 * 2] + 1) * 127
            write_video(path, clip.astype(np.uint8), Fraction(25))


def pairs_a_second(config: DataConfig, count: int) -> tuple[float, float]:
    """The rate at which pairs come when the queues in front have been emptied; busy cores.

    The pairs that are timed are always the same ones, since some cost more than others.
    """
    ahead = 3 * max(1, config.workers)
    batches = make_batches(config, start_step=TIMED - ahead, num_steps=10**6)
    for _ in range(ahead):
        next(batches)
    steps = -(-count // config.batch_size)
    start, spent = time.perf_counter(), processor_seconds()
    for _ in range(steps):
        next(batches)
    seconds, spent = time.perf_counter() - start, processor_seconds() - spent
    batches.close()  # pyright: ignore
    return steps * config.batch_size / seconds, spent / seconds


def reads_a_second(clips: Sequence[SourceClip], frames: int) -> tuple[float, float]:
    """Clips read at random starts by one process, without what training does to them."""
    rng = np.random.default_rng(0)
    count = 4 * len(clips)
    start, spent = time.perf_counter(), processor_seconds()
    for k in range(count):
        clip = clips[k % len(clips)]
        clip.read(int(rng.integers(clip.num_frames - frames + 1)), frames)
    seconds = time.perf_counter() - start
    return count / seconds, (processor_seconds() - spent) / seconds


def processor_seconds() -> float:
    """What this process and its workers have used so far."""
    ticks = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def make_index(folder: Path, count: int) -> None:
    """A folder of records without videos in them, as packing would leave it."""
    folder.mkdir(parents=True, exist_ok=True)
    clips, shards = [], []
    for start in range(0, count, INDEX_SHARD):
        part = [
            {
                "name": f"part-{start:08}/clip-{k:08}.mp4",
                "caption": f"clip {k}: a caption of some length, as they come from a model " * 2,
                "sha256": f"{k:064x}",
                **{"frames": 49 + k % 200, "height": 2160, "width": 3840},
            }
            for k in range(start, min(count, start + INDEX_SHARD))
        ]
        path = folder / f"clips-{start // INDEX_SHARD:05}-of-{-(-count // INDEX_SHARD):05}"
        path = path.with_suffix(records.SUFFIX)
        write_shard(path, (records.pack_record(clip, b"") for clip in part))
        shards.append({"name": path.name, "clips": len(part), "bytes": path.stat().st_size})
        clips += part
    records.write_index(folder, clips)
    manifest = {"format": records.FORMAT, "clips": count, "shards": shards, "left_out": []}
    (folder / records.MANIFEST).write_text(json.dumps(manifest))


def index_in_own_process(folder: Path) -> dict[str, float]:
    """`index_cost` where nothing else has taken memory."""
    command = [sys.executable, "-m", "benchmarks.loader", "--index", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def index_cost(folder: Path) -> dict[str, float]:
    """The processor's seconds, and bytes, of indexing a folder and of handing it to a worker."""
    start = time.process_time()
    clips = index_clips([folder])
    seconds = time.process_time() - start
    del clips
    tracemalloc.start()
    clips = index_clips([folder])
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = pickle.dumps(clips)
    start = time.process_time()
    pickle.loads(text)
    return {
        "clips": len(clips),
        "seconds": seconds,
        "bytes": kept,
        "peak_bytes": peak,
        "pickled": len(text),
        "unpickling": time.process_time() - start,
    }


if __name__ == "__main__":
    main()
