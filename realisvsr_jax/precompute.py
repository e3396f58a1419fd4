"""Makes training pairs ahead: `python -m realisvsr_jax.precompute --config FILE --output FOLDER`.

For small models, whose steps are shorter than the making of their data. The pairs are those of
the configuration's `data` section, which must have one bucket; with `--vae RELEASE` their
latents are stored instead, and a training step pays for no VAE. `precomputed = FOLDER` in a
configuration reads them. The same command goes on where it was stopped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, program

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
config_flags.DEFINE_config_file("config", None, "Experiment, such as configs/tiny.py.", **_here)
flags.DEFINE_string("output", None, "Folder for the shards.", **_here)
flags.DEFINE_integer("clips", 4096, "How many pairs.", 1, **_here)
flags.DEFINE_integer("shard", 256, "Pairs a shard.", 1, **_here)
flags.DEFINE_string("pairs", None, "Take stored pairs from this folder, make none.", **_here)
flags.DEFINE_string("vae", None, "A release; its VAE's latents are stored, not pixels.", **_here)


def main() -> None:
    """Reads the flags, then makes the shards that are missing."""
    if FLAGS.config is None or FLAGS.output is None:
        raise InputError("give --config configs/NAME.py and --output FOLDER")
    from tqdm import tqdm

    from realisvsr_jax.data import precomputed
    from realisvsr_jax.training.settings import from_flag

    config = from_flag(FLAGS.config)
    transform, vae = _latents_of(FLAGS.vae) if FLAGS.vae else (None, None)
    bar = tqdm(total=FLAGS.clips, desc=FLAGS.output, unit="pair")
    precomputed.make_shards(
        Path(FLAGS.output),
        config.data,
        FLAGS.clips,
        FLAGS.shard,
        transform,
        bar.update,
        FLAGS.pairs,
        vae,
    )
    bar.close()


def _latents_of(release: str) -> tuple[Callable[[dict[str, Any]], dict[str, Any]], str]:
    """A function from a batch of byte pairs to their latents, in float16; the weights' hash."""
    import jax
    import numpy as np
    from flax import nnx

    from realisvsr_jax.data import precomputed
    from realisvsr_jax.resize import to_float
    from realisvsr_jax.training.networks import weights_path
    from realisvsr_jax.training.objectives import enlarged
    from realisvsr_jax.weights.release import load_vae, release_hash

    folder = weights_path(release)
    graph, state = nnx.split(load_vae(folder))

    @jax.jit
    def encode(batch: dict[str, Any]) -> tuple[Any, Any]:
        vae = nnx.merge(graph, state)
        return vae.encode(to_float(batch["gt"])), vae.encode(enlarged(batch))

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        gt, lq = encode({name: batch[name] for name in precomputed.PIXELS})
        return dict(
            zip(precomputed.LATENTS, (np.asarray(gt, np.float16), np.asarray(lq, np.float16)))
        )

    return transform, release_hash(folder)


def run() -> None:
    """The console script."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
