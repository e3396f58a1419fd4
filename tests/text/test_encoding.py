"""The encoder layer by layer: the states of the whole one, whatever the order and the padding."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch_checkpoints as checkpoints
from flax import nnx
from random_networks import fast_jit

from realisvsr_jax.errors import InputError
from realisvsr_jax.text import encoding
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.text.tokenizer import Tokenizer
from realisvsr_jax.text.umt5 import UMT5Encoder
from realisvsr_jax.weights import assembly
from realisvsr_jax.weights.importing import convert, open_checkpoint, text_encoder

PROMPTS = ["", "a cat", "a sharp video " * 9, "sharp", "a sharp video of a cat", "x" * 150]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoints.write_wan(tmp_path_factory.mktemp("text") / "wan")


@pytest.fixture(scope="module")
def whole(folder):
    """The states of every prompt from the whole encoder at full length."""
    imported = open_checkpoint(folder, ["text_encoder"])
    config = imported.card.text_encoder
    tensors = imported.parts["text_encoder"]
    model = assembly.build(lambda: UMT5Encoder(config, rngs=nnx.Rngs(0)), tensors, folder)
    tokens, mask = Tokenizer(folder / "google" / "umt5-xxl")(PROMPTS, 512)
    states = fast_jit(UMT5Encoder.__call__)(model, jnp.asarray(tokens), jnp.asarray(mask))
    return {p: np.asarray(s)[:k] for p, s, k in zip(PROMPTS, states, mask.sum(1))}


@pytest.mark.parametrize(("batch", "tokens"), [(8, 1 << 15), (2, 1 << 15), (2, 64)])
def test_states_are_those_of_the_whole_encoder(folder, whole, monkeypatch, batch, tokens):
    monkeypatch.setattr(encoding, "BATCH", batch)
    monkeypatch.setattr(encoding, "TOKENS", tokens)
    seen = []
    states = text_encoder(folder).encode(PROMPTS, lambda *n: seen.append(n))
    assert states.keys() == whole.keys()
    for prompt, expected in whole.items():
        assert states[prompt].dtype == np.float32
        assert states[prompt].shape == expected.shape
        error = np.linalg.norm(states[prompt] - expected) / np.linalg.norm(expected)
        assert error < 1e-5, prompt
    done, total = zip(*seen)
    assert set(total) == {len(seen)}
    assert list(done) == list(range(1, len(seen) + 1))


def test_prompts_are_cut_to_the_models_length(folder):
    states = text_encoder(folder, text_length=7).encode(["a sharp video " * 9])
    assert next(iter(states.values())).shape == (7, checkpoints.TEXT_DIM)


def test_an_encoder_is_known_by_its_fingerprint(folder, tmp_path):
    encoder = text_encoder(folder)
    convert(folder, tmp_path / "release", parts=["text_encoder", "dit"])
    assert text_encoder(tmp_path / "release").fingerprint == encoder.fingerprint
    cache = PromptCache({}, 512, 24).joined(encoder.encode([""]), encoder.fingerprint)
    cache.save(tmp_path / "cache.safetensors")
    again = PromptCache.load(tmp_path / "cache.safetensors", 512, 24)
    again.check_encoder(encoder.fingerprint, "cache")
    with pytest.raises(InputError, match="cache was made by another text encoder"):
        again.check_encoder("0" * 16, "cache")
    before = (tmp_path / "cache.safetensors").read_bytes()
    again.save(tmp_path / "cache.safetensors")
    assert (tmp_path / "cache.safetensors").read_bytes() == before


def test_what_is_missing_is_named(folder, tmp_path):
    lone = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    assert text_encoder(lone).encode(["a cat"])  # its tokenizer lies beside it
    elsewhere = tmp_path / "t5.pth"
    elsewhere.write_bytes(lone.read_bytes())
    with pytest.raises(InputError, match=r"its tokenizer\.json is not; put that beside it into"):
        text_encoder(elsewhere)
    assert text_encoder(elsewhere, folder / "google" / "umt5-xxl").encode(["a cat"])
    convert(folder, tmp_path / "vae", parts=["vae"])
    with pytest.raises(InputError, match="vae has no text encoder"):
        text_encoder(tmp_path / "vae")
