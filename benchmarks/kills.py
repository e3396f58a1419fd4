"""Kills a training run again and again and compares what comes out with an undisturbed one.

    python -m benchmarks.kills --kills 20 --output out/kills

Trains `configs/smoke.py` with 2 data workers, once undisturbed, then with SIGKILL while it
starts, between steps and during saves, each time starting the same command again; a run that ends
makes place for another until all kills are spent. The hash of parameters, moments and average and
every logged loss must be the undisturbed run's, a checkpoint that a kill cut off must never be
picked, and no worker may live on. Writes kills.json and kills.md; the exit status is 1 if anything
differs.
"""

import argparse
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from realisvsr_jax.evals import pages

KINDS = ("step", "save", "start")
DEADLINE = 300.0  # seconds until a start must have come to where it is to be killed


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill. Steps are counted as in metrics.jsonl; `cut_off` are saves that it left behind."""

    run: str
    kind: str
    seconds: float
    logged: int
    checkpoint: int
    cut_off: int
    workers: int
    workers_left: int


def main() -> None:
    """Reads the command line, trains, kills, compares and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--output", type=Path, default=Path("out/kills"), help="a new folder")
    parser.add_argument("--write", action="store_true", help="the table of docs/training.md")
    flags = parser.parse_args()
    flags.output.mkdir(parents=True)
    options = (f"--config.steps={flags.steps}", "--config.log.preview_every=0")
    digest, kills, problems = trial(
        flags.output, options, kills=flags.kills, rng=random.Random(flags.seed), say=print
    )
    report = {"hash": digest, "problems": problems, "kills": [dataclasses.asdict(k) for k in kills]}
    (flags.output / "kills.json").write_text(json.dumps(report, indent=1) + "\n")
    result = f"{len(kills)} kills, {len(problems)} differences; state sha256 `{digest}`"
    page = f"{table(kills)}\n{result}\n"
    (flags.output / "kills.md").write_text(page)
    if flags.write:
        pages.replace_between(Path("docs/training.md"), "kills", page)
    print(result)
    sys.exit("\n".join(problems) if problems else 0)


def trial(
    folder: Path, options: Sequence[str], *, kills: int, rng: random.Random, say=lambda _: None
) -> tuple[str, list[Kill], list[str]]:
    """The undisturbed run's hash, what was killed, and every difference that was found."""
    whole, _ = finish(folder / "whole", options)
    expected = losses(folder / "whole")
    done: list[Kill] = []
    problems: list[str] = []
    number = 0
    while len(done) < kills:
        number += 1
        run = folder / f"killed-{number}"
        ended = False
        while len(done) < kills and not ended:
            kill = start_and_kill(run, options, KINDS[len(done) % len(KINDS)], rng)
            if kill is None:
                ended = True
                continue
            done.append(kill)
            say(f"kill {len(done)}: {kill}")
            if kill.workers_left:
                problems.append(f"{run}: {kill.workers_left} workers live on")
        digest, _ = finish(run, options)
        say(f"{run}: {digest}")
        if digest != whole:
            problems.append(f"{run}: hash {digest}, undisturbed {whole}")
        problems += differences(run, expected)
    return whole, done, problems


def command(run: Path, options: Sequence[str]) -> list[str]:
    """The training command, with saves often enough to be hit."""
    program = [sys.executable, "-m", "realisvsr_jax.train", "--config", "configs/smoke.py"]
    workers = ["--config.data.workers=2", "--config.log.save_every=2"]
    return [*program, "--workdir", str(run), *workers, *options]


def finish(run: Path, options: Sequence[str]) -> tuple[str, str]:
    """Trains to the end; the hash it prints, and its stderr."""
    ended = subprocess.run(command(run, options), capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    return ended.stdout.split()[-1], ended.stderr


def start_and_kill(run: Path, options: Sequence[str], kind: str, rng: random.Random) -> Kill | None:
    """Starts the run and kills it at an instant of `kind`; None where it ended before that."""
    began = time.monotonic()
    before = len(lines(run))
    training = subprocess.Popen(
        command(run, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    steps, delay = rng.randint(1, 8), rng.uniform(0.0, 0.3)
    startup = rng.uniform(0.5, 8.0)
    while training.poll() is None and time.monotonic() - began < DEADLINE:
        if kind == "start" and time.monotonic() - began > startup:
            break
        if kind == "step" and len(lines(run)) >= before + steps:
            time.sleep(delay)
            break
        if kind == "save" and len(lines(run)) > before and unfinished(run):
            break
        time.sleep(0.001 if kind == "save" else 0.02)
    if training.poll() is not None:
        return None
    workers = descendants(training.pid)
    training.kill()
    training.wait()
    return Kill(
        run.name,
        kind,
        round(time.monotonic() - began, 1),
        len({json.loads(line)["step"] for line in lines(run)}),
        max(steps_saved(run), default=0),
        len(unfinished(run)),
        len(workers),
        len(still_alive(workers)),
    )


def lines(run: Path) -> list[str]:
    """What is whole of metrics.jsonl."""
    path = run / "metrics.jsonl"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def losses(run: Path) -> dict[int, str]:
    """The line of every step."""
    return {json.loads(line)["step"]: line for line in lines(run)}


def differences(run: Path, expected: dict[int, str]) -> list[str]:
    """Every logged line that the undisturbed run does not have, and every step not logged."""
    found = [
        f"{run}: {line}" for line in lines(run) if expected.get(json.loads(line)["step"]) != line
    ]
    missing = sorted(expected.keys() - losses(run).keys())
    return found + [f"{run}: step {step} was never logged" for step in missing]


def steps_saved(run: Path) -> list[int]:
    """Steps of complete checkpoints."""
    folder = run / "checkpoints"
    return [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []


def unfinished(run: Path) -> list[str]:
    """Names of checkpoints under way, or cut off."""
    folder = run / "checkpoints"
    if not folder.exists():
        return []
    return [name for name in os.listdir(folder) if "tmp" in name]


def descendants(pid: int) -> list[int]:
    """Processes under `pid`, from /proc; its own threads not counted."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def still_alive(pids: Sequence[int], patience: float = 10.0) -> list[int]:
    """Those of `pids` that live on after `patience` seconds; a zombie does not."""
    until = time.monotonic() + patience
    while True:
        alive = [pid for pid in pids if _state(pid) not in ("", "Z")]
        if not alive or time.monotonic() > until:
            return alive
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def table(kills: Sequence[Kill]) -> str:
    """Markdown, a row a kill."""
    names = [field.name for field in dataclasses.fields(Kill)]
    heads = ["kill", *(name.replace("_", " ") for name in names)]
    rows = [[str(i), *(str(getattr(kill, n)) for n in names)] for i, kill in enumerate(kills, 1)]
    return pages.table(heads, rows)


if __name__ == "__main__":
    main()
