"""Packs clips into records: `python -m realisvsr_jax.data.pack --input VIDEOS --output RECORDS`.

Videos stay encoded as they are, folders of frames keep their pictures; captions go with them.
RECORDS is then a folder for `data.sources` (docs/data.md). What cannot be read, and what is there
twice, is left out and named. The same command goes on where it was stopped.
"""

import logging
import re
from pathlib import Path
from typing import Any

from absl import flags

from realisvsr_jax.errors import InputError, Stopped, program
from realisvsr_jax.progress import over_clips

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
flags.DEFINE_string("input", None, "A folder of videos and of folders of frames.", **_here)
flags.DEFINE_string("output", None, "The folder for the records.", **_here)
flags.DEFINE_string("shard", "1GB", "Clips a shard, as 1000, or bytes, as 512MB.", **_here)
flags.DEFINE_integer("workers", None, "Clips at a time; as there are cores if absent.", 1, **_here)
flags.DEFINE_bool("keep_duplicates", False, "Keep clips that are there twice.", **_here)
flags.DEFINE_string("verify", None, "Records to compare with their checksums alone.", **_here)
flags.DEFINE_bool("overwrite", False, "Pack anew in place of what is there.", **_here)


def main() -> None:
    """Packs what the flags say."""
    if FLAGS.verify is not None:
        return _verify(Path(FLAGS.verify))
    if FLAGS.input is None or FLAGS.output is None:
        raise InputError("give --input VIDEOS and --output RECORDS, or --verify RECORDS")
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from realisvsr_jax.data.packing import Options, pack

    clips, size = shard_limit(FLAGS.shard)
    options = Options(clips, size, FLAGS.keep_duplicates, FLAGS.workers)
    bars: dict[str, Any] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm(desc=stage, total=total, unit=" clips")
        bars[stage].update(done - bars[stage].n)

    try:
        with logging_redirect_tqdm():
            manifest = pack(
                *(Path(FLAGS.input), Path(FLAGS.output), options),
                overwrite=FLAGS.overwrite,
                progress=progress,
            )
    except KeyboardInterrupt as stop:
        raise Stopped("stopped; what is done is kept, the same command goes on") from stop
    finally:
        for bar in bars.values():
            bar.close()
    _say(manifest, Path(FLAGS.output))


def shard_limit(text: str) -> tuple[int | None, int | None]:
    """Clips or bytes of a shard from --shard; the other is None."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt]?)b)?", text.strip().lower())
    if found is not None and found[2] is None and found[1].isdigit() and int(found[1]):
        return int(found[1]), None
    if found is not None and found[2] is not None and float(found[1]):
        return None, int(float(found[1]) * 1000 ** ("", "k", "m", "g", "t").index(found[2]))
    raise InputError(f"--shard is {text!r}; give clips, as 1000, or bytes, as 512MB")


def _verify(folder: Path) -> None:
    from realisvsr_jax.data.records import verify

    for name in ("input", "output"):
        if FLAGS[name].present:
            raise InputError(f"--verify only reads records; leave --{name} out")
    with over_clips(kept="nothing was written") as progress:
        count = verify(folder, progress)
    log.info("%s: %d clips, all as they were packed", folder, count)


def _say(manifest: dict[str, Any], folder: Path) -> None:
    """The last lines; raises InputError where something could not be read."""
    from realisvsr_jax.data.records import MANIFEST

    total = sum(shard["bytes"] for shard in manifest["shards"])
    log.info(
        "%s: %d clips in %d shards, %.1f MB",
        *(folder, manifest["clips"], len(manifest["shards"]), total / 1e6),
    )
    repeated = [entry for entry in manifest["left_out"] if "same_as" in entry]
    if repeated:
        log.info(
            "left out: %d that are there twice, such as %s, which is %s; --keep_duplicates "
            "keeps them",
            *(len(repeated), repeated[0]["name"], repeated[0]["same_as"]),
        )
    if lost := [entry for entry in repeated if "caption" in entry]:
        log.warning(
            "captions that are left out with them: %d, such as that of %s; %s has their texts",
            *(len(lost), lost[0]["name"], folder / MANIFEST),
        )
    failed = len(manifest["left_out"]) - len(repeated)
    if failed:
        raise InputError(
            f"{failed} of {manifest['inputs']} clips cannot be read and are left out; "
            f"{folder / MANIFEST} says why"
        )


def run() -> None:
    """The console script `realisvsr-pack`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
