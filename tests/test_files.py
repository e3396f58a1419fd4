import pytest

from realisvsr_jax.files import append_lines, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    with replacing(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_go_on_after_the_last_whole_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("eins\nzwei\ndré".encode()[:-1])
    with append_lines(path) as file:
        file.write("drei\n")
    assert path.read_text() == "eins\nzwei\ndrei\n"
