"""Whole runs at the smallest size: clips to checkpoint, resume, release."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import realisvsr_jax
from configs import smoke
from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.resize import to_float
from realisvsr_jax.training import checkpoint, run
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.weights.release import load_release

STEPS = 5


def config_of(**changes) -> TrainingConfig:
    """The smoke run, shorter, with stills alone."""
    config = smoke.get_config()
    config.steps = STEPS
    config.data.buckets = ((1, 96, 96),)
    config.log.update(save_every=2, preview_every=3)
    return dataclasses.replace(settings.from_mapping(TrainingConfig, config.to_dict()), **changes)


def losses(folder) -> dict[int, dict]:
    """metrics.jsonl by step; steps that are there twice must agree to the last bit."""
    found: dict[int, dict] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert found.setdefault(row["step"], row) == row
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run's folder, its hash, and the previews that were drawn."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    pictures = []

    def preview(release, batch):
        pictures.append(release)
        return np.zeros((8, 8, 3), np.uint8)

    digest = run.train(config_of(), folder, preview=preview)
    return folder, digest, pictures


def test_a_run_leaves_losses_checkpoints_and_pictures(finished):
    folder, _, pictures = finished
    rows = losses(folder)
    assert sorted(rows) == list(range(STEPS))
    assert {"loss", "rec", "wavelet", "hog", "gradient_norm", "hog_gradient"} <= set(rows[0])
    assert all(np.isfinite(value) for row in rows.values() for value in row.values())
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["2", "4", "5"]
    assert len(pictures) == 1
    assert list((folder / "tensorboard").glob("events*"))


def test_starting_a_finished_run_again_gives_its_hash(finished):
    folder, digest, _ = finished
    assert run.train(config_of(), folder) == digest
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == STEPS


def test_a_resumed_run_is_the_uninterrupted_one(finished, tmp_path):
    folder, digest, _ = finished
    resumed = tmp_path / "resumed"
    shutil.copytree(folder, resumed)
    for step in ("4", "5"):
        shutil.rmtree(resumed / "checkpoints" / step)
    assert run.train(config_of(), resumed) == digest
    assert losses(resumed) == losses(folder)
    assert len((resumed / "metrics.jsonl").read_text().splitlines()) == STEPS + 3


def test_a_half_written_checkpoint_is_never_picked(finished, tmp_path):
    folder, digest, _ = finished
    resumed = tmp_path / "resumed"
    shutil.copytree(folder, resumed)
    for step in ("4", "5"):
        shutil.rmtree(resumed / "checkpoints" / step)
    shutil.copytree(
        resumed / "checkpoints" / "2", resumed / "checkpoints" / "4.orbax-checkpoint-tmp-1"
    )
    assert run.train(config_of(), resumed) == digest


def test_the_seed_changes_the_run(finished, tmp_path):
    assert run.train(config_of(seed=1), tmp_path / "other") != finished[1]


def test_only_what_is_named_is_trained(finished):
    folder, _, _ = finished
    trained, start = checkpoint.load_run(folder), load_release(folder / "init")
    assert trained.model is not None
    assert start.model is not None
    before, after = (dict(nnx.to_flat_state(nnx.state(r.model))) for r in (start, trained))
    changed = {path[0] for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"cpc", "gamma"}


def test_other_settings_on_the_same_folder_are_refused(finished):
    optimizer = dataclasses.replace(config_of().optimizer, weight_decay=0.5)
    with pytest.raises(InputError, match=r"started with optimizer\.weight_decay = 0.0001, now"):
        run.train(config_of(optimizer=optimizer), finished[0])


def test_a_checkpoint_of_another_configuration_is_one_line(finished, tmp_path):
    folder, _, _ = finished
    config = config_of(parameters=("gamma",))
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    card = json.loads((other / "run.json").read_text())
    card["config"]["parameters"] = ["gamma"]
    (other / "run.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="checkpoint 5 does not fit the configuration"):
        run.train(config, other)


def test_an_initial_release_that_changed_is_refused(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished[0], other)
    card = other / "init" / "model.json"
    card.write_text(card.read_text() + " ")
    with pytest.raises(InputError, match="has changed since"):
        run.train(config_of(), other)


def test_a_run_folder_restores_with_its_averaged_weights(finished):
    frames = np.random.default_rng(0).integers(0, 256, (1, 8, 12, 3), dtype=np.uint8)
    model = realisvsr_jax.load(finished[0])
    assert model.restore(frames, scale=4, steps=1).shape == (1, 32, 48, 3)


def test_an_export_is_a_release_of_the_averaged_weights(finished, tmp_path):
    folder, _, _ = finished
    sampler = dataclasses.replace(config_of().sampler, steps=7)
    run.train(config_of(sampler=sampler), folder, export=tmp_path / "release")
    exported, trained = load_release(tmp_path / "release"), checkpoint.load_run(folder)
    np.testing.assert_array_equal(exported.model.gamma[...], trained.model.gamma[...])
    assert exported.card.model == config_of().model
    assert exported.card.sampler.steps == 7
    assert set(exported.prompts.states) == set(trained.prompts.states)
    assert len(exported.prompts.states) == 3


def test_a_vae_is_trained_and_measures_its_own_latents(tmp_path):
    config = config_of(
        task="vae", steps=2, parameters=(".*",), accumulate=1, prompt_cache="", init=""
    )
    run.train(config, tmp_path / "run", export=tmp_path / "release")
    row = losses(tmp_path / "run")[0]
    assert {"l1", "lpips", "kl", "psnr"} <= set(row)
    release = load_release(tmp_path / "release")
    assert release.model is None
    batch = next(run.make_data(config, release, 0))
    latent = release.vae.encode(to_float(jnp.asarray(batch["gt"])))
    assert abs(float(latent.mean())) < 0.5
    assert 0.5 < float(latent.std()) < 2.0
    with pytest.raises(InputError, match="add --export DIR to its command"):
        checkpoint.load_run(tmp_path / "run")


def test_a_batch_that_does_not_divide_is_an_error(tmp_path):
    with pytest.raises(InputError, match="accumulate = 3 does not divide"):
        run.train(config_of(accumulate=3), tmp_path / "run")


def test_an_unknown_initial_release_is_one_line(tmp_path):
    with pytest.raises(InputError, match="init: nowhere/model is not a folder"):
        run.train(config_of(init="nowhere/model"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_caption_that_is_not_in_the_cache_says_how_to_encode_it(tmp_path):
    with pytest.raises(InputError, match=r"is not in the cache; encode it with python -m convert"):
        run.train(config_of(prompt_cache=""), tmp_path / "run")
