"""A release on disk: exact round trips, its tensors by name, and every way it can be broken."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_networks import drawn
from safetensors.numpy import load_file, save_file

from realisvsr_jax.errors import InputError
from realisvsr_jax.model.cpc import CPCConfig
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.model.wan_dit import DiTConfig
from realisvsr_jax.sampling.solvers import SamplerConfig
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.vae.wan_vae import TINY_VAE, WanVAE
from realisvsr_jax.weights import release as module
from realisvsr_jax.weights import writers
from realisvsr_jax.weights.release import (
    Release,
    ReleaseCard,
    check_output,
    load_card,
    load_release,
    load_vae,
    release_hash,
    save_release,
)

DIT = DiTConfig(
    dim=12,
    ffn_dim=16,
    num_heads=2,
    num_layers=3,
    in_channels=2,
    out_channels=2,
    text_dim=5,
    text_length=4,
    freq_dim=8,
)
MODEL = RealisVSRConfig(DIT, CPCConfig(num_blocks=2))
VAE = dataclasses.replace(TINY_VAE, base_dim=4, z_dim=2, mean=(0.1, 0.2), std=(1.5, 0.5))
CARD = ReleaseCard(
    vae=VAE,
    model=MODEL,
    sampler=SamplerConfig(solver="euler", steps=7, shift=3.5),
    scale=2,
    tile=(5, 64, 96),
    overlap=(1, 16, 24),
    prompt="sharp",
    commit="abc",
)


@pytest.fixture(scope="module")
def release() -> Release:
    states = {"": np.zeros((1, 5), np.float32), "sharp": np.ones((3, 5), np.float32) / 3}
    return Release(
        CARD,
        drawn(lambda: WanVAE(VAE, rngs=nnx.Rngs(0))),
        drawn(lambda: RealisVSR(MODEL, rngs=nnx.Rngs(0)), seed=1),
        PromptCache(states, 4, 5),
    )


@pytest.fixture
def saved(release, tmp_path) -> Path:
    save_release(tmp_path / "new" / "tiny", release)
    return tmp_path / "new" / "tiny"


def values(network) -> dict[str, np.ndarray]:
    leaves = nnx.to_flat_state(nnx.state(network))
    return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in leaves}


def assert_same(ours, theirs) -> None:
    ours, theirs = values(ours), values(theirs)
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


def change(folder: Path, part: str, edit) -> None:
    path = folder / f"{part}.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_a_round_trip_is_exact(release, saved):
    loaded = load_release(saved)
    assert loaded.card == CARD
    assert_same(loaded.vae, release.vae)
    assert_same(loaded.model, release.model)
    assert_same(load_vae(saved), release.vae)
    for prompt in ("", "sharp"):
        states = loaded.prompts.lookup(prompt)
        np.testing.assert_array_equal(states, release.prompts.lookup(prompt))


def test_every_layer_is_a_tensor_of_its_own(release, saved):
    tensors = load_file(saved / "model.safetensors")
    query = values(release.model)["dit/blocks/self_attn/q/kernel"]
    for layer in range(3):
        tensor = tensors[f"dit.blocks.{layer}.self_attn.q.kernel"]
        np.testing.assert_array_equal(tensor, query[layer])
    assert tensors["cpc.blocks.1.modulation"].shape == (6, 12)
    assert tensors["cpc.out.1.kernel"].shape == (12, 12)
    assert tensors["cpc.out.0.bias"].shape == (12,)
    assert tensors["gamma"].shape == (3,)
    assert tensors["dit.head.modulation"].shape == (2, 12)


def test_bfloat16_is_for_the_transformers_kernels_alone(release, tmp_path):
    save_release(tmp_path / "half", release, model_dtype="bfloat16")
    header = (tmp_path / "half" / "model.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    for name, tensor in json.loads(header[8 : 8 + length]).items():
        if name != "__metadata__":
            assert tensor["dtype"] == ("BF16" if name.endswith("kernel") else "F32"), name
    loaded = load_release(tmp_path / "half")
    assert_same(loaded.vae, release.vae)
    exact = values(release.model)
    for path, value in values(loaded.model).items():
        expected = exact[path]
        if path.endswith("kernel"):
            expected = np.asarray(jnp.asarray(expected, jnp.bfloat16), np.float32)
            assert not np.array_equal(expected, exact[path])
        np.testing.assert_array_equal(value, expected, err_msg=path)


def test_shards_hold_everything_once(release, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "SHARD_BYTES", 4000)
    folder = tmp_path / "sharded"
    save_release(folder, release)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    together = {}
    for shard in shards:
        tensors = load_file(shard)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 4000
        assert not together.keys() & tensors.keys()
        together |= tensors
    assert together.keys() == load_file(saved / "model.safetensors").keys()
    assert_same(load_release(folder).model, release.model)
    shards[1].unlink()
    with pytest.raises(InputError, match=r"\d+ tensors missing: "):
        load_release(folder)


def test_a_vae_alone_is_a_release(release, tmp_path):
    save_release(tmp_path / "vae", Release(ReleaseCard(VAE), release.vae))
    loaded = load_release(tmp_path / "vae")
    assert (loaded.model, loaded.prompts) == (None, None)
    assert_same(loaded.vae, release.vae)


def test_without_prompts_none_is_made_up(saved):
    (saved / "prompts.safetensors").unlink()
    with pytest.raises(InputError, match=r"the prompt '' is not in the cache; encode it with"):
        load_release(saved).prompts.lookup("")


def test_missing_extra_and_misshapen_tensors_are_named(saved):
    name = "dit.blocks.1.ffn.up.kernel"
    change(saved, "model", lambda tensors: tensors.update(surplus=tensors[name]))
    with pytest.raises(InputError, match=r"1 tensor unknown: surplus \(model\.safetensors\)"):
        load_release(saved)
    change(saved, "model", lambda tensors: tensors.pop("surplus"))
    change(saved, "model", lambda tensors: tensors.update({name: tensors[name][:, :3]}))
    with pytest.raises(InputError, match=r"another shape: .*up\.kernel \(12, 3\), not \(12, 16\)"):
        load_release(saved)
    change(saved, "model", lambda tensors: tensors.pop(name))
    with pytest.raises(InputError, match=f"1 tensor missing: {name}"):
        load_release(saved)


def test_a_tensor_in_two_shards_is_refused(saved):
    shard = saved / "vae-00001-of-00002.safetensors"
    shard.write_bytes((saved / "vae.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"tensors doubled: .*; also in .*vae-00001"):
        load_vae(saved)


def test_weights_of_another_configuration_are_refused(saved):
    card = json.loads((saved / "model.json").read_text())
    card["model"]["dit"]["num_layers"] = 2
    (saved / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"27 tensors unknown: .*gamma \(3,\), not \(2,\)"):
        load_release(saved)


def test_files_that_are_no_tensors_are_refused(saved):
    (saved / "vae.safetensors").write_text("not tensors")
    with pytest.raises(InputError, match=r"vae\.safetensors cannot be read"):
        load_release(saved)
    (saved / "vae.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no vae\.safetensors"):
        load_release(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not of release format 1"),
        ('{"format": 2}', "is not of release format 1"),
        ('{"format": 1}', "neither a vae, nor a model, nor a text_encoder is described"),
        ('{"format": 1, "vea": {}}', "unknown setting 'vea'; did you mean 'vae'?"),
        ('{"format": 1, "vae": {"z_dims": 4}}', "'vae.z_dims'; did you mean 'z_dim'?"),
        ('{"format": 1, "vae": {"z_dim": 4}}', "z_dim is 4, mean has 16"),
        ('{"format": 1, "vae": {}, "tile": [5, 64]}', "'tile' takes 3 values, 2 are given"),
    ],
)
def test_a_card_that_cannot_be_is_refused_with_its_path(tmp_path, text, message):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(InputError) as error:
        load_card(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_folder_without_a_card_is_no_release(tmp_path):
    with pytest.raises(InputError, match=r"is not a release folder: it has no model\.json"):
        load_release(tmp_path)
    with pytest.raises(InputError, match="nope: no such folder"):
        load_release(tmp_path / "nope")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"is a RUN, .*use it with upscale --checkpoint, or make a"
    ):
        load_release(tmp_path)


def test_nothing_is_replaced_unless_asked(release, saved):
    before = release_hash(saved)
    with pytest.raises(InputError, match="exists; name a new folder"):
        save_release(saved, release, model_dtype="bfloat16")
    assert release_hash(saved) == before
    (saved / "model-00001-of-00002.safetensors").write_bytes(b"old")
    save_release(saved, release, overwrite=True)
    assert release_hash(saved) == before


def test_a_failure_leaves_the_old_release_and_no_partial_one(release, saved, monkeypatch):
    before = release_hash(saved)

    def no_space(folder, part, tensors, **_):
        (folder / "half").write_text("written")
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "save_tensors", no_space)
    with pytest.raises(InputError, match="cannot be written: no space left"):
        save_release(saved, release, overwrite=True)
    assert release_hash(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_what_is_no_release_is_not_replaced(release, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    save_release(mine, release, overwrite=True)  # an empty folder may go
    (mine / "thesis.txt").write_text("years")
    message = r"mine is not replaced: it holds thesis\.txt, which is no part of a release; name a"
    for overwrite in (False, True):
        with pytest.raises(InputError, match=message):
            save_release(mine, release, overwrite=overwrite)
    assert (mine / "thesis.txt").read_text() == "years"
    (mine / "thesis.txt").rename(mine / "tokenizer")
    with pytest.raises(InputError, match="it holds tokenizer, which is no part"):
        save_release(mine, release, overwrite=True)
    (mine / "tokenizer").unlink()
    (mine / "model.json").unlink()
    with pytest.raises(InputError, match=r"it is not a release \(no model\.json\)"):
        save_release(mine, release, overwrite=True)
    assert (mine / "model.safetensors").is_file()


def test_files_and_links_are_not_replaced(release, saved, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(saved)
    for name in ("file", "link"):
        with pytest.raises(InputError, match=f"{name} is a {name}; name a new folder"):
            save_release(tmp_path / name, release, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_output_lies_apart_from_the_input(saved, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(saved)
    monkeypatch.chdir(tmp_path)
    for output, message in (
        ("new/tiny", "new/tiny is the input itself; name a folder elsewhere"),
        ("new/../new/tiny", "is the input itself"),
        ("link", "is the input itself"),
        ("new", f"new contains the input {saved}; name a folder elsewhere"),
        ("new/tiny/sub/out", "new/tiny/sub/out lies within the input"),
    ):
        with pytest.raises(InputError, match=message):
            check_output(Path(output), True, source=saved)
    with pytest.raises(InputError, match="new/tiny contains the input"):
        check_output(Path("new/tiny"), True, source=saved / "vae.safetensors")
    check_output(Path("new/other"), source=saved)


@pytest.mark.parametrize("place", ["/proc/xx", "file/xx"])
def test_an_output_that_cannot_be_made_is_named_at_once(release, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    with pytest.raises(InputError, match=rf"^{place}/out cannot be made: .*; name another place$"):
        save_release(Path(place) / "out", release)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_release_that_cannot_be_put_in_place_leaves_the_old_one(release, saved, monkeypatch):
    before, rename = release_hash(saved), Path.rename

    def fails(path, target):
        if path.name.endswith(".partial"):
            raise OSError("no such luck")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(InputError, match="cannot be written: no such luck"):
        save_release(saved, release, overwrite=True)
    assert release_hash(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_an_unknown_stored_type_is_refused_before_anything_is_written(release, tmp_path):
    with pytest.raises(InputError, match="model_dtype is 'float16'; known: float32, bfloat16"):
        save_release(tmp_path / "tiny", release, model_dtype="float16")
    assert not list(tmp_path.iterdir())


def test_the_hash_is_that_of_card_and_tensors(release, saved, tmp_path):
    before = release_hash(saved)
    save_release(tmp_path / "again", release)
    assert release_hash(tmp_path / "again") == before
    (saved / "README.md").write_text("added by a hub")
    (saved / ".cache").mkdir()
    assert release_hash(saved) == before
    change(saved, "model", lambda tensors: tensors.update(gamma=tensors["gamma"] + 1e-6))
    assert release_hash(saved) != before
