"""Encodes prompts for training and upscaling: `python -m convert.encode_prompts`.

    python -m convert.encode_prompts --text_encoder PATH --prompts FILE --output cache.safetensors

PATH is a release, a Wan2.1 or diffusers folder, the encoder's own file, or a hub id. FILE has a
prompt a line, or is a JSON list, or a folder whose .txt files are captions. The empty prompt is
always encoded too. What the cache has already is kept and not encoded again; the encoder passes
through memory one layer at a time.
"""

import json
import logging
from pathlib import Path
from typing import Any

from absl import flags

from realisvsr_jax.errors import InputError, program

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("text_encoder", None, "Release, checkpoint or hub id.", **_here)
flags.DEFINE_string("tokenizer", None, "Folder of tokenizer.json, if not beside it.", **_here)
flags.DEFINE_string("prompts", None, "Lines, a JSON list, or a folder of .txt files.", **_here)
flags.DEFINE_string("output", None, "The cache to write or add to.", **_here)
flags.DEFINE_integer("text_length", 512, "Tokens after which prompts are cut.", 1, **_here)


def main() -> None:
    """Encodes."""
    if FLAGS.text_encoder is None or FLAGS.output is None:
        raise InputError("give --text_encoder PATH_OR_HUB_ID and --output cache.safetensors")
    from safetensors import SafetensorError
    from tqdm import tqdm

    from realisvsr_jax.files import replacing
    from realisvsr_jax.text.prompt_cache import PromptCache
    from realisvsr_jax.weights import importing, sources
    from realisvsr_jax.weights.release import check_writable

    output = Path(FLAGS.output)
    if output.is_dir():
        raise InputError(f"--output {output} is a folder; name a file, as cache.safetensors")
    check_writable(output)
    prompts = {"", *(read_prompts(Path(FLAGS.prompts)) if FLAGS.prompts else ())}
    path = sources.resolve(FLAGS.text_encoder)
    tokenizer = Path(FLAGS.tokenizer) if FLAGS.tokenizer else None
    encoder = importing.text_encoder(path, tokenizer, FLAGS.text_length)
    size = (FLAGS.text_length, encoder.config.d_model)
    cache = PromptCache.load(output, *size) if output.exists() else PromptCache({}, *size)
    cache.check_encoder(encoder.fingerprint, output)
    lacking = sorted(prompt for prompt in prompts if prompt not in cache)
    if lacking:
        with tqdm(desc="encoding", unit="layer") as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            cache = cache.joined(encoder.encode(lacking, advance), encoder.fingerprint)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with replacing(output) as partial:
                cache.save(partial)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{output} cannot be written: {error}") from error
    log.info("%s: %d prompts, %d of them new", output, len(cache.states), len(lacking))


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, a JSON list or a folder of captions, each of them once.

    Lines and captions are without white space at their ends. Raises InputError.
    """
    try:
        if path.is_dir():
            files = sorted(path.rglob("*.txt"))
            prompts = [file.read_text(encoding="utf-8").strip() for file in files]
        elif path.suffix == ".json":
            prompts = json.loads(path.read_text(encoding="utf-8"))
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            prompts = [line.strip() for line in lines]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError(f"{path} has to be a list of strings")
    if not prompts:
        raise InputError(f"{path} has no prompt in it")
    return list(dict.fromkeys(prompts))


def run() -> None:
    """The console script `realisvsr-encode-prompts`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
