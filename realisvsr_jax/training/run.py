"""One training run from its settings: wires networks, objective, data, checkpoints and loop."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from realisvsr_jax import cluster
from realisvsr_jax.data.sources import SourceClip
from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.perceptual import load_lpips
from realisvsr_jax.training import checkpoint, networks, sharding
from realisvsr_jax.training.batches import (
    Clips,
    batch_shapes,
    find_clips,
    make_data,
    validation_batches,
)
from realisvsr_jax.training.health import Health
from realisvsr_jax.training.loop import NOTES, Callback, Journal, Quiet, Share, run_steps
from realisvsr_jax.training.objectives import RestorationObjective, VAEObjective
from realisvsr_jax.training.programs import BucketPrograms
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.training.state import (
    Partition,
    TrainState,
    init_state,
    learning_rate,
    make_optimizer,
    partition,
    state_hash,
)
from realisvsr_jax.training.step import make_train_step
from realisvsr_jax.training.termination import Terminated, Termination
from realisvsr_jax.training.together import Together
from realisvsr_jax.weights.release import Release, check_dtype, is_release, save_release

log = logging.getLogger(__name__)

HIGHER_IS_BETTER = {"psnr": True, "lpips": False}
STATISTICS_BATCHES = 16  # over which a new VAE's latent mean and deviation are measured


Scores = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the rooms below training bring to it.

    `preview` draws what the averaged weights make of a batch, uint8 [H, W, 3]. `validator`,
    given the validation pairs, gives what scores a release on them at a condition scale.
    `termination` knows whether to stop early.
    """

    preview: Callable[[Release, dict[str, Any]], np.ndarray] | None = None
    validator: Callable[[Iterator[dict[str, Any]]], Callable[[Release, float], Scores]] | None = (
        None
    )
    termination: Termination = dataclasses.field(default_factory=Termination)


def train(
    config: TrainingConfig, folder: Path, export: Path | None = None, hooks: Hooks = Hooks()
) -> str:
    """Trains to `config.steps`, from the newest checkpoint if there is one.

    Writes the averaged weights to the release folder `export` if given. Returns the state's
    SHA-256. Raises InputError for settings or data that cannot be used and where a run must not
    go on, and Terminated, with the state saved, once `hooks.termination` was asked for. Settings,
    folder and data are checked before anything is written.
    """
    cluster.check_joined()
    mesh = check(config)
    checkpoint.check_folder(folder, config)
    cluster.keep_programs(folder / checkpoint.PROGRAMS)
    newest, best = checkpoint.saved_steps(folder)
    if export and export.exists():
        if newest != config.steps or not is_release(export):
            raise InputError(f"--export {export} exists; name a new folder")
        log.info("the run is finished and %s is there: it stays as it is", export)
        export = None
    if export:
        check_export(config, best)
    clips = Clips() if newest == config.steps else find_clips(config)
    log.info("%s: preparing the networks", folder)
    release = checkpoint.open_run(
        folder, config, lambda r: check_prompts(config, r, clips), sharding.placement(mesh)
    )
    if mesh:
        vae, model = (part and sharding.placed_network(part, mesh) for part in _networks(release))
        release = dataclasses.replace(release, vae=vae, model=model)
    trained = release.vae if config.task == "vae" else release.model
    assert trained is not None
    parts, params = partition(trained, config.parameters)
    state = _initial_state(params, config, mesh)
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", config.log)
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state)
        log.info("%s: going on from step %d", folder, int(state.step))
    if int(state.step) < config.steps:
        with sharding.in_use(mesh):
            state = _take_steps(config, folder, parts, release, checkpoints, state, hooks, clips)
    digest = state_hash(state)
    if export:
        if config.release.checkpoint == "best":
            state = _best(checkpoints, state)
        _export(config, export, parts, state, release, clips)
    checkpoints.close()
    return digest


def _initial_state(params: dict[str, Any], config: TrainingConfig, mesh: Mesh | None) -> TrainState:
    optimizer = make_optimizer(config.optimizer, config.steps)
    if mesh is None:
        return init_state(params, optimizer)
    start = functools.partial(init_state, optimizer=optimizer)
    where = sharding.of_train_state(jax.eval_shape(start, params), mesh)
    return jax.jit(start, out_shardings=where)(params)


def check(config: TrainingConfig) -> Mesh | None:
    """The mesh to train on, or None; raises InputError for settings that contradict each other."""
    mesh = sharding.training_mesh(config.mesh, config.model.dit.num_heads)
    sharding.micro_batches(config.data.batch_size, config.accumulate, mesh)
    check_dtype(config.release.model_dtype)
    if config.steps < 1:
        raise InputError(f"steps is {config.steps}; train for 1 or more")
    if config.release.checkpoint not in ("last", "best"):
        raise InputError(
            f"release.checkpoint is {config.release.checkpoint!r}; take 'last' or 'best'"
        )
    if config.validation.metric not in HIGHER_IS_BETTER:
        raise InputError(
            f"validation.metric is {config.validation.metric!r}; take 'lpips' or 'psnr'"
        )
    if config.validation.every and not config.validation.sources:
        raise InputError(
            "validation.sources is empty; name a folder of clips that are not trained on"
        )
    if not 0 <= config.caption_dropout <= 1:
        raise InputError(f"caption_dropout is {config.caption_dropout}; give a share from 0 to 1")
    return mesh


def check_export(config: TrainingConfig, best: int | None) -> None:
    """Raises InputError where no checkpoint has, or will get, the score that is asked for."""
    if config.release.checkpoint == "best" and best is None and not config.validation.every:
        raise InputError(
            "release.checkpoint is 'best', but without validation no checkpoint has a score; set "
            "validation.every, or take 'last'"
        )


def check_prompts(config: TrainingConfig, release: Release, clips: Clips) -> None:
    """Raises InputError for a prompt that will be shown and that the cache lacks."""
    if release.prompts is None:
        return
    both = [clip for some in (clips.training, clips.validation) for clip in some or ()]
    shown = {clip.caption for clip in both} if config.captions else set()
    if not config.captions or config.caption_dropout or not both:
        shown.add("")
    lacking = sorted(prompt for prompt in shown if prompt not in release.prompts)
    if lacking:
        more = f" and {len(lacking) - 1} more are" if len(lacking) > 1 else " is"
        raise InputError(
            f"the prompt {lacking[0]!r}{more} not in the prompt cache; encode them with python -m "
            "convert.encode_prompts and name the file with --config.prompt_cache=, or leave the "
            "captions out with --config.captions=False"
        )


def _take_steps(
    config: TrainingConfig,
    folder: Path,
    parts: Partition,
    release: Release,
    checkpoints: checkpoint.Checkpoints,
    state: TrainState,
    hooks: Hooks,
    clips: Clips,
) -> TrainState:
    """The steps that are left, with everything that happens between them."""
    objective, frozen = _objective(config, parts, release)
    mesh = sharding.mesh_in_use()
    frozen = sharding.place_frozen(frozen, mesh)
    step_function = make_train_step(
        objective,
        make_optimizer(config.optimizer, config.steps),
        seed=config.seed,
        accumulate=sharding.micro_batches(config.data.batch_size, config.accumulate, mesh),
        ema_decay=config.optimizer.ema_decay,
        shardings=sharding.of_train_state(state, mesh) if mesh else None,
    )
    rate = learning_rate(config.optimizer, config.steps)
    journal = Journal(folder, config.log, config.steps, rate) if cluster.is_first() else Quiet()
    health = Health(config.health, checkpoints.latest_step)

    def save(state: TrainState, score: float | None = None) -> None:
        if health.sound:
            checkpoints.save(state, score)

    callbacks: list[Callback] = []
    if hooks.validator and config.validation.every:
        score = hooks.validator(validation_batches(config, release, clips.validation))
        validate = _validation_callback(config, score, journal, parts, release, save)
        callbacks.append((config.validation.every, validate))
    if hooks.preview and config.log.preview_every:
        show = _preview_callback(config, hooks.preview, journal, parts, release, clips.training)
        callbacks.append((config.log.preview_every, show))
    callbacks.append((config.log.save_every, save))
    step = int(state.step)
    rows = sharding.rows(config.data.batch_size, mesh)
    batches = make_data(config, release, step, clips=clips.training, rows=rows.wanted)
    shapes = batch_shapes(config, release, step, mesh)
    log.info("training; %d programs are compiled, which can take minutes", len(shapes))
    programs = BucketPrograms(step_function, state, frozen, shapes, mesh)
    share = Share(
        sharding.placing(config.data.batch_size, mesh),
        Together(mesh),
        [row in rows.counted for row in rows.wanted],
    )
    hooks.termination.shared = not cluster.is_alone()
    hooks.termination.patient = True
    state = run_steps(
        state, programs, frozen, batches, journal, health, callbacks, hooks.termination, share
    )
    done = int(state.step) == config.steps
    if done or health.sound:
        checkpoints.save(state)
    checkpoints.wait()
    # Schedulers may end the others when the first one leaves.
    cluster.wait_for_all("the last checkpoint")
    hooks.termination.patient = False
    journal.close()
    if not done:
        raise Terminated
    return state


def _objective(config: TrainingConfig, parts: Partition, release: Release) -> tuple[Any, Any]:
    """What is minimised, and the frozen arrays that it needs."""
    if config.task == "vae":
        frozen = {"network": parts.frozen, "perceptual": load_lpips("alex")}
        return VAEObjective(parts, config.vae_loss), frozen
    if config.task != "restoration":
        raise InputError(f"task is {config.task!r}; take 'restoration' or 'vae'")
    vae_graph, vae_state = nnx.split(release.vae)
    objective = RestorationObjective(
        parts,
        vae_graph,
        config.flow,
        config.loss,
        config.condition_scale,
        config.encode_frames,
    )
    return objective, {"network": parts.frozen, "vae": vae_state}


def _validation_callback(
    config: TrainingConfig,
    score: Callable[[Release, float], Scores],
    journal: Quiet,
    parts: Partition,
    release: Release,
    save: Callable[[TrainState, float | None], None],
) -> Callable[[TrainState], None]:
    """Scores both kinds of weights, and saves the state with the averaged ones' score."""

    def validate(state: TrainState) -> None:
        scores = {
            name: score(_with(config, parts, weights, release), config.condition_scale)
            for name, weights in (("average", state.ema), ("raw", state.params))
        }
        journal.validated(int(state.step), scores)
        metric = config.validation.metric
        value = scores["average"][metric]
        save(state, value if HIGHER_IS_BETTER[metric] else -value)

    return validate


def _preview_callback(
    config: TrainingConfig,
    preview: Callable[[Release, dict[str, Any]], np.ndarray],
    journal: Quiet,
    parts: Partition,
    release: Release,
    clips: Sequence[SourceClip] | None,
) -> Callable[[TrainState], None]:
    """Shows the run's first batch, restored by the averaged weights."""
    alone = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=0))
    batch = next(make_data(alone, release, 0, num_steps=1, clips=clips))
    batch = {name: array for name, array in batch.items() if name not in NOTES}

    def show(state: TrainState) -> None:
        picture = preview(_with(config, parts, state.ema, release), batch)
        journal.picture("input-result-truth", int(state.step), picture)

    return show


def _with(
    config: TrainingConfig, parts: Partition, params: dict[str, jax.Array], release: Release
) -> Release:
    """The release with `params` in the place of those it started from."""
    network = parts.merge(params, parts.frozen)
    if config.task == "vae":
        return Release(release.card, network)
    return Release(release.card, release.vae, network, release.prompts)


def _best(checkpoints: checkpoint.Checkpoints, state: TrainState) -> TrainState:
    """The checkpoint with the best score, or `state`, the last, where none has one."""
    best = checkpoints.best_step()
    if best is not None:
        return checkpoints.restore(state, best)
    log.warning("no checkpoint has a score yet: the last, step %d, is exported", int(state.step))
    return state


def _export(
    config: TrainingConfig,
    folder: Path,
    parts: Partition,
    state: TrainState,
    release: Release,
    clips: Clips,
) -> None:
    release = _gathered(_with(config, parts, state.ema, release))
    if not cluster.is_first():
        return
    if config.task == "vae":
        assert release.vae is not None
        assert release.card.vae is not None
        batches = make_data(config, release, 0, num_steps=STATISTICS_BATCHES, clips=clips.training)
        vae, vae_config = networks.normalised(
            release.vae, release.card.vae, [batch["gt"] for batch in batches]
        )
        release = Release(dataclasses.replace(release.card, vae=vae_config), vae)
    card = networks.described(release.card, config)
    release.card = dataclasses.replace(card, commit=checkpoint.commit())
    save_release(folder, release, model_dtype=config.release.model_dtype)
    log.info("wrote the release %s", folder)


def _gathered(release: Release) -> Release:
    """With networks that the first process can write."""
    if cluster.is_alone():
        return release
    vae, model = (part and sharding.gathered(part) for part in _networks(release))
    return dataclasses.replace(release, vae=vae, model=model)


def _networks(release: Release) -> tuple[Any, Any]:
    return release.vae, release.model
