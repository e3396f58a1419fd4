import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.pages import replace_between


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- held-out -->\nold\n<!-- /held-out -->\nafter\n")
    replace_between(page, "held-out", "| new |\n")
    assert page.read_text() == "before\n<!-- held-out -->\n| new |\n<!-- /held-out -->\nafter\n"
    with pytest.raises(InputError, match=r"page\.md has no place for the table: <!-- controls"):
        replace_between(page, "controls", "")
