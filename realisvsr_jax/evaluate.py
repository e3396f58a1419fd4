"""Scores restored clips against their ground truth, and shows them.

    python -m realisvsr_jax.evaluate --restored DIR --reference GT_DIR --output report/

Several systems stand side by side (`--restored ours=DIR --restored bicubic=DIR2`). Writes a page
that opens from the disk (index.html), tables as the paper prints them (table.md, table.tex), and
scores by clip (scores.json, scores.csv); docs/evaluation.md says what each number is. Without
--reference only what needs none is scored. The same command goes on where it was stopped.

    python -m realisvsr_jax.evaluate --config configs/eval_reds.py --config.truth=GT --output DIR

makes a benchmark from its ground truth on: degrades it, restores it and scores that (DIR/report).
"""

import logging
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, program
from realisvsr_jax.evals.columns import DEFAULT, GROUPS, METRICS, chosen, default
from realisvsr_jax.progress import over_clips

log = logging.getLogger(__name__)

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
config_flags.DEFINE_config_file("config", None, "A benchmark, as configs/eval_reds.py.", **_here)
flags.DEFINE_multi_string(
    "restored", [], "A system's folder of clips, or NAME=FOLDER; several times.", **_here
)
flags.DEFINE_string("reference", None, "The folder of ground truth, if there is one.", **_here)
flags.DEFINE_string("output", None, "The report's folder.", **_here)
flags.DEFINE_list(
    "metrics",
    list(DEFAULT),
    f"What is scored: {', '.join(METRICS)}; or {', '.join(GROUPS)}. Without a reference, those of "
    "the default that need none.",
    **_here,
)
flags.DEFINE_list("clips", [], "Some of the clips by name; all if absent.", **_here)
flags.DEFINE_string("layout", None, "The set's name, as in realisvsr_jax.degrade.", **_here)
flags.DEFINE_string("title", None, "Of the tables; the layout or folder if absent.", **_here)
flags.DEFINE_bool(
    "upscale_bicubic", False, "Enlarge what is smaller than the reference; it is marked.", **_here
)
flags.DEFINE_integer(
    "mod_crop",
    1,
    "Crop the reference, and clips as large, to sides that are multiples of it.",
    1,
    **_here,
)
flags.DEFINE_string("pyiqa", None, "A Python with pyiqa, for musiq and clipiqa.", **_here)
flags.DEFINE_string("dover", None, "PYTHON:FOLDER, the clone of DOVER, for dover….", **_here)
flags.DEFINE_string("flow", "dis", "Of ewarp: OpenCV's DIS.", **_here)
flags.DEFINE_integer(
    "window", None, "Frames of the restoration's windows, for flicker.", 2, **_here
)
flags.DEFINE_integer("window_overlap", 0, "Frames that they share.", 0, **_here)
flags.DEFINE_float("row", 0.5, "Of the temporal profile: 0 is the top, 1 the bottom.", **_here)
flags.DEFINE_bool("pictures", True, "Pictures in the page.", **_here)


def main() -> None:
    """Scores what the flags say."""
    if not (FLAGS.output and (FLAGS.restored or FLAGS.config)):
        raise InputError("give --restored DIR (or NAME=DIR, several times) and --output REPORT")
    from realisvsr_jax.evals.comparison import Settings, compare
    from realisvsr_jax.evals.tables import markdown
    from realisvsr_jax.evals.temporal import flow_named
    from realisvsr_jax.evals.written import check_output, write

    flow_named(FLAGS.flow)
    systems, mod_crop = named(FLAGS.restored), FLAGS.mod_crop
    output = Path(FLAGS.output)
    reference = Path(FLAGS.reference) if FLAGS.reference else None
    if FLAGS.config is not None:
        reference, systems, mod_crop = _benchmark(systems)
        output = output / "report"
    names = ("upscale_bicubic", "pyiqa", "dover", "window", "window_overlap", "layout", "pictures")
    same: dict[str, Any] = {name: FLAGS[name].value for name in names}
    settings = Settings(
        metrics=chosen(FLAGS.metrics if FLAGS["metrics"].present else default(reference)),
        clips=tuple(FLAGS.clips),
        mod_crop=mod_crop,
        row=FLAGS.row,
        title=FLAGS.title,
        **same,
    )
    check_output(output, [*systems.values(), *([reference] if reference else [])])
    with over_clips(kept="finished clips' scores are kept") as progress:
        found = compare(systems, reference, output, settings, progress)
    write(found, output)
    log.info("%s", markdown(found))
    log.info("%s", output / "index.html")


def _benchmark(given: dict[str, Path]) -> tuple[Path | None, dict[str, Path], int]:
    """Reference, systems and scale of --config, once they are made; `given` ones stand beside."""
    from realisvsr_jax import settings
    from realisvsr_jax.evals.benchmark import BenchmarkConfig, prepare

    for name in ("reference", "layout", "mod_crop"):
        if FLAGS[name].present:
            raise InputError(f"--config decides the {name}; leave --{name} out")
    config = settings.from_config(BenchmarkConfig, FLAGS.config.to_dict(), "evaluation")
    if twice := given.keys() & {config.ours, *config.baselines}:
        raise InputError(f"--restored: {min(twice)} is a system of --config; name it otherwise")
    made = prepare(config, Path(FLAGS.output))
    return made.reference, {**made.restored, **given}, made.scale


def named(restored: list[str]) -> dict[str, Path]:
    """NAME=FOLDER, or a folder with its own name; raises InputError for a name that comes twice."""
    systems: dict[str, Path] = {}
    for entry in restored:
        name, equals, folder = entry.partition("=")
        path = Path(folder if equals and not Path(entry).is_dir() else entry)
        name = name.strip() if path != Path(entry) else path.resolve().name
        if not name:
            raise InputError(f"--restored {entry!r}: the system has no name; write NAME=FOLDER")
        if name in systems:
            raise InputError(
                f"--restored: two systems are called {name!r}; name them, as a={systems[name]}"
            )
        systems[name] = path
    return systems


def run() -> None:
    """The console script `realisvsr-evaluate`."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
