"""One training run from its settings: wires networks, objective, data, checkpoints and loop."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from realisvsr_jax.data import pipeline, precomputed
from realisvsr_jax.data.sources import SourceClip, index_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.perceptual import load_lpips
from realisvsr_jax.training import checkpoint, networks
from realisvsr_jax.training.loop import Callback, Journal, run_steps
from realisvsr_jax.training.objectives import RestorationObjective, VAEObjective
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.training.state import (
    Partition,
    TrainState,
    init_state,
    make_optimizer,
    partition,
    state_hash,
)
from realisvsr_jax.training.step import make_train_step
from realisvsr_jax.weights.release import Release, check_dtype, save_release

log = logging.getLogger(__name__)

STATISTICS_BATCHES = 16  # over which a new VAE's latent mean and deviation are measured


# Draws what the averaged weights make of a batch: uint8 [H, W, 3].
Preview = Callable[[Release, dict[str, np.ndarray]], np.ndarray]


def train(
    config: TrainingConfig,
    folder: Path,
    export: Path | None = None,
    preview: Preview | None = None,
) -> str:
    """Trains to `config.steps`, from the newest checkpoint if there is one.

    Writes the averaged weights to the release folder `export` if given; `preview` draws the
    pictures for TensorBoard. Returns the state's SHA-256. Raises InputError for settings or data
    that cannot be used.
    """
    if config.data.batch_size % config.accumulate:
        raise InputError(
            f"accumulate = {config.accumulate} does not divide data.batch_size = "
            f"{config.data.batch_size}"
        )
    check_dtype(config.release.model_dtype)
    log.info("%s: preparing the networks", folder)
    release = checkpoint.open_run(folder, config)
    trained = release.vae if config.task == "vae" else release.model
    assert trained is not None
    parts, params = partition(trained, config.parameters)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = init_state(params, optimizer)
    checkpoints = checkpoint.Checkpoints(folder / "checkpoints", config.log.keep)
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(state)
        log.info("%s: going on from step %d", folder, int(state.step))
    if int(state.step) < config.steps:
        objective, frozen = _objective(config, parts, release)
        step_function = make_train_step(
            objective,
            optimizer,
            seed=config.seed,
            accumulate=config.accumulate,
            ema_decay=config.optimizer.ema_decay,
        )
        journal = Journal(folder, config.log, config.steps)
        callbacks: list[Callback] = [(config.log.save_every, checkpoints.save)]
        clips = None if config.precomputed else index_clips(config.data.sources)
        if preview and config.log.preview_every:
            show = _preview_callback(config, preview, journal, parts, release, clips)
            callbacks.append((config.log.preview_every, show))
        batches = make_data(config, release, int(state.step), clips=clips)
        log.info("training; the first step of each bucket compiles, which can take minutes")
        state = run_steps(state, step_function, frozen, batches, journal, callbacks)
        checkpoints.save(state)
        journal.close()
    checkpoints.close()
    if export:
        _export(config, export, parts, state, release)
    return state_hash(state)


def _objective(config: TrainingConfig, parts: Partition, release: Release) -> tuple[Any, Any]:
    """What is minimised, and the frozen arrays that it needs."""
    if config.task == "vae":
        frozen = {"network": parts.frozen, "perceptual": load_lpips("alex")}
        return VAEObjective(parts, config.vae_loss), frozen
    if config.task != "restoration":
        raise InputError(f"task is {config.task!r}; take 'restoration' or 'vae'")
    vae_graph, vae_state = nnx.split(release.vae)
    objective = RestorationObjective(
        parts, vae_graph, config.flow, config.loss, config.condition_scale
    )
    return objective, {"network": parts.frozen, "vae": vae_state}


def _preview_callback(
    config: TrainingConfig,
    preview: Preview,
    journal: Journal,
    parts: Partition,
    release: Release,
    clips: Sequence[SourceClip] | None,
) -> Callable[[TrainState], None]:
    """Shows the run's first batch, restored by the averaged weights."""
    alone = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=0))
    batch = next(make_data(alone, release, 0, num_steps=1, clips=clips))

    def show(state: TrainState) -> None:
        picture = preview(_averaged(config, parts, state, release), batch)
        journal.picture("input-result-truth", int(state.step), picture)

    return show


def make_data(
    config: TrainingConfig,
    release: Release,
    start_step: int,
    num_steps: int | None = None,
    clips: Sequence[SourceClip] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches for the steps that are left: clips, positions and, for restoration, text.

    `clips` are those of the sources, which are indexed anew without it.
    """
    steps = config.steps - start_step if num_steps is None else num_steps
    if config.precomputed:
        batches = precomputed.read_batches(
            config.precomputed,
            config.data.batch_size,
            config.data.buckets,
            latent_buckets=[release.card.vae.latent_size(b) for b in config.data.buckets],
            seed=config.seed,
            start_step=start_step,
            num_steps=steps,
        )
    else:
        batches = pipeline.make_batches(
            config.data, start_step=start_step, num_steps=steps, clips=clips
        )
    size = config.data.batch_size
    for batch in batches:
        captions = batch.get("caption") or [""] * size
        arrays = {name: array for name, array in batch.items() if name not in ("caption", "index")}
        arrays["position"] = np.arange(size, dtype=np.uint32)
        if release.prompts is not None:
            prompts = captions if config.captions else [""] * size
            arrays["text"] = np.stack([release.prompts.lookup(prompt) for prompt in prompts])
        yield arrays


def _averaged(
    config: TrainingConfig, parts: Partition, state: TrainState, release: Release
) -> Release:
    """The release with the averaged weights in the place of those it started from."""
    network = parts.merge(state.ema, parts.frozen)
    if config.task == "vae":
        return Release(release.card, network)
    return Release(release.card, release.vae, network, release.prompts)


def _export(
    config: TrainingConfig, folder: Path, parts: Partition, state: TrainState, release: Release
) -> None:
    release = _averaged(config, parts, state, release)
    if config.task == "vae":
        batches = make_data(config, release, 0, num_steps=STATISTICS_BATCHES)
        vae, vae_config = networks.normalised(
            release.vae, release.card.vae, [batch["gt"] for batch in batches]
        )
        release = Release(dataclasses.replace(release.card, vae=vae_config), vae)
    card = networks.described(release.card, config)
    release.card = dataclasses.replace(card, commit=checkpoint.commit())
    save_release(folder, release, model_dtype=config.release.model_dtype)
    log.info("wrote the release %s", folder)
