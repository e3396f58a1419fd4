"""From a Wan checkpoint to a trained control branch, to PyTorch, and to a restored clip."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import torch_checkpoints as checkpoints
from flax import nnx

import realisvsr_jax
from configs import smoke
from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.training import checkpoint, networks, run
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.weights.exporting import as_parts, export
from realisvsr_jax.weights.importing import convert, open_checkpoint
from realisvsr_jax.weights.release import load_release

FRAMES = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return checkpoints.write_wan(tmp_path_factory.mktemp("whole") / "wan")


def config_of(wan, **changes) -> TrainingConfig:
    """Two steps on stills, from `wan`; the clips' captions are not shown."""
    config = settings.from_mapping(TrainingConfig, smoke.get_config().to_dict())
    model = dataclasses.replace(open_checkpoint(wan).card.model, cpc=CPCConfig(num_blocks=2))
    fields = {
        "init": str(wan),
        "model": model,
        "steps": 2,
        "captions": False,
        "prompt_cache": "",
        "data": dataclasses.replace(config.data, buckets=((1, 96, 96),)),
        "loss": dataclasses.replace(config.loss, hog=0.0),
        "log": dataclasses.replace(config.log, save_every=1, preview_every=0),
    }
    return dataclasses.replace(config, **(fields | changes))


@pytest.fixture(scope="module")
def trained(wan, tmp_path_factory):
    """A RUN that started from the original layout, and its hash."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run.train(config_of(wan), folder)


def values(network):
    leaves = nnx.to_flat_state(nnx.state(network))
    return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}


def test_a_new_control_branch_starts_from_the_transformer(wan):
    release = networks.initial_release(config_of(wan))
    found = values(release.model)
    np.testing.assert_array_equal(
        found["cpc/blocks/ffn/up/kernel"], found["dit/blocks/ffn/up/kernel"][:2]
    )
    np.testing.assert_array_equal(
        found["cpc/patch_embedding/kernel"], found["dit/patch_embedding/kernel"]
    )
    assert not found["cpc/out/kernel"].any()
    assert (found["gamma"] == 1).all()
    assert np.abs(release.prompts.lookup("")[0]).max() > 0.1  # encoded, not zeros


def test_a_run_keeps_what_it_started_from(wan, trained, tmp_path):
    """The checkpoint may go: the run has it in its own folder."""
    folder, digest = trained
    resumed = tmp_path / "run"
    shutil.copytree(folder, resumed)
    shutil.rmtree(resumed / "checkpoints" / "2")
    assert run.train(config_of(wan, init=str(wan)), resumed) == digest
    assert (folder / "init" / "model.json").is_file()


def test_a_converted_release_is_referred_to_and_trains_alike(wan, trained, tmp_path):
    convert(wan, tmp_path / "release")
    config = config_of(wan, init=str(tmp_path / "release"))
    assert run.train(config, tmp_path / "run") == trained[1]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["init"] == str(
        tmp_path / "release"
    )
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    assert run.train(config, tmp_path / "run") == trained[1]
    assert realisvsr_jax.load(tmp_path / "run").restore(FRAMES, steps=1).shape == (1, 48, 64, 3)


@pytest.mark.parametrize("dialect", ["wan", "diffusers"])
def test_what_was_trained_restores_from_pytorchs_files(wan, trained, tmp_path, dialect):
    release = checkpoint.load_run(trained[0])
    expected = realisvsr_jax.load(trained[0]).restore(FRAMES, steps=2, seed=3)
    export(as_parts(release), tmp_path / "torch", dialect)
    without = realisvsr_jax.load(tmp_path / "torch")  # the prompts lie beside the control branch
    np.testing.assert_array_equal(without.restore(FRAMES, steps=2, seed=3), expected)
    convert(wan, tmp_path / "text", parts=["text_encoder"])
    shutil.copytree(
        wan / "google" / "umt5-xxl", tmp_path / "text" / "tokenizer", dirs_exist_ok=True
    )
    model = realisvsr_jax.load(tmp_path / "torch", text_encoder=tmp_path / "text")
    restored = model.restore(FRAMES, steps=2, seed=3)
    np.testing.assert_array_equal(restored, expected)
    other = model.restore(FRAMES, steps=2, seed=3, prompt="a sharp video")
    assert not np.array_equal(other, expected)
    jax.tree.map(np.testing.assert_array_equal, values(release.vae), values(model.vae))


def test_a_prompt_that_the_cache_lacks_is_encoded_with_the_releases_own_encoder(
    wan, trained, tmp_path
):
    run.train(config_of(wan), trained[0], export=tmp_path / "release")
    with pytest.raises(InputError, match="no states of the prompt 'a cat'"):
        realisvsr_jax.load(tmp_path / "release").restore(FRAMES, steps=1, prompt="a cat")
    model = realisvsr_jax.load(tmp_path / "release", text_encoder=wan)
    assert model.restore(FRAMES, steps=1, prompt="a cat").shape == (1, 48, 64, 3)


def test_without_a_control_branch_nothing_is_restored(wan, tmp_path):
    convert(wan, tmp_path / "release", parts=["dit", "vae"])
    for path in (wan, tmp_path / "release"):
        with pytest.raises(InputError, match="no control branch: it makes videos from text and"):
            realisvsr_jax.load(path)
    assert load_release(tmp_path / "release").card.model.cpc is None


def test_another_architecture_is_named(wan, tmp_path):
    model = config_of(wan).model
    wider = dataclasses.replace(model, dit=dataclasses.replace(model.dit, num_layers=4))
    with pytest.raises(InputError, match=r"dit\.num_layers is 3, the config says 4"):
        run.train(config_of(wan, model=wider), tmp_path / "run")
    assert not (tmp_path / "run").exists()
