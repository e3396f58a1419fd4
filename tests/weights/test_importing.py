"""Checkpoints of both layouts as releases: bit for bit, with everything wrong in them named."""

import json
import logging
import shutil

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import torch_checkpoints as checkpoints
from flax import nnx
from safetensors.torch import load_file, save_file

from realisvsr_jax.errors import InputError
from realisvsr_jax.vae.wan_vae import WAN_MEAN
from realisvsr_jax.weights import importing
from realisvsr_jax.weights.importing import convert, load_checkpoint, open_checkpoint
from realisvsr_jax.weights.release import load_card, load_release

DIT = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The same weights in both layouts."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "wan": checkpoints.write_wan(folder / "wan"),
        "diffusers": checkpoints.write_diffusers(folder / "diffusers"),
    }


@pytest.fixture
def checkpoint(originals, tmp_path):
    """A diffusers folder, its transformer in one file, to be spoilt."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(originals["diffusers"], folder)
    shutil.rmtree(folder / "transformer")
    checkpoints.transformer().save_pretrained(folder / "transformer")
    return folder


def values(network):
    leaves = nnx.to_flat_state(nnx.state(network))
    return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}


def assert_same(ours, theirs):
    ours, theirs = values(ours), values(theirs)
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_both_layouts_are_one_release(originals, tmp_path):
    cards = {name: convert(path, tmp_path / name) for name, path in originals.items()}
    assert cards["wan"] == cards["diffusers"] == load_card(tmp_path / "wan")
    one, other = (load_release(tmp_path / name) for name in originals)
    assert_same(one.vae, other.vae)
    assert_same(one.model, other.model)
    direct = load_checkpoint(originals["wan"])
    assert_same(direct.model, one.model)
    assert_same(direct.vae, one.vae)
    for release in (other, direct):  # the wan folder's encoder is in bfloat16
        states = release.prompts.lookup("")
        assert np.abs(states - one.prompts.lookup("")).max() < 0.1
        assert np.abs(states[0]).max() > 0.1
        assert not states[1:].any()


def test_the_architecture_is_read_off_the_weights(originals):
    card = open_checkpoint(originals["wan"]).card
    dit = card.model.dit
    assert (dit.dim, dit.ffn_dim, dit.num_heads, dit.num_layers) == (40, 48, 2, 3)
    assert (dit.text_dim, dit.freq_dim, dit.patch_size) == (24, 32, (1, 2, 2))
    assert (dit.in_channels, dit.out_channels, dit.text_length) == (16, 16, 512)
    assert card.model.cpc is None
    assert (card.vae.base_dim, card.vae.multipliers) == (4, (1, 2, 4, 4))
    assert (card.vae.encoder_blocks, card.vae.decoder_blocks) == (2, 3)
    assert card.vae.temporal_downsample == (False, True, True)
    assert card.vae.mean == WAN_MEAN
    text = card.text_encoder
    assert (text.d_kv, text.num_heads, text.num_layers, text.d_ff) == (4, 3, 2, 32)


def test_one_file_is_enough(originals, tmp_path):
    convert(originals["wan"] / "Wan2.1_VAE.pth", tmp_path / "vae")
    card = load_card(tmp_path / "vae")
    assert card.model is None
    assert_same(load_release(tmp_path / "vae").vae, load_checkpoint(originals["wan"]).vae)
    convert(originals["wan"], tmp_path / "dit", parts=["dit"])
    assert load_card(tmp_path / "dit").vae is None
    lone = tmp_path / "lone.safetensors"
    shutil.copyfile(originals["wan"] / "diffusion_pytorch_model.safetensors", lone)
    with pytest.raises(InputError, match=r"how many heads a width of 40 has; put the checkpoint's"):
        convert(lone, tmp_path / "out")


def test_bfloat16_is_for_the_transformers_matrices_alone(originals, tmp_path):
    convert(originals["wan"], tmp_path / "half", model_dtype="bfloat16")
    exact, half = (load_checkpoint(originals["wan"]), load_release(tmp_path / "half"))
    assert_same(half.vae, exact.vae)
    exact = values(exact.model)
    for path, value in values(half.model).items():
        expected = exact[path]
        if path.endswith("kernel"):
            expected = expected.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(value, expected, err_msg=path)
    text = load_file(tmp_path / "half" / "text_encoder.safetensors")
    assert {tensor.dtype for tensor in text.values()} == {torch.bfloat16}  # as it was


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float64"])
def test_every_stored_float_is_widened_or_rounded_once(checkpoint, dtype):
    def narrow(tensors):
        for name in tensors:
            tensors[name] = tensors[name].to(getattr(torch, dtype))

    edit(checkpoint / DIT, narrow)
    release = load_checkpoint(checkpoint, text=False)
    theirs = load_file(checkpoint / DIT)["blocks.1.ffn.net.0.proj.weight"].float().numpy()
    np.testing.assert_array_equal(values(release.model)["dit/blocks/ffn/up/kernel"][1], theirs.T)


def test_wrong_tensors_are_listed_with_their_files(checkpoint, tmp_path):
    def spoil(tensors):
        del tensors["blocks.2.attn1.to_k.bias"]
        del tensors["proj_out.bias"]
        tensors["blocks.0.attn2.surplus.weight"] = torch.ones(2)
        tensors["blocks.1.ffn.net.2.weight"] = torch.ones(48, 40)

    edit(checkpoint / DIT, spoil)
    with pytest.raises(InputError) as error:
        convert(checkpoint, tmp_path / "out")
    file = "diffusion_pytorch_model.safetensors"
    assert str(error.value) == (
        f"{checkpoint / DIT}: 2 tensors missing: blocks.2.attn1.to_k.bias, proj_out.bias; "
        f"1 tensor unknown: blocks.0.attn2.surplus.weight ({file}); "
        f"1 tensor of another shape: blocks.1.ffn.net.2.weight (48, 40), not (40, 48) ({file})"
    )
    assert not (tmp_path / "out").exists()


def test_two_files_with_one_network_are_refused(checkpoint):
    shutil.copyfile(checkpoint / DIT, checkpoint / "transformer" / "model.fp16.safetensors")
    with pytest.raises(InputError, match=r"both hold a dit; give the one that is meant"):
        open_checkpoint(checkpoint)


def test_what_is_nothing_of_wan_is_left_out_or_refused(checkpoint, caplog):
    torch.save({"visual.weight": torch.ones(2)}, checkpoint / "clip.pth")
    with caplog.at_level(logging.WARNING):
        assert open_checkpoint(checkpoint).card.vae is not None
    assert "clip.pth: no part of Wan or RealisVSR that is known; left out" in caplog.text
    with pytest.raises(InputError, match=r"clip\.pth holds no weights of Wan"):
        open_checkpoint(checkpoint / "clip.pth")
    with pytest.raises(InputError, match=r"model_index\.json is no checkpoint; known endings: "):
        open_checkpoint(checkpoint / "model_index.json")
    with pytest.raises(InputError, match="no such file or folder"):
        open_checkpoint(checkpoint / "missing")
    with pytest.raises(InputError, match="unknown part 'unet'; known: dit, vae"):
        open_checkpoint(checkpoint, ["unet"])


def test_parts_that_are_named_have_to_be_there(checkpoint, tmp_path):
    message = "checkpoint has no cpc; it has dit, vae, text_encoder"
    with pytest.raises(InputError, match=message):
        convert(checkpoint, tmp_path / "out", parts=["dit", "cpc"])
    with pytest.raises(InputError, match="no part is named; known: dit, vae"):
        convert(checkpoint, tmp_path / "out", parts=[])
    assert not (tmp_path / "out").exists()
    assert load_checkpoint(checkpoint, text=False).model is not None
    with pytest.raises(InputError, match="text_encoder has a text encoder and nothing else"):
        load_checkpoint(checkpoint / "text_encoder", text=False)


def test_a_run_is_no_checkpoint(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is a RUN, the state of a training; use it with upscale"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("wan", {"model_type": "i2v"}, "a transformer of Wan's kind 'i2v'"),
        ("diffusers", {"image_dim": 1280}, "an image-to-video transformer"),
        ("diffusers", {"added_kv_proj_dim": 40}, "an image-to-video transformer"),
    ],
)
def test_other_kinds_of_wan_are_refused(originals, tmp_path, layout, changes, message):
    folder = tmp_path / "other"
    shutil.copytree(originals[layout], folder)
    path = folder / "config.json" if layout == "wan" else folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError) as error:
        open_checkpoint(folder)
    assert str(error.value).endswith(f": {message}; only text to video can be converted")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.0.cross_attn.k_img.weight", "an image-to-video transformer"),
        ("img_emb.proj.0.weight", "an image-to-video transformer"),
        ("blocks.0.attn2.add_k_proj.weight", "an image-to-video transformer"),
        ("condition_embedder.image_embedder.norm1.weight", "an image-to-video transformer"),
        ("vace_blocks.0.after_proj.weight", "a VACE transformer"),
    ],
)
def test_other_kinds_are_known_by_their_tensors(originals, tmp_path, name, message):
    """A file alone, without a configuration that says how many heads there are."""
    tensors = load_file(originals["wan"] / "diffusion_pytorch_model.safetensors")
    save_file(tensors | {name: torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError) as error:
        open_checkpoint(tmp_path / "x.safetensors")
    expected = f"{tmp_path / 'x.safetensors'}: {message}; only text to video can be converted"
    assert str(error.value) == expected


def test_more_channels_in_than_out_are_refused(originals, tmp_path):
    def widen(tensors):
        tensors["patch_embedding.weight"] = torch.ones(40, 36, 1, 2, 2)

    path = tmp_path / "x.safetensors"
    shutil.copyfile(originals["wan"] / "diffusion_pytorch_model.safetensors", path)
    edit(path, widen)
    with pytest.raises(InputError, match="takes 36 channels and gives 16, so it has inputs beside"):
        open_checkpoint(path)


def test_wrappers_names_are_seen_through(checkpoint, tmp_path):
    tensors = {f"model.diffusion_model.{n}": t for n, t in load_file(checkpoint / DIT).items()}
    save_file(tensors, checkpoint / DIT)
    assert open_checkpoint(checkpoint).card.model is not None


def test_weights_that_are_not_finite_are_named(checkpoint, tmp_path, caplog):
    def spoil(tensors):
        tensors["proj_out.bias"][3] = float("nan")

    edit(checkpoint / DIT, spoil)
    with caplog.at_level(logging.WARNING):
        convert(checkpoint, tmp_path / "out")
    assert f"{checkpoint / DIT}: proj_out.bias: 1 values are not finite" in caplog.text


def test_a_conversion_that_dies_leaves_nothing(originals, tmp_path, monkeypatch):
    def no_space(folder, *_):
        (folder / "half").write_text("written")
        raise OSError("no space left on device")

    monkeypatch.setattr(importing, "write_release", no_space)
    with pytest.raises(InputError, match="out cannot be written: no space left"):
        convert(originals["wan"], tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out exists"):
        convert(originals["wan"], tmp_path / "out")


def test_a_tied_embedding_is_read_under_either_name_or_both(checkpoint):
    path = checkpoint / "text_encoder" / "model.safetensors"
    embedding = load_file(path)["shared.weight"]
    edit(path, lambda t: t.update({"encoder.embed_tokens.weight": embedding.clone()}))
    found = open_checkpoint(checkpoint).parts["text_encoder"]
    np.testing.assert_array_equal(found["embedding"].value, embedding.numpy())
    edit(path, lambda t: t.pop("shared.weight"))
    found = open_checkpoint(checkpoint).parts["text_encoder"]
    np.testing.assert_array_equal(found["embedding"].value, embedding.numpy())
    edit(path, lambda t: t.update({"shared.weight": 0 * embedding}))
    with pytest.raises(InputError, match=r"shared\.weight and encoder\.embed_tokens\.weight diff"):
        open_checkpoint(checkpoint)


def test_without_a_text_encoder_there_is_no_prompt(checkpoint, tmp_path, caplog):
    shutil.rmtree(checkpoint / "text_encoder")
    convert(checkpoint, tmp_path / "out")
    assert "encode the empty prompt with python -m convert.encode_prompts" in caplog.text
    with pytest.raises(InputError, match=r"prompt '' is not in the cache; encode it with"):
        load_release(tmp_path / "out").prompts.lookup("")


def test_a_text_encoder_without_its_tokenizer_is_told(checkpoint, tmp_path, caplog):
    (checkpoint / "tokenizer").rename(tmp_path / "elsewhere")
    convert(checkpoint, tmp_path / "out")
    assert (
        "the text encoder is there, its tokenizer.json is not; encode the empty prompt with python "
        "-m convert.encode_prompts --text-encoder PATH --tokenizer FOLDER, which uses this"
    ) in caplog.text
    encoder = importing.text_encoder(tmp_path / "out", tmp_path / "elsewhere")
    assert encoder.encode([""])


def test_the_converted_transformer_is_the_peers(originals, tmp_path):
    convert(originals["diffusers"], tmp_path / "out", parts=["dit"])
    model = load_release(tmp_path / "out").model
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 2, 4, 6, 16)).astype(np.float32)
    text = rng.standard_normal((1, 512, 24)).astype(np.float32)
    time = np.array([500.0], np.float32)
    with torch.no_grad():
        theirs = checkpoints.transformer()(
            torch.from_numpy(z.transpose(0, 4, 1, 2, 3)),
            torch.from_numpy(time),
            torch.from_numpy(text),
            return_dict=False,
        )[0]
    ours = np.asarray(model.dit(*map(jnp.asarray, (z, time, text))))
    theirs = theirs.numpy().transpose(0, 2, 3, 4, 1)
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)
    with pytest.raises(ValueError, match="there is no control branch"):
        model(*map(jnp.asarray, (z, time, z, text)))
