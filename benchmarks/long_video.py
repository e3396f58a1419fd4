"""A long video through `upscale`: memory at 100 and 1,000 frames, two kills, the same bytes.

    python -m benchmarks.long_video --output out/long_video

The shipped weights, 32² enlarged to 128², 4 steps, a clip with sound. Each run is a process of its
own, in which a thread reads the anonymous memory (RssAnon) every 10 ms, and each step of the
sampler adds up the arrays that live on the device; peaks are given of the whole run and of what
follows its third window, since compiling takes more than restoring. Then the longer clip is
restored again, killed with SIGKILL at a third and at two thirds, and resumed. Writes
long_video.json; the exit status is 1 where the bytes differ or memory grows by more than 5%.
"""

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks import counters

LIMIT = 1.05  # of the shorter clip's peak
SIDE, SCALE = 32, 4


def main() -> None:
    """Reads the command line, measures, kills and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/long_video"), help="a new folder")
    parser.add_argument("--frames", type=int, nargs=2, default=[100, 1000])
    parser.add_argument("--window", type=int, default=25, help="frames")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        print(json.dumps(measured(flags.worker)))
        return
    flags.output.mkdir(parents=True)
    options = ["--window", str(flags.window), "--steps", str(flags.steps), "--scale", str(SCALE)]
    found: dict[str, Any] = {"window": flags.window, "steps": flags.steps, "runs": []}
    for count in flags.frames:
        make_clip(flags.output / f"{count}.mp4", count)
        line = arguments(flags.output, count, f"whole{count}.mp4", options)
        found["runs"].append({"frames": count, **run(line)})
        print(json.dumps(found["runs"][-1]))
    short, long = found["runs"]
    found["growth"] = {key: long[key] / short[key] for key in short if key.endswith("bytes")}
    found["killed"] = killed(flags.output, flags.frames[1], options)
    (flags.output / "long_video.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({"growth": found["growth"], "killed": found["killed"]}, indent=1))
    grown = max(found["growth"].values()) > LIMIT
    sys.exit(int(grown or not found["killed"]["identical"]))


def arguments(folder: Path, count: int, name: str, options: list[str]) -> list[str]:
    """The command line of one restoration."""
    return ["--input", str(folder / f"{count}.mp4"), "--output", str(folder / name), *options]


def make_clip(path: Path, count: int) -> None:
    """Squares that move over noise, and a tone."""
    random = np.random.default_rng(0)
    ground = random.integers(60, 180, (SIDE, SIDE, 3), np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        tone: Any = output.add_stream("aac", rate=48_000)
        for k in range(count):
            picture = ground.copy()
            picture[k % 20 : k % 20 + 9, (3 * k // 2) % 22 : (3 * k // 2) % 22 + 9] = (230, 90, 40)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        wave = np.sin(np.arange(1920 * count) * 2 * np.pi * 440 / 48_000).astype(np.float32)
        for first in range(0, wave.size, 1024):
            piece = wave[None, first : first + 1024].repeat(2, 0)
            sound = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            sound.rate, sound.pts, sound.time_base = 48_000, first, Fraction(1, 48_000)
            output.mux(tone.encode(sound))
        output.mux(tone.encode(None))


def command(line: list[str]) -> list[str]:
    """This program, measuring one restoration."""
    return [sys.executable, "-m", "benchmarks.long_video", "--worker", "upscale", *line]


def run(line: list[str]) -> dict[str, Any]:
    """One restoration in a process of its own."""
    line = [argument.replace("--", "++") for argument in line]
    ended = subprocess.run(command(line), capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    return json.loads(ended.stdout.splitlines()[-1])


def measured(line: list[str]) -> dict[str, Any]:
    """What a restoration in this process takes; `line` is `upscale` and its flags."""
    import jax

    from realisvsr_jax import upscale
    from realisvsr_jax.jobs.single import restore_file

    upscale.FLAGS([argument.replace("++", "--") for argument in line])
    peaks = {"anonymous": [0, 0], "device": [0, 0]}
    windows, ended = [0.0], threading.Event()

    def note(kind: str, count: int) -> None:
        steady = int(windows[0] >= 3)
        peaks[kind][0] = max(peaks[kind][0], count)
        peaks[kind][1] = max(peaks[kind][1], count * steady)

    def watch() -> None:
        while not ended.wait(0.01):
            note("anonymous", counters.memory("RssAnon"))

    def progress(stage: str, done: float, total: int | None) -> None:
        if stage == "restoring":
            windows[0] = done / max(upscale.FLAGS.window, 1)
            note("device", sum(array.nbytes for array in jax.live_arrays()))

    threading.Thread(target=watch, daemon=True).start()
    request, weights = upscale._request()
    report = restore_file(request, weights, progress=progress)
    ended.set()
    stages = vars(report.stages)
    return {
        "seconds": report.seconds,
        "stages": stages,
        "waiting": (stages["decode"] + stages["save"]) / stages["restore"],
        **{f"{kind}_peak_bytes": peak[0] for kind, peak in peaks.items()},
        **{f"{kind}_steady_bytes": peak[1] for kind, peak in peaks.items()},
    }


def killed(folder: Path, count: int, options: list[str]) -> dict[str, Any]:
    """The longer clip, killed twice and resumed, against the one that was left alone."""
    line = arguments(folder, count, "killed.mp4", options)
    lines = folder / ".killed.mp4.job" / "windows.jsonl"
    windows, kills = -(-count // int(options[1])), []
    for share in (1 / 3, 2 / 3):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "realisvsr_jax.upscale",
                *line,
                *(["--resume"] if kills else []),
            ],
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and written(lines) < share * windows:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills.append(written(lines))
    report = run([*line, "--resume"])
    same = (folder / "killed.mp4").read_bytes() == (folder / f"whole{count}.mp4").read_bytes()
    return {"windows_done_at_kills": kills, "resumed_seconds": report["seconds"], "identical": same}


def written(lines: Path) -> int:
    """Windows that are done."""
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


if __name__ == "__main__":
    main()
