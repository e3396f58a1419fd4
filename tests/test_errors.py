"""One line for the user, and nothing hidden that is not the user's."""

import sys

import pytest
from absl import flags
from ml_collections import config_flags

from realisvsr_jax.errors import InputError, report, run_flags


def test_an_input_error_is_one_line_and_status_1(capsys):
    def main():
        raise InputError("clip.mp4 does not exist")

    assert report(main) == 1
    captured = capsys.readouterr()
    assert captured.err == "error: clip.mp4 does not exist\n"
    assert captured.out == ""


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_otherwise_the_status_is_mains(returned, status, capsys):
    assert report(lambda: returned) == status
    assert capsys.readouterr().err == ""


def test_other_errors_keep_their_traceback():
    def main():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        report(main)
    assert issubclass(InputError, ValueError)


@pytest.fixture
def configured(monkeypatch, capsys):
    """A program with a --config, called with arguments: (exit status, stderr)."""

    def call(*arguments):
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        return run_flags(lambda: 0, values), capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.loss.wavelet_wieghts=(1,)"], "'loss.wavelet_wieghts'; did you mean 'loss.wav"),
        (["--config.optimizre.b1=0"], "unknown setting 'optimizre'; did you mean 'optimizer'?"),
        (
            ["--config.zzz=1"],
            "unknown setting 'zzz'; configs/smoke.py has none of this name",
        ),
        (["--config.steps=many"], "flag --config.steps=many: invalid literal for int()"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_its_path(configured, arguments, message):
    status, err = configured("--config", "configs/smoke.py", *arguments)
    assert status == 1
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "configs/nope.py"],
        ["--config=configs/nope.py", "--config.steps=3"],
        ["--config=configs/nope.py:row"],
    ],
)
def test_a_configuration_that_is_not_there(configured, arguments):
    expected = "error: --config configs/nope.py: no such file; name one, as configs/tiny.py\n"
    assert configured(*arguments) == (1, expected)


def test_what_a_configuration_itself_refuses_has_no_traceback(configured):
    status, err = configured("--config=configs/tiny_losses.py:cpcc")
    assert status == 1
    assert err == (
        "error: flag --config=configs/tiny_losses.py:cpcc: unknown row 'cpcc'; known: baseline, "
        "cpc, cpc_wavelet, cpc_hog, cpc_wavelet_hog\n"
    )
    assert configured("--config=configs/tiny_losses.py:cpc") == (0, "")
