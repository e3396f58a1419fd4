"""What the metrics of a clip cost: frames a second of each by itself, and the most memory.

    python -m benchmarks.metrics --output out/metrics
    python -m benchmarks.metrics --size 2160x3840 --frames 1 --metrics lpips_alex,dists

Each metric has a process of its own, in which it is given one frame more than is counted: the
first one compiles. The frames are the tests' footage, enlarged, against the same with noise.
Medians over the frames. Leaves metrics.json and metrics.md.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realisvsr_jax.errors import plain_messages
from realisvsr_jax.evals import columns, pages
from realisvsr_jax.evals.columns import DOVER, METRICS, PYIQA
from realisvsr_jax.evals.footage import Footage, Pair
from realisvsr_jax.evals.meters import CHANGES, SHIFT, meters_of
from realisvsr_jax.files import replacing
from realisvsr_jax.video import read_video

FOOTAGE = Path(__file__).parents[1] / "tests" / "footage" / "squirrel.mp4"
OWN = [name for name, metric in METRICS.items() if metric.needs not in (PYIQA, DOVER)]


def main() -> None:
    """Reads the command line, measures, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/metrics"), help="a folder")
    parser.add_argument("--size", default="1080x1920", help="H×W of a frame")
    parser.add_argument("--frames", type=int, default=5, help="that are counted")
    parser.add_argument("--metrics", default=",".join([*OWN, SHIFT]), help="names, by commas")
    flags = parser.parse_args()
    plain_messages()
    height, width = map(int, flags.size.split("x"))
    rows = []
    for name in flags.metrics.split(","):
        # A fresh process, so that its peak of memory is the metric's own.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(pool.submit(measure, name, height, width, flags.frames).result())
        print(json.dumps(rows[-1]), flush=True)
    found = {"size": flags.size, "cores": os.cpu_count(), "rows": rows}
    cells = [
        [label(row["metric"]), f"{1 / row['seconds']:.3g}", f"{row['gib']:.1f}"] for row in rows
    ]
    heads = [f"metric, {width}×{height}", "frames a second", "GiB at most"]
    table = pages.table(heads, cells)
    flags.output.mkdir(parents=True, exist_ok=True)
    for file, text in (("metrics.json", json.dumps(found, indent=1) + "\n"), ("metrics.md", table)):
        with replacing(flags.output / file) as partial:
            partial.write_text(text)
    print(table)


def measure(name: str, height: int, width: int, count: int) -> dict[str, Any]:
    """Seconds a frame, and the most memory that the process had."""
    rng = np.random.default_rng(0)
    wanted = CHANGES if name == "flicker" else name
    footage = Footage(FOOTAGE, count + 1, height, width, False, "", "")
    (meter,) = meters_of(Pair(footage, footage), [wanted], {})
    seconds = []
    for frame in read_video(FOOTAGE, 0, count + 1).frames:
        truth = cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, 8, truth.shape).astype(np.float32)
        restored = np.clip(truth + noise, 0, 255).astype(np.uint8)
        began = time.perf_counter()
        meter.add(restored, truth)
        seconds.append(time.perf_counter() - began)
    meter.found()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"metric": name, "seconds": float(np.median(seconds[1:])), "gib": peak}


def label(name: str) -> str:
    """A metric as the tables call it."""
    if name not in METRICS:
        return name
    column = columns.METRICS[name]
    return f"{column.label} ({column.detail})"


if __name__ == "__main__":
    main()
