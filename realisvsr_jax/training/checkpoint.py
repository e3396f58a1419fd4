"""A RUN folder: what was asked for, where the frozen parts are, and the trained state.

RUN/run.json       the configuration, the initial release and its hash, the code's commit
RUN/init/          the initial release, where the run drew or composed one
RUN/programs/      compiled programs, on an accelerator
RUN/checkpoints/   Orbax, one folder a step: parameters, moments, average, step
RUN/metrics.jsonl  one line a step
"""

import contextlib
import dataclasses
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from realisvsr_jax import cluster, settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.files import write_json
from realisvsr_jax.training import networks
from realisvsr_jax.training.settings import LogConfig, TrainingConfig
from realisvsr_jax.training.state import TrainState, init_state, make_optimizer, partition
from realisvsr_jax.weights.assembly import Placement
from realisvsr_jax.weights.release import (
    RUN_FILE,
    Release,
    is_release,
    load_release,
    release_hash,
    save_release,
)

PROGRAMS = "programs"
FETCHING = 4 * 3600.0  # seconds that the first process has for the initial weights, of several
# What may change between two starts of one run: none of it alters a step's result, but for
# the rounding of sums, whose order `mesh` and `accumulate` change.
MAY_CHANGE = (
    "log.",
    "data.workers",
    "release.",
    "sampler.",
    "validation.",
    "health.",
    "mesh.",
    "accumulate",
)


class Checkpoints:
    """Saves and restores `TrainState`; a save appears under its name only when complete.

    With `log`, the last `log.keep` stay, those at a multiple of `log.keep_every`, and the one
    with the best score. Without, it only reads, also beside a run that is saving.
    """

    def __init__(self, folder: Path, log: LogConfig | None = None):
        # On the CPU, a save in the background would read buffers that the next step reuses.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_kept(log) if log else None,
            best_fn=_score,  # without it, scores are not written
            enable_async_checkpointing=jax.default_backend() != "cpu",
            cleanup_tmp_directories=log is not None,
            create=log is not None,
            read_only=log is None,
        )
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self.manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the best score, or None where none has one."""
        found = {step: self.manager.metrics(step) for step in self.manager.all_steps()}
        scores = {step: _score(metrics) for step, metrics in found.items() if metrics}
        return max(scores, key=lambda step: scores[step]) if scores else None

    def save(self, state: TrainState, score: float | None = None) -> None:
        """Saves under the state's own step, unless it is there; the highest score is the best."""
        step = int(state.step)
        if step not in self.manager.all_steps():
            metrics = None if score is None else {"score": score}
            self.manager.save(step, args=ocp.args.StandardSave(_as_tree(state)), metrics=metrics)

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state of `step`, the newest if None; `like` gives shapes and types.

        Raises InputError if they differ.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_tree(like))
        step = self.latest_step() if step is None else step
        try:
            tree: Any = self.manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.manager.directory}: checkpoint {step} does not fit the configuration: "
                f"{reason}"
            ) from error
        return TrainState(**tree)

    def wait(self) -> None:
        """Returns when no save is under way."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a save under way."""
        self.wait()
        self.manager.close()


def _kept(log: LogConfig) -> policies.AnyPreservationPolicy:
    kept: list[Any] = [
        policies.LatestN(log.keep),
        policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False),
    ]
    if log.keep_every:
        kept.append(policies.EveryNSteps(log.keep_every))
    return policies.AnyPreservationPolicy(kept)


def _score(metrics: Any) -> float:
    return metrics["score"]


def _as_tree(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "ema": state.ema,
    }


def check_folder(folder: Path, config: TrainingConfig) -> None:
    """Raises InputError where no run with these settings can start or go on; writes nothing."""
    if (folder / RUN_FILE).exists():
        return check_same_settings(folder, config)
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise InputError(f"--workdir: {place} is a file; name a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--workdir: {place} may not be written; name another folder")
    # What a run leaves that is killed before run.json is there.
    left = {".init.partial", f".{RUN_FILE}.partial", PROGRAMS}
    left |= {"init"} if is_release(folder / "init") else set()
    others = sorted(set(os.listdir(folder)) - left) if place is folder else []
    if others:
        more = ", …" if len(others) > 3 else ""
        raise InputError(
            f"--workdir {folder} is no RUN: it has {', '.join(others[:3])}{more} in it, but no "
            f"{RUN_FILE}; name a new folder"
        )


def saved_steps(folder: Path) -> tuple[int | None, int | None]:
    """The newest checkpoint of a RUN, and the best one by validation; None where there is none."""
    if not (folder / "checkpoints").is_dir():
        return None, None
    checkpoints = Checkpoints(folder / "checkpoints")
    found = checkpoints.latest_step(), checkpoints.best_step()
    checkpoints.close()
    return found


def open_run(
    folder: Path,
    config: TrainingConfig,
    approve: Callable[[Release], None] = lambda _: None,
    placement: Placement | None = None,
) -> Release:
    """Starts a RUN folder, or goes on with one; returns the initial release.

    `approve` may raise, and then nothing is written. With `placement`, every process reads the
    parts of its own devices from what the first one wrote. Raises InputError as `check_folder`
    does.
    """
    check_folder(folder, config)
    cluster.wait_for_all("the check of the RUN folder")
    release = None
    if cluster.is_first() and not (folder / RUN_FILE).exists():
        with networks.on_host() if placement else contextlib.nullcontext():
            release = networks.initial_release(config)
            approve(release)
            _start(folder, config, release)
    cluster.wait_for_all("fetching and writing the initial weights", FETCHING)
    if release is None or placement:
        release = None  # before the same is read again
        release = _initial_release(folder, config, placement)
        approve(release)
    return release


def _start(folder: Path, config: TrainingConfig, release: Release) -> None:
    """Writes what makes `folder` a RUN."""
    folder.mkdir(parents=True, exist_ok=True)
    init = networks.weights_path(config.init).absolute() if config.init else None
    by_reference = not (config.init_vae or config.prompt_cache) and init and is_release(init)
    if not by_reference:
        init = folder / "init"
        save_release(init, release, overwrite=True)
    assert init is not None
    run = {
        "config": settings.to_mapping(config),
        "init": str(init) if by_reference else "init",
        "init_sha256": release_hash(init),
        "commit": commit(),
    }
    write_json(folder / RUN_FILE, run)


def read_run(folder: Path) -> dict[str, Any]:
    """The contents of run.json; raises InputError where there is none."""
    try:
        return json.loads((folder / RUN_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a RUN folder: {error}") from error


def check_same_settings(folder: Path, config: TrainingConfig) -> None:
    """Raises InputError naming the first setting that differs from the run's, and how many do."""
    was = settings.flatten(read_run(folder)["config"])
    now = settings.flatten(json.loads(json.dumps(settings.to_mapping(config))))
    changed = [
        name
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name) and not name.startswith(MAY_CHANGE)
    ]
    if changed:
        name, more = changed[0], len(changed) - 1
        others = f" (and {more} more)" if more else ""
        raise InputError(
            f"{folder} was started with {name} = {was.get(name)!r}, now it is {now.get(name)!r}"
            f"{others}; use another --workdir, or the run's own settings"
        )


def load_run(folder: str | Path) -> Release:
    """The networks of a RUN with its newest averaged (EMA) weights."""
    folder = Path(folder)
    config = settings.from_mapping(TrainingConfig, read_run(folder)["config"])
    if config.task == "vae":
        raise InputError(
            f"{folder} trained a VAE, whose latent statistics are measured at export: "
            "add --export DIR to its command and use DIR"
        )
    release = _initial_release(folder, config)
    saved = folder / "checkpoints"
    checkpoints = Checkpoints(saved) if saved.is_dir() else None
    if checkpoints is None or checkpoints.latest_step() is None:
        raise InputError(f"{folder} has no checkpoint yet")
    assert release.model is not None
    parts, params = partition(release.model, config.parameters)
    state = checkpoints.restore(init_state(params, make_optimizer(config.optimizer, config.steps)))
    checkpoints.close()
    release.model = parts.merge(state.ema, parts.frozen)
    return release


def _initial_release(
    folder: Path, config: TrainingConfig, placement: Placement | None = None
) -> Release:
    """What the run started from: all that it composed is in its initial folder."""
    composed = dataclasses.replace(config, init_vae="", prompt_cache="")
    return networks.complete(load_release(_initial_folder(folder), placement), composed)


def _initial_folder(folder: Path) -> Path:
    run = read_run(folder)
    init = folder / run["init"]
    if not init.is_dir():
        raise InputError(f"{folder} needs its initial release {init}, which is gone")
    if cluster.is_first() and release_hash(init) != run["init_sha256"]:
        raise InputError(f"{init} has changed since {folder} was started from it")
    return init


def commit() -> str:
    """The commit of the code that runs, '' outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
