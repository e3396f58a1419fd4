"""Trains: `python -m realisvsr_jax.train --config configs/tiny.py --workdir RUN`.

The same command goes on with a run that was stopped; on a finished one it prints the hash of the
state again. `--config.optimizer.learning_rate=1e-4` and the like override the file.
"""

import logging
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, report

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, such as configs/tiny.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "RUN folder: checkpoints, losses, pictures.")
EXPORT = flags.DEFINE_string("export", None, "Write the averaged weights as this release folder.")


def main() -> None:
    """Reads the flags, then trains."""
    if CONFIG.value is None or WORKDIR.value is None:
        raise InputError("give --config configs/NAME.py and --workdir RUN")
    from realisvsr_jax import settings
    from realisvsr_jax.training import run
    from realisvsr_jax.training.settings import TrainingConfig

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    config = settings.from_mapping(TrainingConfig, CONFIG.value.to_dict())
    if EXPORT.value and Path(EXPORT.value).exists():
        raise InputError(f"--export {EXPORT.value} exists; name a new folder")
    digest = run.train(config, Path(WORKDIR.value), Path(EXPORT.value) if EXPORT.value else None)
    sys.stdout.write(f"state sha256 {digest}\n")


def run() -> None:
    """The console script."""
    try:
        flags.FLAGS(sys.argv)
    except (flags.Error, AttributeError, KeyError) as error:
        # ml_collections names the nearest key itself, on a line of its own.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.stderr.write(f"error: {' '.join(lines)}\n")
        sys.exit(1)
    sys.exit(report(main))


if __name__ == "__main__":
    run()
