"""Table 3 at small size: baseline ControlNet, CPC, and the two high-frequency losses.

    python -m benchmarks.losses --output out/losses

Trains every row of configs/tiny_losses.py with three seeds; a seed gives all rows the same initial
weights, pairs, crops, noise and times. Each is scored on the same validation pairs, which are never
trained on, with the release's own sampler. Writes losses.md: means over seeds and clips, the
deviation between seeds, and the difference to CPC alone, paired by seed and clip, with its standard
error. What is trained or scored already is not done again.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from configs import tiny_losses
from realisvsr_jax import settings
from realisvsr_jax.errors import plain_messages, report
from realisvsr_jax.evals import pages
from realisvsr_jax.evals.ledger import Ledger
from realisvsr_jax.sampling.validation import Validator
from realisvsr_jax.training import batches, checkpoint, run
from realisvsr_jax.training.settings import TrainingConfig

REFERENCE = "cpc"
METRICS = {"psnr": ("PSNR, dB ↑", 3), "lpips": ("LPIPS ↓", 4)}
Table = dict[str, np.ndarray]
"""By metric, [seeds, clips]."""


def main() -> None:
    """Reads the command line, trains, scores and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/losses"), help="folder to fill")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=None, help="default: the configuration's")
    parser.add_argument("--write", action="store_true", help="the table of docs/training.md")
    flags = parser.parse_args()
    plain_messages()
    flags.output.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(flags.output / "scores.jsonl")
    found: dict[str, list[list[dict[str, float]]]] = {row: [] for row in tiny_losses.ROWS}
    for seed in range(flags.seeds):
        for row in tiny_losses.ROWS:
            config = configured(row, seed, flags.steps)
            folder = flags.output / f"{row}-{seed}-{config.steps}"
            of = (row, seed, config.steps)
            found[row].append(ledger.get(of, lambda c=config, f=folder: trained_scores(c, f)))
    tables = {
        row: {name: np.array([[clip[name] for clip in s] for s in seeds]) for name in METRICS}
        for row, seeds in found.items()
    }
    page = markdown(tables)
    (flags.output / "losses.md").write_text(page)
    if flags.write:
        pages.replace_between(Path("docs/training.md"), "losses", page)
    sys.stdout.write(page)


def configured(row: str, seed: int, steps: int | None) -> TrainingConfig:
    """The experiment of a row."""
    config = settings.from_mapping(TrainingConfig, tiny_losses.get_config(row).to_dict())
    return dataclasses.replace(config, seed=seed, steps=steps or config.steps)


def trained_scores(config: TrainingConfig, folder: Path) -> list[dict[str, float]]:
    """Trains in `folder`; the scores of every validation pair."""
    run.train(config, folder)
    release = checkpoint.load_run(folder)
    return Validator(batches.validation_batches(config, release)).rows(release)


def markdown(tables: dict[str, Table]) -> str:
    """A row a system; see the module's docstring."""
    heads = ["", *(head for name, _ in METRICS.values() for head in (name, f"to {REFERENCE}"))]
    lines = []
    for row, table in tables.items():
        cells: list[Any] = [row]
        for name, (_, decimals) in METRICS.items():
            of_seeds = table[name].mean(1)
            spread = of_seeds.std(ddof=1) if len(of_seeds) > 1 else 0.0
            cells.append(f"{of_seeds.mean():.{decimals}f} ± {spread:.{decimals}f}")
            pairs = (table[name] - tables[REFERENCE][name]).ravel()
            error = pairs.std(ddof=1) / len(pairs) ** 0.5
            difference = f"{pairs.mean():+.{decimals}f} ± {error:.{decimals}f}"
            cells.append("" if row == REFERENCE else difference)
        lines.append(cells)
    return pages.table(heads, lines)


if __name__ == "__main__":
    sys.exit(report(main))
