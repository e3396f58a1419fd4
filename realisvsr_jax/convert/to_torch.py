"""A RUN or release for PyTorch: `python -m convert.to_torch --input DIR --output DIR --format wan`.

`wan` is the layout of the original Wan2.1 release, `diffusers` that of WanPipeline. The control
branch and γ, which neither has, go into realisvsr_cpc.safetensors; docs/checkpoints.md has its
layout. `python -m convert.from_torch` reads all of it back.
"""

import logging
from pathlib import Path
from typing import Any

from absl import flags

from realisvsr_jax.errors import InputError, program

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("input", None, "A RUN (its averaged weights) or a release folder.", **_here)
flags.DEFINE_string("output", None, "The folder to write.", **_here)
flags.DEFINE_enum("format", None, ["wan", "diffusers"], "Names and layout.", **_here)
flags.DEFINE_bool("overwrite", False, "Replace an output that exists.", **_here)


def main() -> None:
    """Exports."""
    if FLAGS.input is None or FLAGS.output is None or FLAGS.format is None:
        raise InputError("give --input RUN_OR_RELEASE, --output DIR and --format wan or diffusers")
    from realisvsr_jax.weights import exporting
    from realisvsr_jax.weights.release import RUN_FILE, check_output

    source, folder = Path(FLAGS.input), Path(FLAGS.output)
    option = ", or give --overwrite"
    check_output(folder, FLAGS.overwrite, exporting.EXPORT, source, option)
    if (source / RUN_FILE).is_file():
        from realisvsr_jax.training.checkpoint import load_run

        weights = exporting.as_parts(load_run(source))
    else:
        weights = exporting.read_release(source)
    exporting.export(weights, folder, FLAGS.format, FLAGS.overwrite)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        log.info("%s  %.1f MB", path, path.stat().st_size / 1e6)


def run() -> None:
    """The console script `realisvsr-to-torch`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
