"""Prompts and their states: padding, round trip, and what is refused."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from realisvsr_jax.errors import InputError
from realisvsr_jax.text.prompt_cache import PromptCache


def random_states() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = {"": 1, "a 'quoted' prompt": 4, "größer, 更清晰": 3}
    return {p: rng.standard_normal((n, 5)).astype(np.float32) for p, n in lengths.items()}


def test_look_up_pads_with_zeros_to_the_text_length():
    states = random_states()
    cache = PromptCache(states, 4, 5)
    for prompt, value in states.items():
        padded = cache.lookup(prompt)
        assert padded.shape == (4, 5)
        assert padded.dtype == np.float32
        np.testing.assert_array_equal(padded[: len(value)], value)
        assert not padded[len(value) :].any()


def test_a_round_trip_is_exact(tmp_path):
    states = random_states()
    PromptCache(states, 4, 5).save(tmp_path / "prompts")
    loaded = PromptCache.load(tmp_path / "prompts", 4, 5)
    assert loaded.states.keys() == states.keys()
    for prompt, value in states.items():
        np.testing.assert_array_equal(loaded.states[prompt], value)


def test_the_empty_prompt_is_zeros_without_an_encoder():
    cache = PromptCache.empty_prompt_only(4, 5)
    np.testing.assert_array_equal(cache.lookup(""), np.zeros((4, 5)))


def test_an_unknown_prompt_names_the_known():
    cache = PromptCache(random_states(), 4, 5)
    with pytest.raises(InputError, match=r"'blurry' is not in the cache.*use one of: '', \"a '"):
        cache.lookup("blurry")


@pytest.mark.parametrize(
    ("length", "dim", "message"),
    [
        (3, 5, "4 tokens, the model takes at most 3 (text_length); encode the prompts with --text"),
        (4, 6, "a width of 5, the model takes 6 (text_dim): another text encoder made them"),
    ],
)
def test_states_of_another_model_are_refused_with_their_file(tmp_path, length, dim, message):
    PromptCache(random_states(), 4, 5).save(tmp_path / "prompts")
    with pytest.raises(InputError) as error:
        PromptCache.load(tmp_path / "prompts", length, dim)
    assert str(error.value).startswith(f"{tmp_path / 'prompts'}: the text states of ")
    assert message in str(error.value)


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    save_file({"0": np.zeros((1, 5), np.float32)}, tmp_path / "no_prompts")
    save_file({}, tmp_path / "no_states", metadata={"prompts": '["a"]'})
    save_file({}, tmp_path / "no_list", metadata={"prompts": "5"})
    for name in ("text", "no_prompts", "no_states", "no_list", "absent"):
        with pytest.raises(InputError, match=rf"{name} is not a prompt cache"):
            PromptCache.load(tmp_path / name, 4, 5)
    for name, message in (
        ("no_prompts", "it has no list of prompts; name a file that convert.encode_prompts wrote"),
        ("absent", "there is no such file"),
        (".", "it is a folder"),
    ):
        with pytest.raises(InputError, match=f"is not a prompt cache: {message}"):
            PromptCache.load(tmp_path / name, 4, 5)
