"""Trains: `python -m realisvsr_jax.train --config configs/tiny.py --workdir RUN`.

The same command goes on with a run that was stopped; on a finished one it prints the hash of the
state again. `--config.optimizer.learning_rate=1e-4` and the like override the file.
"""

import logging
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, run_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, such as configs/tiny.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "RUN folder: checkpoints, losses, pictures.")
EXPORT = flags.DEFINE_string("export", None, "Write the averaged weights as this release folder.")


def main() -> None:
    """Reads the flags, then trains."""
    if CONFIG.value is None or WORKDIR.value is None:
        raise InputError("give --config configs/NAME.py and --workdir RUN")
    from realisvsr_jax import settings
    from realisvsr_jax.sampling.preview import preview_picture
    from realisvsr_jax.training import run
    from realisvsr_jax.training.settings import TrainingConfig

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    config = settings.from_mapping(TrainingConfig, CONFIG.value.to_dict())
    if EXPORT.value and Path(EXPORT.value).exists():
        raise InputError(f"--export {EXPORT.value} exists; name a new folder")
    export = Path(EXPORT.value) if EXPORT.value else None
    digest = run.train(config, Path(WORKDIR.value), export, preview_picture)
    sys.stdout.write(f"state sha256 {digest}\n")


def run() -> None:
    """The console script."""
    sys.exit(run_flags(main))


if __name__ == "__main__":
    run()
