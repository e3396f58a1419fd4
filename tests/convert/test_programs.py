"""The three programs as their users run them."""

import importlib
import json
import logging
import shutil

import numpy as np
import pytest
import torch_checkpoints as checkpoints

from realisvsr_jax.convert import encode_prompts
from realisvsr_jax.errors import run_flags
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.weights.release import load_card, release_hash


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return checkpoints.write_wan(tmp_path_factory.mktemp("programs") / "wan")


@pytest.fixture
def run(monkeypatch, capsys, caplog):
    """Runs a program of `convert` in this process: exit status, messages, stderr."""
    caplog.set_level(logging.INFO)

    def running(name, *arguments):
        module = importlib.import_module(f"realisvsr_jax.convert.{name}")
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        module.FLAGS.unparse_flags()
        for flag in module.FLAGS:
            module.FLAGS[flag].unparse()
        caplog.clear()
        status = run_flags(module.main, module.FLAGS)
        return status, caplog.messages, capsys.readouterr().err

    return running


def test_there_and_back(run, wan, tmp_path):
    release, again = tmp_path / "release", tmp_path / "again"
    status, messages, _ = run("from_torch", "--input", wan, "--output", release)
    assert status == 0
    assert messages[-2] == (
        "  transformer: width 40, 3 layers, 2 heads, no control branch, 0.1 M parameters"
    )
    status, messages, _ = run(
        "to_torch", "--input", release, "--output", tmp_path / "t", "--format", "diffusers"
    )
    assert status == 0
    assert len(messages) == 10
    status, *_ = run("from_torch", "--input", tmp_path / "t", "--output", again)
    assert status == 0
    assert release_hash(again) == release_hash(release)
    assert load_card(again).text_encoder is not None


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("from_torch", [], "give --input PATH_OR_HUB_ID and --output DIR"),
        ("from_torch", ["--input", "none", "--output", "out"], "none: no such file or folder, and"),
        ("from_torch", ["--input", "{wan}", "--output", "{wan}"], "is the input itself"),
        ("from_torch", ["--input", "{wan}", "--output", "out", "--parts", "unet"], "part 'unet'"),
        ("from_torch", ["--input", "{wan}", "--output", "out", "--parts="], "no part is named"),
        ("from_torch", ["--input", "{wan}", "--output", "out", "--parts", "dit,cpc"],
         "has no cpc; it has dit, vae, text_encoder"),
        ("from_torch", ["--input", "{wan}", "--output", "/proc/xx/out"],
         "/proc/xx/out cannot be made: "),
        ("from_torch", ["--input", "{wan}", "--output", "a_run"], "it holds run.json, which is no"),
        ("from_torch", ["--input", "a_run", "--output", "out"], "a_run is a RUN, the state of a"),
        ("from_torch", ["--input", "{wan}", "--output", "a_run/run.json"], "run.json is a file;"),
        ("from_torch", ["--input", "a_run/none", "--output", "out"],
         "a_run/none: no such file or folder (a_run is a folder here)"),
        ("from_torch", ["--input", "{wan}", "--output", "out", "--dtype", "int8"], "float32"),
        ("to_torch", ["--input", "nope", "--output", "out", "--format", "wan"],
         "nope: no such folder"),
        ("to_torch", ["--input", "{wan}", "--output", "{wan}/out", "--format", "wan"],
         "lies within the input"),
        ("to_torch", ["--input", "{wan}", "--output", "a_run/run.json/out", "--format", "wan"],
         "run.json is a file; name another place"),
        ("encode_prompts", ["--text-encoder", "{wan}", "--output", "a_run"],
         "--output a_run is a folder; name a file, as cache.safetensors"),
        ("encode_prompts", ["--text-encoder", "{wan}", "--output", "/proc/xx/cache"],
         "/proc/xx/cache cannot be made: "),
        ("encode_prompts", ["--text-encoder", "a_run", "--output", "out"], "a_run is a RUN, the"),
        ("encode_prompts",
         ["--text-encoder", "{wan}", "--output", "{wan}/diffusion_pytorch_model.safetensors"],
         "is not a prompt cache: it has no list of prompts; name a file that"),
        ("to_torch", ["--input", "{wan}", "--output", "out"], "give --input RUN_OR_RELEASE"),
        ("to_torch", ["--input", "{wan}", "--output", "out", "--format", "wan"], "no model.json"),
        ("encode_prompts", ["--output", "out"], "give --text_encoder PATH_OR_HUB_ID"),
        ("encode_prompts", ["--text-encoder", "{wan}", "--output", "out", "--prompts", "none"],
         "none cannot be read"),
    ],
)  # fmt: skip
def test_bad_flags_are_one_line(run, wan, tmp_path, monkeypatch, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_run").mkdir()
    (tmp_path / "a_run" / "run.json").write_text("{}")
    before = checkpoints.tensors(wan).keys()
    status, _, errors = run(name, *(str(a).format(wan=wan) for a in arguments))
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert message in errors
    assert [path.name for path in tmp_path.rglob("*")] == ["a_run", "run.json"]
    assert checkpoints.tensors(wan).keys() == before


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("program", ["from_torch", "to_torch"])
def test_overwriting_spares_the_input_and_what_is_foreign(run, wan, tmp_path, program):
    source = tmp_path / "source"
    if program == "from_torch":
        shutil.copytree(wan, source)
        lone, option = source / "Wan2.1_VAE.pth", ()
    else:
        assert run("from_torch", "--input", wan, "--output", source)[0] == 0
        lone, option = source, ("--format", "wan")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    before = files(tmp_path)
    for given, output, message in (
        (source, source, "is the input itself"),
        (lone, source, "contains the input" if lone != source else "is the input itself"),
        (source, tmp_path, "contains the input"),
        (source, source / "new", "lies within the input"),
        (source, mine, "is not replaced: it holds thesis.txt, which is no part of a"),
        (source, mine / "thesis.txt", "is a file; name a new folder"),
    ):
        status, _, errors = run(
            program, "--input", given, "--output", output, "--overwrite", *option
        )
        assert status == 1
        assert len(errors.splitlines()) == 1
        assert message in errors
        assert files(tmp_path) == before
    (mine / "thesis.txt").unlink()
    arguments = ("--input", source, "--output", mine, *option)
    assert "exists; name a new folder, or give --overwrite" in run(program, *arguments)[2]
    for _ in range(2):  # an empty folder, then the program's own
        assert run(program, *arguments, "--overwrite")[0] == 0
        assert len(files(mine)) > 3


def test_nothing_is_fetched_for_an_output_that_cannot_be(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    arguments = ("--input", "owner/name", "--output", "/proc/xx/out")
    assert "cannot be made" in run("from_torch", *arguments)[2]
    arguments = ("--input", "owner/name", "--output", tmp_path / "out", "--parts", "unet")
    assert "unknown part 'unet'" in run("from_torch", *arguments)[2]


def test_a_hub_that_cannot_be_reached_is_one_line(run, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("Couldn't connect\nto the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    status, _, errors = run("from_torch", "--input", "owner/name", "--output", tmp_path / "out")
    assert status == 1
    assert errors == (
        "error: owner/name is no folder here and cannot be fetched from the hub: Couldn't connect "
        "to the hub; download it elsewhere and give its folder\n"
    )


def test_what_the_hub_gives_is_converted(run, wan, tmp_path, monkeypatch):
    asked = {}

    def fetch(repository, **options):
        asked.update(options, repository=repository)
        return str(wan)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    status, *_ = run("from_torch", "--input", "owner/name@v2", "--output", tmp_path / "a")
    assert status == 0
    assert (asked["repository"], asked["revision"]) == ("owner/name", "v2")
    assert asked["ignore_patterns"] is None
    arguments = ("--input", "owner/name", "--output", tmp_path / "b", "--parts", "dit,vae")
    assert run("from_torch", *arguments)[0] == 0
    assert "models_t5*" in asked["ignore_patterns"]


def test_only_what_the_cache_lacks_is_encoded(run, wan, tmp_path):
    prompts, output = tmp_path / "prompts.txt", tmp_path / "cache.safetensors"
    prompts.write_text("a cat\na sharp video\n")
    arguments = ("--text-encoder", wan, "--output", output)
    status, messages, _ = run("encode_prompts", *arguments, "--prompts", prompts)
    assert (status, messages[-1]) == (0, f"{output}: 3 prompts, 3 of them new")
    first = PromptCache.load(output, 512, checkpoints.TEXT_DIM)
    (tmp_path / "prompts.json").write_text(json.dumps(["a cat", "x"]))
    status, messages, _ = run("encode_prompts", *arguments, "--prompts", tmp_path / "prompts.json")
    assert (status, messages[-1]) == (0, f"{output}: 4 prompts, 1 of them new")
    second = PromptCache.load(output, 512, checkpoints.TEXT_DIM)
    for prompt in first.states:
        np.testing.assert_array_equal(first.lookup(prompt), second.lookup(prompt))
    before = output.read_bytes()
    status, messages, _ = run("encode_prompts", *arguments)
    assert (status, messages[-1]) == (0, f"{output}: 4 prompts, 0 of them new")
    assert output.read_bytes() == before


def test_prompts_are_stripped_and_once(run, wan, tmp_path):
    prompts, output = tmp_path / "prompts.txt", tmp_path / "cache.safetensors"
    prompts.write_text("  a cat \r\na cat\n\n\tx\n")
    arguments = ("--text-encoder", wan, "--output", output, "--prompts", prompts)
    status, messages, _ = run("encode_prompts", *arguments)
    assert (status, messages[-1]) == (0, f"{output}: 3 prompts, 3 of them new")
    cache = PromptCache.load(output, 512, checkpoints.TEXT_DIM)
    assert set(cache.states) == {"", "a cat", "x"}
    assert encode_prompts.read_prompts(prompts) == ["a cat", "", "x"]


def test_a_cache_of_another_length_is_told(run, wan, tmp_path):
    output = tmp_path / "cache.safetensors"
    (tmp_path / "prompts.txt").write_text("a sharp video of a cat")
    arguments = ("--text-encoder", wan, "--output", output, "--prompts", tmp_path / "prompts.txt")
    assert run("encode_prompts", *arguments)[0] == 0
    errors = run("encode_prompts", *arguments, "--text_length", 3)[2]
    assert errors.startswith(f"error: {output}: the text states of 'a sharp video of a cat' have ")
    assert "the model takes at most 3 (text_length); encode the prompts with --text_l" in errors


def test_captions_are_read_from_a_folder(run, wan, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "one.txt").write_text("a cat\n")
    output = tmp_path / "cache.safetensors"
    arguments = ("--text-encoder", wan, "--prompts", tmp_path / "clips", "--output", output)
    assert run("encode_prompts", *arguments)[0] == 0
    assert "a cat" in PromptCache.load(output, 512, checkpoints.TEXT_DIM)


def test_another_encoder_does_not_add_to_a_cache(run, wan, tmp_path):
    output = tmp_path / "cache.safetensors"
    assert run("encode_prompts", "--text-encoder", wan, "--output", output)[0] == 0
    other = tmp_path / "other"
    shutil.copytree(wan, other)
    encoder = checkpoints.tensors(wan / "models_t5_umt5-xxl-enc-bf16.pth")
    import torch

    changed = {n: torch.from_numpy(v) + (n == "norm.weight") for n, v in encoder.items()}
    torch.save(changed, other / "models_t5_umt5-xxl-enc-bf16.pth")
    status, _, errors = run("encode_prompts", "--text-encoder", other, "--output", output)
    assert status == 1
    assert "was made by another text encoder; name a new file" in errors
