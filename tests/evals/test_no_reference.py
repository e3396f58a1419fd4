"""Programs of other environments: their protocol, and one line for whatever they lack."""

import sys

import numpy as np
import pytest
import torch

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.no_reference import start_dover, start_pyiqa

PYIQA = """
import sys, types
pyiqa, torch = types.ModuleType("pyiqa"), types.ModuleType("torch")
class Tensor:
    def __init__(self, array): self.array = array
    def permute(self, *axes): return Tensor(self.array.transpose(axes))
    def __getitem__(self, key): return Tensor(self.array[key])
    def float(self): return Tensor(self.array.astype("float32"))
    def to(self, device): return self
    def __truediv__(self, by): return Tensor(self.array / by)
class Quiet:
    def __enter__(self): pass
    def __exit__(self, *_): pass
torch.from_numpy, torch.no_grad = Tensor, Quiet
torch.cuda = types.SimpleNamespace(is_available=lambda: False)
def create_metric(name, device):
    print("a library that talks")
    assert device == "cpu"
    def metric(image):
        assert image.array.shape == (1, 3, 4, 6) and image.array.max() <= 1
        return image.array[0, 0].mean() * (100 if name == "musiq" else 1)
    return metric
pyiqa.create_metric = create_metric
sys.modules.update(pyiqa=pyiqa, torch=torch)
"""


def interpreter(tmp_path, text):
    """A program in Python's place that runs `text` before the worker."""
    before = tmp_path / "before.py"
    before.write_text(text)
    path = tmp_path / "python"
    path.write_text(
        f"#!{sys.executable}\nimport runpy, sys\nsys.argv = sys.argv[1:]\n"
        f"exec(open({str(before)!r}).read())\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    path.chmod(0o755)
    return str(path)


def test_pyiqas_scores_are_means_over_the_frames_of_each_clip(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
    with start_pyiqa(interpreter(tmp_path, PYIQA), ["musiq", "clipiqa"]) as program:
        assert program.names == ("musiq", "clipiqa")
        for clip in (frames, frames[:1]):
            program.begin(len(clip), 4, 6)
            for frame in clip:
                program.add(frame)
            red = clip[..., 0].mean() / 255
            assert program.scores() == pytest.approx({"musiq": 100 * red, "clipiqa": red})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--pyiqa: ModuleNotFoundError: No module named 'pyiqa'; is it there?"),
        ("raise SystemExit('its own words')", "--pyiqa: its own words; is it there?"),
        ("print('something else')", "--pyiqa: it answered b'something else"),
        ("sys.exit(3)", "--pyiqa: it answered b''"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path, text, message):
    hidden = "import sys\nsys.modules['pyiqa'] = None\n" if not text else "import sys\n"
    python = interpreter(tmp_path, hidden + text)
    with pytest.raises(InputError) as raised:
        start_pyiqa(python, ["musiq"])
    if text:
        assert message in str(raised.value)
    assert "pyiqa" in str(raised.value)
    assert f"{python} -m pip install pyiqa" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_program_that_dies_says_why(tmp_path):
    line = "assert image.array.shape"
    text = PYIQA.replace(line, f"raise ValueError('a strange clip')\n        {line}")
    with start_pyiqa(interpreter(tmp_path, text), ["musiq"]) as program:
        program.begin(1, 4, 6)
        program.add(np.zeros((4, 6, 3), np.uint8))
        with pytest.raises(InputError, match="--pyiqa: ValueError: a strange clip"):
            program.scores()


def test_no_interpreter_and_no_clone_are_one_line(tmp_path):
    with pytest.raises(InputError, match="none cannot be run: No such file"):
        start_pyiqa(str(tmp_path / "none"), ["musiq"])
    with pytest.raises(InputError, match="expected PYTHON:FOLDER"):
        start_dover(sys.executable)
    with pytest.raises(InputError, match=r"has no dover.yml; clone github.com/VQAssessment/DOVER"):
        start_dover(f"{sys.executable}:{tmp_path}")
    (tmp_path / "dover.yml").write_text("model: {}\n")
    with pytest.raises(InputError, match=r"--dover: .*No module named.*requirements.txt"):
        start_dover(f"{sys.executable}:{tmp_path}")


def test_dovers_own_code_is_given_the_frames(tmp_path):
    """A clone with DOVER's names: what it is called with, and what becomes of its answers."""
    (tmp_path / "dover.yml").write_text(
        "model: {args: {size: 2}}\ntest_load_path: weights.pth\n"
        "data: {val-l1080p: {args: {sample_types: {"
        "technical: {clip_len: 2, frame_interval: 1, num_clips: 2},"
        "aesthetic: {clip_len: 4, frame_interval: 1, t_frag: 4, num_clips: 1}}}}}\n"
    )
    package = tmp_path / "dover"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "datasets.py").write_text(
        "import torch\nVideoReader = None\n"
        "class UnifiedFrameSampler:\n"
        "    def __init__(self, *sizes): self.sizes = sizes\n"
        "def spatial_temporal_view_decomposition(path, types, samplers):\n"
        "    frames = VideoReader(path)\n"
        "    assert samplers['technical'].sizes == (2, 2, 1)\n"
        "    assert samplers['aesthetic'].sizes == (1, 4, 1, 1)\n"
        "    view = torch.stack([frames[i] for i in range(4)]).permute(3, 0, 1, 2).float()\n"
        "    return {'technical': view, 'aesthetic': view / 2}, None\n"
    )
    (package / "models.py").write_text(
        "class DOVER:\n"
        "    def __init__(self, size): self.size = size\n"
        "    def to(self, device): return self\n"
        "    def load_state_dict(self, state): assert state == {}\n"
        "    def __call__(self, views, reduce_scores):\n"
        "        assert list(views) == ['aesthetic', 'technical']\n"
        "        assert views['technical'].shape == (2, 3, 2, 8, 8)\n"
        "        assert views['aesthetic'].shape == (1, 3, 4, 8, 8)\n"
        "        return list(views.values())\n"
    )
    (tmp_path / "evaluate_a_set_of_videos.py").write_text(
        "import torch\nmean, std = torch.zeros(3), torch.full((3,), 1000.0)\n"
        "def fuse_results(results):\n"
        "    a, t = results\n"
        "    return {'aesthetic': a, 'technical': t, 'overall': a + t}\n"
    )
    torch.save({}, tmp_path / "weights.pth")
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    with start_dover(f"{sys.executable}:{tmp_path}") as program:
        program.begin(4, 8, 8)
        for frame in frames:
            program.add(frame)
        mean = frames.mean() / 10
        expected = {"dover": 1.5 * mean, "dover_technical": mean, "dover_aesthetic": mean / 2}
        assert program.scores() == pytest.approx(expected, rel=1e-5)
