"""Makes training pairs ahead: `python -m realisvsr_jax.precompute --config FILE --output FOLDER`.

For small models, whose steps are shorter than the making of their data. The pairs are those of
the configuration's `data` section, which must have one bucket; with `--vae RELEASE` their
latents are stored instead, and a training step pays for no VAE. `precomputed = FOLDER` in a
configuration reads them. The same command goes on where it was stopped.
"""

import logging
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, run_flags

FLAGS = flags.FLAGS
CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, such as configs/tiny.py.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the shards.")
CLIPS = flags.DEFINE_integer("clips", 4096, "How many pairs.", 1)
SHARD = flags.DEFINE_integer("shard", 256, "Pairs a shard.", 1)
VAE = flags.DEFINE_string("vae", None, "A release; its VAE's latents are stored, not pixels.")


def main() -> None:
    """Reads the flags, then makes the shards that are missing."""
    if CONFIG.value is None or OUTPUT.value is None:
        raise InputError("give --config configs/NAME.py and --output FOLDER")
    from tqdm import tqdm

    from realisvsr_jax import settings
    from realisvsr_jax.data import precomputed
    from realisvsr_jax.training.settings import TrainingConfig

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    config = settings.from_mapping(TrainingConfig, CONFIG.value.to_dict())
    transform = _latents_of(VAE.value) if VAE.value else None
    bar = tqdm(total=CLIPS.value, desc=str(OUTPUT.value), unit="pair")
    precomputed.make_shards(
        Path(OUTPUT.value), config.data, CLIPS.value, SHARD.value, transform, bar.update
    )
    bar.close()


def _latents_of(release: str):
    """A function from a batch of byte pairs to their latents, in float16."""
    import jax
    import numpy as np
    from flax import nnx

    from realisvsr_jax.training.networks import release_folder
    from realisvsr_jax.training.objectives import enlarged, to_float
    from realisvsr_jax.weights.release import load_vae

    graph, state = nnx.split(load_vae(release_folder(release)))

    @jax.jit
    def encode(batch):
        vae = nnx.merge(graph, state)
        return vae.encode(to_float(batch["gt"])), vae.encode(enlarged(batch))

    def transform(batch):
        gt, lq = encode(batch)
        return {"gt_latent": np.float16(gt), "lq_latent": np.float16(lq)}

    return transform


def run() -> None:
    """The console script."""
    sys.exit(run_flags(main))


if __name__ == "__main__":
    run()
