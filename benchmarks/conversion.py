"""Converts full-size random checkpoints: memory, and speed against a copy of the same bytes.

    python -m benchmarks.conversion --folder /tmp/conversion --rounds 3

Writes a random Wan2.1 1.3B transformer in float32 (5.7 GB) in the original layout; then, in turns,
copies its file and runs `convert.from_torch` on it and `convert.to_torch` on the result. Each
starts with its input out of the system's cache and ends when the disk has everything. Memory is the
peak of anonymous memory of the converting process: pages of mapped files do not count. Last, a
random UMT5-XXL in bfloat16 (11.4 GB) encodes the empty prompt and eight others with
`convert.encode_prompts`. Prints a table and writes conversion.json; needs 30 GB of disk.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import nnx

from benchmarks import counters
from realisvsr_jax.evals import pages
from realisvsr_jax.model.realisvsr import WAN_1_3B, WAN_14B
from realisvsr_jax.model.wan_dit import DiTConfig, WanDiT
from realisvsr_jax.text.umt5 import UMT5Config, UMT5Encoder
from realisvsr_jax.weights import assembly, dit_keymap, keymap, umt5_keymap
from realisvsr_jax.weights.writers import Stored, save_tensors
from tests.torch_checkpoints import write_tokenizer

SIZES = {"1.3B": WAN_1_3B.dit, "14B": WAN_14B.dit}
FILE = "diffusion_pytorch_model"
SHARD = 20 << 30
PROMPTS = ["a sharp video of a cat " * n for n in range(1, 9)]


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="on the disk to measure")
    parser.add_argument("--size", choices=SIZES, default="1.3B")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="the table of docs/checkpoints.md")
    flags = parser.parse_args()
    source = flags.folder / "wan"
    if not source.exists():
        write_checkpoint(source, SIZES[flags.size])
    results = [one_round(flags.folder, source) for _ in range(flags.rounds)]
    size = sum(path.stat().st_size for path in source.iterdir())
    encoder = flags.folder / "encoder"
    if not encoder.exists():
        write_encoder(encoder, UMT5Config())
    encoding = encode(flags.folder, encoder)
    report = {"bytes": size, "rounds": results, "encoding": encoding}
    (flags.folder / "conversion.json").write_text(json.dumps(report, indent=1) + "\n")
    page = table(size, results) + (
        f"\n{len(PROMPTS) + 1} prompts through UMT5-XXL: {encoding['seconds']:.0f} s, "
        f"{encoding['peak'] / 1e9:.2f} GB of anonymous memory at the peak.\n"
    )
    sys.stdout.write(page)
    if flags.write:
        pages.replace_between(Path("docs/checkpoints.md"), "conversion", page)


def write_checkpoint(folder: Path, config: DiTConfig) -> None:
    """The transformer in the original layout."""
    pairs = keymap.pairs(dit_keymap.rules("wan"), config.num_layers)
    write_random(folder, lambda: WanDiT(config, rngs=nnx.Rngs(0)), pairs, "float32")
    settings = {"num_heads": config.num_heads, "model_type": "t2v"}
    (folder / "config.json").write_text(json.dumps(settings) + "\n")


def write_encoder(folder: Path, config: UMT5Config) -> None:
    """The text encoder with a small tokenizer beside it."""
    pairs = keymap.pairs(umt5_keymap.rules("wan"), config.num_layers)
    write_random(folder, lambda: UMT5Encoder(config, rngs=nnx.Rngs(0)), pairs, "bfloat16")
    write_tokenizer(folder / "google" / "umt5-xxl")


def encode(folder: Path, encoder: Path) -> dict[str, float]:
    """Seconds and peak of `convert.encode_prompts`."""
    prompts, output = folder / "prompts.json", folder / "prompts.safetensors"
    prompts.write_text(json.dumps(PROMPTS))
    output.unlink(missing_ok=True)
    arguments = ["--text_encoder", encoder, "--prompts", prompts, "--output", output]
    command = [sys.executable, "-m", "convert.encode_prompts", *map(str, arguments)]
    peaks: list[int] = []
    return {"seconds": seconds(lambda: peaks.append(peak_of(command))), "peak": peaks[0]}


def write_random(folder: Path, constructor, pairs: Sequence[keymap.Pair], dtype: str) -> None:
    """Weights that are all slices of one block of normal numbers."""
    folder.mkdir(parents=True)
    shapes = assembly.expected(constructor)
    largest = max(math.prod(shape) for shape in shapes.values())
    block = np.random.default_rng(0).standard_normal(2 * largest, np.float32) * np.float32(0.02)
    tensors = {}
    for number, pair in enumerate(pairs):
        shape = pair.torch_shape(shapes[pair.ours])
        first = number * 997 % largest
        value = block[first : first + math.prod(shape)].reshape(shape)
        tensors[pair.torch] = Stored(value, np.dtype(dtype))
    save_tensors(folder, FILE, tensors, shard_bytes=SHARD, index=True)


def one_round(folder: Path, source: Path) -> dict[str, float]:
    """Seconds of the copy and of both conversions, and their peaks of anonymous memory, bytes."""
    found: dict[str, float] = {}
    copy, release, back = (folder / name for name in ("copy", "release", "back"))
    forget(source)
    found["copy_seconds"] = seconds(lambda: shutil.copytree(source, copy))
    shutil.rmtree(copy)
    for name, arguments in (
        ("from_torch", ["--input", source, "--output", release]),
        ("to_torch", ["--input", release, "--output", back, "--format", "wan"]),
    ):
        peaks: list[int] = []
        command = [sys.executable, "-m", f"convert.{name}", *map(str, arguments)]
        forget(arguments[1])
        found[f"{name}_seconds"] = seconds(lambda c=command, p=peaks: p.append(peak_of(c)))
        found[f"{name}_peak"] = peaks[0]
    for path in (release, back):
        shutil.rmtree(path)
    return found


def forget(folder: Path) -> None:
    """Lets the system drop what it keeps of the folder's files, so that all read from the disk."""
    os.sync()
    for path in folder.iterdir():
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def seconds(work) -> float:
    """Of `work` until its bytes are on the disk."""
    os.sync()
    began = time.monotonic()
    work()
    os.sync()
    return time.monotonic() - began


def peak_of(command: Sequence[str]) -> int:
    """Runs `command`; the highest RssAnon that was seen, 50 times a second."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    highest = [0]

    def watch() -> None:
        while process.poll() is None:
            highest[0] = max(highest[0], counters.memory("RssAnon", process.pid))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    watcher.join()
    if status:
        raise RuntimeError(f"{' '.join(command)} exited with {status}")
    return highest[0]


def table(size: int, rounds: Sequence[dict[str, float]]) -> str:
    """Markdown: medians over the rounds; ratios are of the same round."""
    rows = []
    for name in ("copy", "from_torch", "to_torch"):
        times = [row[f"{name}_seconds"] for row in rounds]
        ratios = [row["copy_seconds"] / row[f"{name}_seconds"] for row in rounds]
        peaks = [row.get(f"{name}_peak", 0) for row in rounds]
        rows.append(
            [
                name,
                f"{size / 1e9:.2f} GB",
                f"{statistics.median(times):.1f} s",
                f"{statistics.median(ratios):.0%}",
                f"{max(peaks) / 1e9:.2f} GB" if max(peaks) else "",
            ]
        )
    heads = ["", "checkpoint", "time", "of the copy's rate", "anonymous memory, peak"]
    return pages.table(heads, rows)


if __name__ == "__main__":
    main()
