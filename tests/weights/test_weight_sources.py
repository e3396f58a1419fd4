"""Where a checkpoint is: shards that are all there, folders, and models of the hub."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from realisvsr_jax.errors import InputError
from realisvsr_jax.weights import sources


def write(folder, *numbers, of=3, stem="m"):
    for number in numbers:
        path = folder / f"{stem}-{number:05}-of-{of:05}.safetensors"
        save_file({f"{stem}{number}": torch.ones(2)}, path)


def test_shards_are_together(tmp_path):
    write(tmp_path, 1, 2, 3)
    write(tmp_path, 1, 2, of=2, stem="n")
    assert [len(group) for group in sources.find_files(tmp_path)] == [3, 2]


def test_shards_that_are_missing_are_named_without_an_index(tmp_path):
    write(tmp_path, 2)
    with pytest.raises(InputError) as error:
        sources.find_files(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: 2 shards of 3 missing: m-00001-of-00003.safetensors, "
        "m-00003-of-00003.safetensors; download what is missing"
    )


def test_one_shard_is_not_taken_for_the_whole(tmp_path):
    write(tmp_path, 1, 2)
    path = tmp_path / "m-00002-of-00003.safetensors"
    message = r"is one shard of 3; give their folder \(1 shard missing: m-00003-of-00003"
    with pytest.raises(InputError, match=message):
        sources.find_files(path)
    write(tmp_path, 3)
    with pytest.raises(InputError, match=r"one shard of 3; give their folder \(all are there\)"):
        sources.find_files(path)
    write(tmp_path, 1, of=1)
    whole = tmp_path / "m-00001-of-00001.safetensors"
    assert sources.find_files(whole) == [[whole]]


def test_shards_of_something_else_are_counted(tmp_path, caplog):
    write(tmp_path, 1, 2, 3)
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="holds no weights of"):
        sources.find_sources(tmp_path)
    assert "m-00001-of-00003.safetensors and 2 more of its shards: no part of Wan" in caplog.text


def test_encoded_prompts_are_no_weights(tmp_path):
    save_file({"0": torch.ones(1, 2)}, tmp_path / "prompts.safetensors", {"prompts": "[]"})
    with pytest.raises(InputError, match="holds no file with weights"):
        sources.find_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("here/wan", "here/wan: no such file or folder (here is a folder here); if the hub's"),
        ("./wan", "./wan: no such file or folder"),
        ("../a/b", "../a/b: no such file or folder"),
        ("~/wan", "~/wan: no such file or folder"),
        ("~nobody-has-this-name/wan", "~nobody-has-this-name/wan: no such file or folder"),
        ("a/b/c", "a/b/c: no such file or folder, and no id of a model (owner/name)"),
    ],
)
def test_a_path_is_not_looked_for_on_the_hub(tmp_path, monkeypatch, name, message):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(InputError) as error:
        sources.resolve(name)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Cannot find a folder. To enable look-ups, set this.", "Cannot find a folder"),
        ("x" * 300 + ".", "x" * 300),
        (
            "404 Client Error. (Request ID: Root=1-2;3)\n\nRepository Not Found for url: "
            "https://huggingface.co/api/x.\nPlease make sure",
            "Repository Not Found for url: https://huggingface.co/api/x",
        ),
        ("401 Client Error: Unauthorized for url: u", "Unauthorized for url: u"),
        ("", "OSError"),
    ],
)
def test_the_hubs_reason_is_a_whole_sentence(monkeypatch, tmp_path, text, reason):
    def refuse(*_, **__):
        raise OSError(text)

    (tmp_path / "owner").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(InputError) as error:
        sources.resolve("owner/name@main")
    assert str(error.value) == (
        "owner/name@main is no folder here and cannot be fetched from the hub: "
        f"{reason}; download it elsewhere and give its folder"
    )
