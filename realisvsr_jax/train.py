"""Trains: `python -m realisvsr_jax.train --config configs/tiny.py --workdir RUN`.

The same command goes on with a run that was stopped; on a finished one it prints the hash of the
state again. `--config.optimizer.learning_rate=1e-4` and the like override the file. On SIGTERM
it saves after the step under way and exits with 75. Several processes are one run where Slurm,
Open MPI, Kubernetes or a TPU slice starts them, or with --coordinator (docs/clusters.md).
"""

import os
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, program

FLAGS = flags.FlagValues()  # its own: other entry points have flags of the same names
_here: dict[str, Any] = {"flag_values": FLAGS}
config_flags.DEFINE_config_file("config", None, "Experiment, such as configs/tiny.py.", **_here)
flags.DEFINE_string("workdir", None, "RUN folder: checkpoints, losses, pictures.", **_here)
flags.DEFINE_string("export", None, "Write the averaged weights as this release folder.", **_here)
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.", **_here)
flags.DEFINE_integer("num_processes", None, "How many there are.", 1, **_here)
flags.DEFINE_integer("process_id", None, "Which one this is, from 0.", 0, **_here)
flags.DEFINE_integer(
    "initialization_timeout",
    300,
    "Seconds to wait for the others at first.",
    1,
    **_here,
)


def main() -> int:
    """Reads the flags, joins the other processes, then trains."""
    if FLAGS.config is None or FLAGS.workdir is None:
        raise InputError("give --config configs/NAME.py and --workdir RUN")
    from realisvsr_jax import supervisor

    if FLAGS.coordinator is None and not supervisor.is_announced(os.environ):
        return _one_of_all()
    return supervisor.supervised(
        _one_of_all, supervisor.not_all_came(FLAGS.coordinator, FLAGS.initialization_timeout)
    )


def _one_of_all() -> int:
    from realisvsr_jax import cluster

    cluster.join(
        FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id, FLAGS.initialization_timeout
    )
    return cluster.guarded(_until_terminated)


def _until_terminated() -> int:
    """The exit status."""
    from realisvsr_jax import cluster
    from realisvsr_jax.supervisor import EXIT_STATUS
    from realisvsr_jax.training.termination import Terminated, Termination

    try:
        with Termination() as termination:
            digest = _train(termination)
    except Terminated:
        sys.stderr.write("stopped by SIGTERM; the same command goes on\n")
        return EXIT_STATUS
    if cluster.is_first():
        sys.stdout.write(f"state sha256 {digest}\n")
    return 0


def _train(termination: Any) -> str:
    """The state's hash."""
    from realisvsr_jax.sampling.preview import preview_picture
    from realisvsr_jax.sampling.validation import Validator
    from realisvsr_jax.training import run
    from realisvsr_jax.training.settings import from_flag

    config = from_flag(FLAGS.config)
    export = Path(FLAGS.export) if FLAGS.export else None
    if export and export.absolute() == Path(FLAGS.workdir).absolute():
        raise InputError("--export and --workdir are the same folder; name another to export to")
    hooks = run.Hooks(preview_picture, Validator, termination)
    return run.train(config, Path(FLAGS.workdir), export, hooks)


def run() -> None:
    """The console script."""
    program(main, FLAGS)


if __name__ == "__main__":
    run()
