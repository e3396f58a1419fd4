"""A clip that most tests of this folder start from."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "video"))  # making

from making import make_video, numbered


@pytest.fixture
def clip(tmp_path):
    """Thirty frames with sound: eight windows of the stand-in."""
    return str(make_video(tmp_path / "in.mp4", numbered(30), sound="aac"))
