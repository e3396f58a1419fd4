"""One line for the user, and nothing hidden that is not the user's."""

import pytest

from realisvsr_jax.errors import InputError, report


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
