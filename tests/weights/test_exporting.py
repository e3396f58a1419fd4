"""Releases for PyTorch: bit for bit, loaded by the reference implementations themselves."""

import dataclasses
import logging
import shutil

import diffusers
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_checkpoints as checkpoints
import transformers
from flax import nnx
from random_networks import drawn, random

from realisvsr_jax.errors import InputError
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.sampling.solvers import SamplerConfig
from realisvsr_jax.text.encoding import TextEncoder
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.vae.wan_vae import WAN_VAE, WanVAE
from realisvsr_jax.weights.exporting import as_parts, export, read_release
from realisvsr_jax.weights.importing import convert, load_checkpoint
from realisvsr_jax.weights.release import (
    Release,
    ReleaseCard,
    load_release,
    release_hash,
    save_release,
)

FORMATS = {"wan": checkpoints.write_wan, "diffusers": checkpoints.write_diffusers}
VAE = dataclasses.replace(WAN_VAE, base_dim=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A release with control branch, its DiT and VAE drawn anew."""
    folder = tmp_path_factory.mktemp("trained")
    converted = load_checkpoint(checkpoints.write_diffusers(folder / "base"), text=False)
    config = RealisVSRConfig(converted.card.model.dit, CPCConfig(num_blocks=2))
    card = ReleaseCard(VAE, config, SamplerConfig(steps=7, shift=3.0), prompt="sharp")
    release = Release(
        card,
        drawn(lambda: WanVAE(VAE, rngs=nnx.Rngs(0))),
        drawn(lambda: RealisVSR(config, rngs=nnx.Rngs(0)), seed=1),
        converted.prompts,
    )
    save_release(folder / "release", release)
    return folder / "release"


@pytest.mark.parametrize("dialect", FORMATS)
def test_there_and_back_every_tensor_is_the_same_bit_for_bit(tmp_path, dialect):
    original = FORMATS[dialect](tmp_path / "original")
    convert(original, tmp_path / "release")
    export(read_release(tmp_path / "release"), tmp_path / "back", dialect)
    before, after = checkpoints.tensors(original), checkpoints.tensors(tmp_path / "back")
    before.pop("encoder.embed_tokens.weight", None)  # tied to shared.weight
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    convert(tmp_path / "back", tmp_path / "again")
    assert release_hash(tmp_path / "again") == release_hash(tmp_path / "release")


@pytest.mark.parametrize("dialect", FORMATS)
def test_a_trained_release_comes_back_whole(trained, tmp_path, dialect):
    export(read_release(trained), tmp_path / "torch", dialect)
    card = convert(tmp_path / "torch", tmp_path / "back")
    assert card == load_release(trained).card
    before, after = (checkpoints.tensors(folder) for folder in (trained, tmp_path / "back"))
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_networks_in_memory_are_exported_alike(trained, tmp_path):
    export(read_release(trained), tmp_path / "a", "diffusers")
    export(as_parts(load_release(trained)), tmp_path / "b", "diffusers")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_diffusers_gives_the_same_output_without_control_features(trained, tmp_path):
    export(read_release(trained), tmp_path / "out", "diffusers")
    peer = diffusers.WanTransformer3DModel.from_pretrained(tmp_path / "out" / "transformer")
    model = load_release(trained).model
    z, text, times = random(2, 2, 4, 6, 16), random(2, 512, 24, seed=2), jnp.array([9.0, 700.0])
    with torch.no_grad():
        theirs = peer(
            torch.from_numpy(np.array(z).transpose(0, 4, 1, 2, 3)),
            torch.from_numpy(np.array(times)),
            torch.from_numpy(np.array(text)),
            return_dict=False,
        )[0]
    theirs = theirs.numpy().transpose(0, 2, 3, 4, 1)
    without = np.asarray(model(z, times, random(*z.shape, seed=3), text, condition_scale=0.0))
    assert np.linalg.norm(without - theirs) < 1e-4 * np.linalg.norm(theirs)
    with_control = np.asarray(model(z, times, random(*z.shape, seed=3), text))
    assert np.linalg.norm(with_control - theirs) > 1e-2 * np.linalg.norm(theirs)


def test_diffusers_decodes_to_the_same_frames(trained, tmp_path):
    export(read_release(trained), tmp_path / "out", "diffusers")
    peer = diffusers.AutoencoderKLWan.from_pretrained(tmp_path / "out" / "vae")
    assert tuple(peer.config.latents_mean) == VAE.mean
    vae = load_release(trained).vae
    z = np.asarray(random(1, 2, 2, 3, 16))
    raw = z * np.float32(VAE.std) + np.float32(VAE.mean)
    with torch.no_grad():
        theirs = peer.decode(torch.from_numpy(raw.transpose(0, 4, 1, 2, 3))).sample
    theirs = theirs.numpy().transpose(0, 2, 3, 4, 1)
    ours = np.asarray(vae.decode(jnp.asarray(z)))
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)


def test_transformers_loads_the_text_encoder(tmp_path):
    original = checkpoints.write_diffusers(tmp_path / "original")
    convert(original, tmp_path / "release")
    export(read_release(tmp_path / "release"), tmp_path / "out", "diffusers")
    ids = torch.tensor([[5, 6, 1]])
    with torch.no_grad():
        one, other = (
            transformers.UMT5EncoderModel.from_pretrained(folder / "text_encoder")(ids)[0]
            for folder in (original, tmp_path / "out")
        )
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        tmp_path / "out" / "tokenizer", config=transformers.UMT5Config()
    )
    assert tokenizer("a sharp cat").input_ids[-1] == checkpoints.END


def test_a_vae_that_pytorch_does_not_have_is_refused(tiny_release, trained, tmp_path):
    with pytest.raises(InputError, match="PyTorch's VAE has norm 'rms'"):
        export(read_release(tiny_release), tmp_path / "out", "diffusers")
    source = read_release(trained)
    own = dataclasses.replace(source.card, vae=dataclasses.replace(VAE, mean=(0.0,) * 16))
    with pytest.raises(InputError, match="mean and deviation of its own"):
        export(dataclasses.replace(source, card=own), tmp_path / "out", "wan")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dialect", FORMATS)
def test_prompts_travel_with_the_control_branch(trained, tmp_path, dialect, monkeypatch):
    monkeypatch.setattr(TextEncoder, "encode", None)
    release = load_release(trained)
    states = {p: np.asarray(random(n, 24)) for p, n in (("", 1), ("sharp", 3))}
    release.prompts = PromptCache(states, 512, 24, "abc")
    save_release(tmp_path / "release", release)
    export(read_release(tmp_path / "release"), tmp_path / "torch", dialect)
    export(as_parts(release), tmp_path / "same", dialect)
    convert(tmp_path / "torch", tmp_path / "back")
    caches = [tmp_path / name / "prompts.safetensors" for name in ("release", "torch", "back")]
    assert len({path.read_bytes() for path in (*caches, tmp_path / "same" / caches[0].name)}) == 1
    for text in (True, False):
        found = load_checkpoint(tmp_path / "torch", text).prompts
        assert found.encoder == "abc"
        np.testing.assert_array_equal(found.lookup("sharp"), release.prompts.lookup("sharp"))
    convert(tmp_path / "torch", tmp_path / "dit", parts=["dit"])
    assert not load_release(tmp_path / "dit").prompts.states
    export(read_release(tmp_path / "dit"), tmp_path / "plain", dialect)
    assert not (tmp_path / "plain" / "prompts.safetensors").exists()


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("wan", "Wan's code needs models_t5_umt5-xxl-enc-bf16.pth and google/umt5-xxl/ too: copy"),
        ("diffusers", "WanPipeline needs text_encoder/ and tokenizer/ too: copy what the base"),
    ],
)
def test_what_a_pipeline_lacks_is_told(trained, tmp_path, caplog, dialect, message):
    caplog.set_level(logging.INFO)
    export(read_release(trained), tmp_path / "torch", dialect)
    assert message in caplog.text
    caplog.clear()
    convert(checkpoints.write_wan(tmp_path / "base"), tmp_path / "whole")
    export(read_release(tmp_path / "whole"), tmp_path / "whole_torch", dialect)
    assert "needs" not in caplog.text


def test_with_the_base_checkpoints_text_encoder_it_is_a_pipeline(trained, tmp_path):
    export(read_release(trained), tmp_path / "torch", "diffusers")
    base = checkpoints.write_diffusers(tmp_path / "base")
    for name in ("text_encoder", "tokenizer"):
        shutil.copytree(base / name, tmp_path / "torch" / name)
    pipeline = diffusers.WanPipeline.from_pretrained(tmp_path / "torch")
    assert pipeline.text_encoder.config.d_model == checkpoints.TEXT_DIM
    assert pipeline.tokenizer("a cat").input_ids[-1] == checkpoints.END


@pytest.mark.parametrize("dialect", FORMATS)
def test_an_export_is_replaced_and_nothing_else(trained, tmp_path, dialect):
    source, folder = read_release(trained), tmp_path / "torch"
    export(source, folder, dialect)
    before = checkpoints.tensors(folder).keys()
    export(source, folder, dialect, overwrite=True)
    assert checkpoints.tensors(folder).keys() == before
    with pytest.raises(InputError, match="torch exists; name a new folder"):
        export(source, folder, dialect)
    (folder / "vae").mkdir(exist_ok=True)
    (folder / "vae" / "notes.txt").write_text("mine")
    message = r"torch is not replaced: it holds vae/notes\.txt, which is no part of an export"
    with pytest.raises(InputError, match=message):
        export(source, folder, dialect, overwrite=True)
    assert (folder / "vae" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"it holds .*, which is no part of an export"):
        export(source, trained, dialect, overwrite=True)


def test_a_control_branch_wants_its_own_transformer(trained, tmp_path):
    export(read_release(trained), tmp_path / "torch", "wan")
    (tmp_path / "torch" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="is a control branch and goes with the transformer"):
        convert(tmp_path / "torch", tmp_path / "back")
    with pytest.raises(InputError, match="name both: --parts dit,cpc"):
        convert(tmp_path / "torch", tmp_path / "back", parts=["cpc"])
