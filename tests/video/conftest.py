"""A clip that most tests of this folder start from."""

import pytest
from making import make_video, numbered


@pytest.fixture
def clip(tmp_path):
    """Thirty frames with B-frames, 25 a second, and AAC sound."""
    return make_video(tmp_path / "clip.mp4", numbered(30), sound="aac")
