"""Prompts cleaned, cut into tokens, padded and truncated; what is refused."""

import socket

import numpy as np
import pytest
from torch_checkpoints import END, PAD, PIECES, SPECIAL, UNKNOWN, write_tokenizer

from realisvsr_jax.errors import InputError
from realisvsr_jax.text.tokenizer import Tokenizer, clean


@pytest.fixture
def folder(tmp_path):
    """A folder like the one in Wan's checkpoints."""
    return write_tokenizer(tmp_path)


def ids(*pieces: str) -> list[int]:
    return [(SPECIAL + PIECES).index(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("", ""),
        ("a cat", "a cat"),
        ("  a\tsharp\r\n\n  video ", "a sharp video"),
        ("a\u00a0cat\u3000here", "a cat here"),
        ("salt &amp; pepper", "salt & pepper"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        # ftfy leaves entities alone beside a "<"; what remains is resolved exactly twice.
        ("<i>salt &amp;amp; pepper", "<i>salt & pepper"),
        ("<i>salt &amp;amp;amp; pepper", "<i>salt &amp; pepper"),
        ("a&nbsp;&nbsp;cat", "a cat"),
        ("&lt;b&gt;", "<b>"),
        ("the cafÃ©â€™s terrace", "the café's terrace"),
        ("“quoted”", '"quoted"'),
        ("ﬁlm grain", "film grain"),
        ("Ｗｉｄｅ", "Wide"),
        ("电影 质感", "电影 质感"),
        ("Case and_underscores stay.", "Case and_underscores stay."),
    ],
)
def test_cleaning(prompt, cleaned):
    assert clean(prompt) == cleaned


def test_tokens_are_padded_on_the_right_behind_the_end(folder):
    tokens, mask = Tokenizer(folder)(["a sharp video", "", "cat"], 6)
    assert tokens.dtype == mask.dtype == np.int32
    expected = [ids("▁a", "▁sharp", "▁video", "</s>"), ids("</s>"), ids("▁cat", "</s>")]
    for row, kept, known in zip(tokens, mask, expected):
        np.testing.assert_array_equal(row, known + [PAD] * (6 - len(known)))
        np.testing.assert_array_equal(kept, [1] * len(known) + [0] * (6 - len(known)))


def test_a_long_prompt_is_cut_and_still_ends(folder):
    tokens, mask = Tokenizer(folder)(["a cat a cat a cat"], 4)
    np.testing.assert_array_equal(tokens, [ids("▁a", "▁cat", "▁a", "</s>")])
    np.testing.assert_array_equal(mask, np.ones((1, 4)))


def test_the_length_is_wans_where_none_is_given(folder):
    tokens, mask = Tokenizer(folder)(["a cat " * 300])
    assert tokens.shape == mask.shape == (1, 512)
    assert tokens[0, -1] == END


def test_tokens_spell_the_prompt(folder):
    tokenizer = Tokenizer(folder)
    tokens, mask = tokenizer(["a sharp quaint video"], 16)
    kept = tokens[mask == 1]
    assert tokenizer.tokenizer.decode(kept, skip_special_tokens=True) == "a sharp quaint video"


def test_prompts_are_cleaned_first(folder):
    tokenizer = Tokenizer(folder)
    messy, plain = (tokenizer([p], 6)[0] for p in (" a &amp;nbsp; cat\n", "a cat"))
    np.testing.assert_array_equal(messy, plain)


def test_the_file_is_used_as_it_stands(folder):
    """transformers' T5Tokenizer would make the third token the unknown one."""
    tokens, _ = Tokenizer(folder)(["a 猫"], 5)
    np.testing.assert_array_equal(tokens, [[*ids("▁a", "▁"), UNKNOWN, END, PAD]])


def test_nothing_is_fetched(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    Tokenizer(folder)


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"{name} has no tokenizer\.json; give .* google/umt5"):
        Tokenizer(tmp_path / name)


def test_a_broken_file_is_refused_in_one_line(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"^the tokenizer in \S+ cannot be read: .+$"):
        Tokenizer(folder)


def test_a_tokenizer_that_cannot_pad_is_refused(folder):
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match=r"names no padding token; copy .*tokenizer_config\.json"):
        Tokenizer(folder)
