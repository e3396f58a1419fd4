"""The entry point, as its user sees it."""

import sys

import pytest

from realisvsr_jax import errors, train
from realisvsr_jax.training.termination import Terminated

SMOKE = ("--config", "configs/smoke.py")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `train` with arguments in this process: (exit status, stdout, stderr)."""
    monkeypatch.setattr(errors, "plain_messages", lambda: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        for name in list(train.FLAGS):
            train.FLAGS[name].unparse()
        with pytest.raises(SystemExit) as ended:
            train.run()
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --config configs/NAME.py and --workdir RUN"),
        (("--config", "configs/smok.py"), "--config configs/smok.py: no such file"),
        ((*SMOKE, "--config.data.sources=('no/',)"), "data.sources: no is no folder; name one of"),
        ((*SMOKE, "--config.precomputed=no"), "no has no shards; make them with python -m"),
        ((*SMOKE, "--wrokdir", "x"), "Unknown command line flag 'wrokdir'. Did you mean: workdir"),
        (
            (*SMOKE, "--config.loss.wavelet_weight=(1,2,2,2)"),
            "unknown setting 'loss.wavelet_weight'; did you mean 'loss.wavelet_weights'?",
        ),
        ((*SMOKE, "--config.steps=many"), "many"),
        ((*SMOKE, "extra"), "'extra' is not expected"),
    ],
)
def test_bad_arguments_are_one_line(command, arguments, message, tmp_path):
    if "--wrokdir" not in arguments and arguments:
        arguments = (*arguments, "--workdir", tmp_path / "run")
    status, out, err = command(*arguments)
    assert status == 1
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "run").exists()


def test_an_export_that_exists_is_refused_before_training(command, tmp_path):
    status, _, err = command(*SMOKE, "--workdir", tmp_path / "run", "--export", tmp_path)
    assert status == 1
    assert "exists; name a new folder" in err
    assert not (tmp_path / "run").exists()


def test_an_export_into_the_run_or_a_best_that_never_is(command, tmp_path):
    place = (*SMOKE, "--workdir", tmp_path / "run", "--export")
    status, _, err = command(*place, tmp_path / "run")
    assert (status, err) == (
        1,
        "error: --export and --workdir are the same folder; name another to export to\n",
    )
    status, _, err = command(*place, tmp_path / "best", "--config.release.checkpoint=best")
    assert status == 1
    assert "no checkpoint has a score; set validation.every, or take 'last'" in err
    assert not list(tmp_path.iterdir())


def test_a_workdir_that_is_a_file_or_holds_something_else(command, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder, message in (
        (tmp_path / "notes.txt", f"--workdir: {tmp_path}/notes.txt is a file; name a folder"),
        (tmp_path, f"--workdir {tmp_path} is no RUN: it has notes.txt in it, but no run.json"),
    ):
        status, _, err = command(*SMOKE, "--workdir", folder)
        assert status == 1
        assert message in err
        assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_overrides_reach_training_and_the_hash_is_the_last_line(command, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "realisvsr_jax.training.run.train", lambda config, *rest: seen.append(config) or "ab12"
    )
    status, out, _ = command(
        *SMOKE,
        *("--workdir", tmp_path / "run", "--config.optimizer.learning_rate=0.5"),
        "--config.loss.wavelet_weights=(1.0, 3.0, 3.0, 3.0)",
    )
    assert status == 0
    assert out == "state sha256 ab12\n"
    assert seen[0].optimizer.learning_rate == 0.5
    assert seen[0].loss.wavelet_weights == (1.0, 3.0, 3.0, 3.0)


def test_a_terminated_run_says_so_and_exits_with_75(command, tmp_path, monkeypatch):
    def terminated(*_):
        raise Terminated

    monkeypatch.setattr("realisvsr_jax.training.run.train", terminated)
    status, out, err = command(*SMOKE, "--workdir", tmp_path / "run")
    assert (status, out) == (75, "")
    assert err == "stopped by SIGTERM; the same command goes on\n"


def test_a_report_is_one_line(capsys):
    def fails():
        raise errors.InputError("clip.mp4: no such file; check the path")

    assert errors.report(fails) == 1
    assert capsys.readouterr().err == "error: clip.mp4: no such file; check the path\n"
