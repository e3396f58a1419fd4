"""Whole runs at the smallest size: clips to checkpoint, resume, release."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import realisvsr_jax
from configs import smoke
from realisvsr_jax import settings
from realisvsr_jax.data import pipeline
from realisvsr_jax.data.sources import index_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.resize import to_float
from realisvsr_jax.training import batches, checkpoint, networks, run
from realisvsr_jax.training.settings import (
    HealthConfig,
    ReleaseConfig,
    TrainingConfig,
    ValidationConfig,
)
from realisvsr_jax.vae.wan_vae import TINY_VAE, WanVAE
from realisvsr_jax.weights.release import Release, ReleaseCard, load_release

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

    digest = run.train(config_of(), folder, hooks=run.Hooks(preview))
    return folder, digest, pictures


def stopped_after_2(finished, tmp_path):
    """A copy of the finished run without its later checkpoints."""
    resumed = tmp_path / "resumed"
    shutil.copytree(finished, resumed)
    for step in ("4", "5"):
        shutil.rmtree(resumed / "checkpoints" / step)
    return resumed


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
    resumed = stopped_after_2(folder, tmp_path)
    assert run.train(config_of(), resumed) == digest
    assert losses(resumed) == losses(folder)
    assert len((resumed / "metrics.jsonl").read_text().splitlines()) == STEPS + 3


def test_a_half_written_checkpoint_is_never_picked(finished, tmp_path):
    folder, digest, _ = finished
    resumed = stopped_after_2(folder, tmp_path)
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
    with pytest.raises(
        InputError, match=r"caption_dropout = .*, now it is 0\.9 \(and 1 more\); use"
    ):
        run.train(config_of(optimizer=optimizer, caption_dropout=0.9), finished[0])


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


def test_the_same_command_with_its_export_still_prints_the_hash(finished, tmp_path):
    folder, digest, _ = finished
    export = tmp_path / "release"
    assert run.train(config_of(), folder, export=export) == digest
    before = (export / "model.json").read_bytes()
    assert run.train(config_of(), folder, export=export) == digest
    assert (export / "model.json").read_bytes() == before
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="other exists; name a new folder"):
        run.train(config_of(), folder, export=tmp_path / "other")


def test_a_vae_is_trained_and_measures_its_own_latents(tmp_path):
    config = config_of(
        task="vae", steps=2, parameters=(".*",), accumulate=1, prompt_cache="", init=""
    )
    run.train(config, tmp_path / "run", export=tmp_path / "release")
    row = losses(tmp_path / "run")[0]
    assert {"l1", "lpips", "kl", "psnr"} <= set(row)
    release = load_release(tmp_path / "release")
    assert release.model is None
    batch = next(batches.make_data(config, release, 0))
    latent = release.vae.encode(to_float(jnp.asarray(batch["gt"])))
    assert abs(float(latent.mean())) < 0.5
    assert 0.5 < float(latent.std()) < 2.0
    with pytest.raises(InputError, match="add --export DIR to its command"):
        checkpoint.load_run(tmp_path / "run")


def data(**changes):
    return {"data": dataclasses.replace(config_of().data, **changes)}


def held(**changes):
    validation = ValidationConfig(every=2, sources=config_of().data.sources, bucket=(1, 96, 96))
    return {"validation": dataclasses.replace(validation, **changes)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (data(sources=("nodata/",)), r"data\.sources: nodata is no folder; name one of videos"),
        (data(buckets=((1, 9000, 9000),)), r"data\.sources: none of 3 clips is as large as bucket"),
        (data(buckets=((1, 95, 96),)), r"data\.buckets: the sides of \(1, 95, 96\) do not divide"),
        (held(sources=("nodata/",)), r"validation\.sources: nodata is no folder; name one of"),
        (held(bucket=(1, 9000, 96)), r"validation\.sources: none of 3 clips is as large as bucket"),
        (held(bucket=(1, 95, 96)), r"validation\.bucket: the sides of \(1, 95, 96\) do not"),
        ({"precomputed": "nowhere"}, "nowhere has no shards; make them with python -m"),
    ],
)
def test_data_is_checked_before_networks_are_drawn(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "open_run", None)
    with pytest.raises(InputError, match=message):
        run.train(config_of(**changes), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_each_source_is_indexed_once_and_for_a_finished_run_never(tmp_path, monkeypatch):
    indexed = []

    def index(folders):
        indexed.append(folders)
        return index_clips(folders)

    for module in (batches, pipeline):
        monkeypatch.setattr(module, "index_clips", index)
    config = config_of(**held())
    hooks = run.Hooks(
        lambda release, batch: np.zeros((8, 8, 3), np.uint8),
        lambda batches: list(batches) and (lambda release, scale: {"lpips": 0.5, "psnr": 20.0}),
    )
    digest = run.train(config, tmp_path / "run", hooks=hooks)
    assert indexed == [config.data.sources, config.validation.sources]
    gone = dataclasses.replace(config, validation=ValidationConfig())
    monkeypatch.setattr(run, "find_clips", None)
    assert run.train(gone, tmp_path / "run") == digest


def test_best_without_a_score(finished, tmp_path, caplog):
    best = dataclasses.replace(config_of().release, checkpoint="best")
    for folder in (finished[0], tmp_path / "new"):
        with pytest.raises(InputError, match=r"no checkpoint has a score; set validation\.every"):
            run.train(config_of(release=best), folder, export=tmp_path / "release")
    assert not list(tmp_path.iterdir())
    with caplog.at_level("WARNING", "realisvsr_jax"):
        run.train(config_of(release=best, **held()), finished[0], export=tmp_path / "release")
    assert "no checkpoint has a score yet: the last, step 5, is exported" in caplog.text
    exported, trained = load_release(tmp_path / "release"), checkpoint.load_run(finished[0])
    np.testing.assert_array_equal(exported.model.gamma[...], trained.model.gamma[...])


def test_a_run_that_was_killed_before_its_run_json_starts_anew(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0] / "init", folder / "init")
    shutil.copytree(finished[0] / "init", folder / ".init.partial")
    assert run.train(config_of(), folder) == finished[1]


def test_the_configuration_says_how_a_given_vae_runs():
    vae = WanVAE(TINY_VAE, rngs=nnx.Rngs(0))
    how = dataclasses.replace(TINY_VAE, base_dim=99, precision="high")
    config = TrainingConfig(task="vae", vae=how)
    found = networks.complete(Release(ReleaseCard(vae=TINY_VAE), vae), config)
    assert found.card.vae == dataclasses.replace(TINY_VAE, precision="high")
    assert found.vae.config == found.card.vae
    for ours, theirs in zip(*(jax.tree.leaves(nnx.state(one)) for one in (found.vae, vae))):
        np.testing.assert_array_equal(ours, theirs)


def test_a_batch_that_does_not_divide_is_an_error(tmp_path):
    with pytest.raises(InputError, match="accumulate = 3 does not divide"):
        run.train(config_of(accumulate=3), tmp_path / "run")


@pytest.mark.parametrize("steps", [0, -3])
def test_a_run_of_no_steps_is_an_error(tmp_path, steps):
    with pytest.raises(InputError, match=f"steps is {steps}; train for 1 or more"):
        run.train(config_of(steps=steps), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_initial_release_is_one_line(tmp_path):
    with pytest.raises(InputError, match="init: nowhere/model is no folder here and cannot be"):
        run.train(config_of(init="nowhere/model"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_caption_that_is_not_in_the_cache_says_how_to_encode_it(tmp_path):
    with pytest.raises(InputError, match=r"not in the prompt cache; encode them with python -m"):
        run.train(config_of(prompt_cache=""), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_stops_before_it_is_saved(tmp_path):
    optimizer = dataclasses.replace(config_of().optimizer, learning_rate=1e30, warmup_steps=0)
    log = dataclasses.replace(config_of().log, save_every=1)
    with pytest.raises(InputError) as stopped:
        run.train(config_of(optimizer=optimizer, log=log), tmp_path)
    assert "steps 1 to 3: loss or gradient was not finite, with " in str(stopped.value)
    assert "mouse.mp4" in str(stopped.value)
    assert "the newest checkpoint is step 1, from before" in str(stopped.value)
    assert [row["skipped"] for row in losses(tmp_path).values()] == [0, 1, 1, 1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()] == ["1"]


def test_clips_that_cannot_be_read_stop_it_when_they_are_too_many(tmp_path, monkeypatch):
    def read(clip, start, frames):
        if clip.path.stem == "mouse":
            raise InputError(f"{clip.path} is damaged")
        return np.zeros((frames, clip.height, clip.width, 3), np.uint8)

    monkeypatch.setattr("realisvsr_jax.data.sources.SourceClip.read", read)
    monkeypatch.setattr("realisvsr_jax.training.health.FEW_PAIRS", 1)
    run.train(config_of(health=HealthConfig(unreadable=1.0)), tmp_path / "allowed")
    assert sum(row["replaced"] for row in losses(tmp_path / "allowed").values()) > 0
    with pytest.raises(InputError, match=r"pairs had to be replaced.*mouse\.mp4 is damaged"):
        run.train(config_of(health=HealthConfig(unreadable=0.05)), tmp_path / "stopped")


def test_validation_scores_both_weights_and_keeps_the_best(tmp_path):
    """The validator is handed in, so that the best is not the last."""
    scores = iter([0.5, 0.1, 0.2, 0.9, 0.4, 0.8])
    seen = []

    def validator(batches):
        pairs = list(batches)
        seen.extend(pairs)
        return lambda release, scale: {"lpips": next(scores), "psnr": 20.0}

    config = config_of(
        validation=ValidationConfig(
            every=2, sources=config_of().data.sources, clips=3, bucket=(5, 96, 96)
        ),
        log=dataclasses.replace(config_of().log, keep=1),
        captions=False,
    )
    folder = tmp_path / "run"
    digest = run.train(config, folder, hooks=run.Hooks(validator=validator))
    assert [pair["gt"].shape for pair in seen] == [(1, 5, 96, 96, 3)] * 3
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["average"]["lpips"] for row in rows] == [0.5, 0.2]
    assert [row["raw"]["lpips"] for row in rows] == [0.1, 0.9]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir() if p.is_dir()) == ["4", "5"]
    without = dataclasses.replace(config, validation=ValidationConfig())
    assert run.train(without, tmp_path / "without") == digest
    best = dataclasses.replace(config.release, checkpoint="best")
    run.train(dataclasses.replace(config, release=best), folder, export=tmp_path / "best")
    run.train(config, folder, export=tmp_path / "last")
    gammas = [load_release(tmp_path / name).model.gamma[...] for name in ("best", "last")]
    assert not np.array_equal(*gammas)


def test_captions_are_dropped_by_the_pair_and_not_by_the_start(finished):
    release = load_release(finished[0] / "init")
    config = config_of(steps=40, caption_dropout=0.5)
    texts = [batch["text"] for batch in batches.make_data(config, release, 0)]
    again = [batch["text"] for batch in batches.make_data(config, release, 10, num_steps=4)]
    np.testing.assert_array_equal(texts[10:14], again)

    def empty(share):
        found = batches.make_data(config_of(steps=40, caption_dropout=share), release, 0)
        nothing = release.prompts.lookup("")
        return sum(np.array_equal(text, nothing) for batch in found for text in batch["text"])

    never, half, always = (empty(share) for share in (0.0, 0.5, 1.0))
    assert never < 30  # one of the clips has no caption
    assert never + 15 < half < 65
    assert always == 80


def test_a_line_that_a_kill_cut_off_is_dropped(finished, tmp_path):
    folder, digest, _ = finished
    resumed = stopped_after_2(folder, tmp_path)
    text = (resumed / "metrics.jsonl").read_text()
    (resumed / "metrics.jsonl").write_text(text[:-9])
    assert run.train(config_of(), resumed) == digest
    assert losses(resumed) == losses(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caption_dropout": 1.5}, "caption_dropout is 1.5; give a share"),
        ({"validation": ValidationConfig(metric="ssim")}, "is 'ssim'; take 'lpips' or 'psnr'"),
        ({"validation": ValidationConfig(every=5)}, "validation.sources is empty; name a folder"),
        ({"release": ReleaseConfig(checkpoint="first")}, "is 'first'; take 'last' or 'best'"),
    ],
)
def test_settings_that_mean_nothing_are_one_line(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run.train(config_of(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
