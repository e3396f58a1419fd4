"""Ours against diffusers in PyTorch: DiT, DiT + CPC training step, VAE.

    python -m benchmarks.speed [--only NAME …] [--rounds 7] [--write]

Every side is a process of its own that stays up; each round runs all of them once, in turns of
another order, and gives one ratio of times. Weights and inputs are random and the same on both
sides, and the results have to agree before anything is timed. Leaves NAME.json for every case
and speed.md in the output folder; cases for a GPU run where JAX and PyTorch both see one.
"""

import argparse
import contextlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.speed import table
from benchmarks.speed.cases import CASES, Case, flops, named
from benchmarks.speed.worker import SIDES, Side, SideFailed
from realisvsr_jax.errors import InputError, plain_messages, report
from realisvsr_jax.evals import pages
from realisvsr_jax.files import replacing

log = logging.getLogger(__name__)

PAGE = Path("docs/speed.md")
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
SEE_GPU = "import jax, torch; assert torch.cuda.is_available(); jax.devices('gpu')"


def main() -> None:
    """Reads the command line, measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/speed"), help="folder to fill")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=None, help="cases to run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of each side, on a CPU")
    parser.add_argument(
        "--compile_limit", type=float, default=300.0, help="seconds; 0: without torch.compile"
    )
    parser.add_argument("--write", action="store_true", help="the table of docs/speed.md")
    flags = parser.parse_args()
    plain_messages()
    jax.config.update("jax_platforms", "cpu")  # this process only counts operations
    cases = chosen(flags.only)
    flags.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=flags.output) as scratch:
        for case in cases:
            found = measured(case, Path(scratch), flags)
            with replacing(flags.output / f"{case.name}.json") as partial:
                partial.write_text(json.dumps(found, indent=1) + "\n")
            log.info("%s: %s", case.name, table.verdict(case, found))
    page = table.page(results(flags.output))
    with replacing(flags.output / "speed.md") as partial:
        partial.write_text(page)
    if flags.write:
        pages.replace_between(PAGE, "speed", page)
    sys.stdout.write(page)


def chosen(names: Sequence[str] | None) -> list[Case]:
    """The cases to run; by default all that this machine can.

    Raises InputError for an unknown name, and for a GPU's case where there is none.
    """
    cases = [named(name) for name in names] if names else list(CASES)
    if not any(case.device == "gpu" for case in cases) or sees_gpu():
        return cases
    if names:
        raise InputError(
            "cases for a GPU need one that JAX and PyTorch both see: make setup ACCEL=gpu, and "
            "PyTorch with CUDA"
        )
    return [case for case in cases if case.device == "cpu"]


def sees_gpu() -> bool:
    """Asked in another process, which lets go of the card again."""
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run([sys.executable, "-c", SEE_GPU], capture_output=True).returncode == 0


def results(folder: Path) -> list[tuple[Case, dict[str, Any]]]:
    """What is in the folder, of this run and of those before, in the order of `CASES`."""
    files = [(case, folder / f"{case.name}.json") for case in CASES]
    return [(case, json.loads(path.read_text())) for case, path in files if path.exists()]


def measured(case: Case, scratch: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """One case: seconds of every side by round, peaks, and how far apart the results are.

    Raises SideFailed where ours or eager PyTorch does not run, or where they do not agree.
    """
    weights = scratch / f"{weights_name(case)}.safetensors"
    found: dict[str, Any] = {"machine": machine(), "load": [os.getloadavg()[0]], "flops": 0.0}
    found |= {"flops": flops(case), "threads": flags.threads, "sides": {}}
    with contextlib.ExitStack() as stack:
        up: list[Side] = []
        for name in ("eager", "ours", "compiled"):
            if name == "compiled" and not flags.compile_limit:
                found["sides"][name] = {"failed": "not asked for"}
                continue
            side = stack.enter_context(Side(name, case, weights, flags.threads))
            try:
                ready = side.ask("load", flags.compile_limit if name == "compiled" else None)
            except SideFailed as error:
                if name != "compiled":
                    raise SideFailed(f"{case.name}, {name}: {error}") from error
                found["sides"][name] = {"failed": str(error)}
                continue
            up.append(side)
            found["sides"][name] = {"device": ready["device"], "seconds": [], "cpu_seconds": []}
        found["difference"] = difference(case, up, scratch)
        for number in range(flags.rounds):
            turn = number % len(up)
            for side in (*up[turn:], *up[:turn]):
                answer, row = side.ask("run"), found["sides"][side.side]
                row["seconds"].append(answer["seconds"])
                row["cpu_seconds"].append(answer["cpu_seconds"])
                row["peak"] = answer["peak"]
    found["load"].append(os.getloadavg()[0])
    return found


def weights_name(case: Case) -> str:
    """Cases of one network share its weights."""
    if case.is_vae:
        return "vae"
    blocks = case.model.cpc.num_blocks if case.model.cpc else 0
    return f"dit-{case.model.dit.num_layers}-{blocks}"


def difference(case: Case, sides: Sequence[Side], scratch: Path) -> float:
    """The largest relative error of a side's results to eager PyTorch's.

    Raises SideFailed above the tolerance: then they do not do the same work.
    """
    files = {side.side: scratch / f"{side.side}.npz" for side in sides}
    for side in sides:
        side.ask(f"save {files[side.side]}")
    dtype = "float32" if case.is_vae else case.model.dit.dtype
    worst = 0.0
    with np.load(files["eager"]) as expected:
        for name, path in files.items():
            with np.load(path) as found:
                for key in expected.files:
                    error = relative(found[key], expected[key])
                    if not error <= TOLERANCE[dtype]:
                        raise SideFailed(f"{case.name}: {name}'s {key} is off by {error:.1e}")
                    worst = max(worst, error)
    return worst


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ in float64."""
    expected = expected.astype(np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def machine() -> str:
    """Processor and count; its name as Linux has it."""
    name = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    assert set(SIDES) == {"eager", "ours", "compiled"}
    sys.exit(report(main))
