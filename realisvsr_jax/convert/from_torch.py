"""A PyTorch checkpoint as a release: `python -m convert.from_torch --input PATH --output DIR`.

PATH is an original Wan2.1 folder, a diffusers folder, one file (.safetensors, .pth) or the id of
a model on the hub (owner/name). Everything in it that is part of Wan or RealisVSR is converted:
transformer (dit), VAE (vae), text encoder (text_encoder), control branch (cpc). Where the text
encoder is there with its tokenizer, the empty prompt is encoded at once.
"""

import logging
import time
from pathlib import Path
from typing import Any

from absl import flags

from realisvsr_jax.errors import InputError, program

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("input", None, "Folder, file or hub id (owner/name[@revision]).", **_here)
flags.DEFINE_string("output", None, "The release folder to write.", **_here)
flags.DEFINE_list("parts", None, "Of dit,vae,text_encoder,cpc; all that are there.", **_here)
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Stored type of the DiT's matrices.", **_here
)
flags.DEFINE_bool("overwrite", False, "Replace an output that exists.", **_here)


def main() -> None:
    """Converts."""
    if FLAGS.input is None or FLAGS.output is None:
        raise InputError("give --input PATH_OR_HUB_ID and --output DIR")
    from realisvsr_jax.weights import importing, sources
    from realisvsr_jax.weights.release import check_output

    began, folder, parts = time.monotonic(), Path(FLAGS.output), FLAGS.parts
    if parts is not None:
        sources.check_parts(parts)
    source = Path(FLAGS.input)
    check_output(folder, FLAGS.overwrite, source=source, option=", or give --overwrite")
    path = sources.resolve(FLAGS.input, text=parts is None or "text_encoder" in parts)
    if importing.is_release(path):
        raise InputError(f"{path} is a release already")
    card = importing.convert(
        path, folder, parts=parts, model_dtype=FLAGS.dtype, overwrite=FLAGS.overwrite
    )
    size = sum(file.stat().st_size for file in folder.rglob("*")) / 1e6
    log.info("%s: %.1f MB in %.1f s", folder, size, time.monotonic() - began)
    for line in importing.summary(card):
        log.info("  %s", line)


def run() -> None:
    """The console script `realisvsr-from-torch`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
