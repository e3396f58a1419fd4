"""What a job takes of memory and disk is said before it begins, and what cannot fit is refused."""

import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
from making import make_video, numbered
from standin import Standin

from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs import plan as plans
from realisvsr_jax.jobs.scene import Needs
from realisvsr_jax.jobs.single import Request, dry_run, restore_file

GB = 10**9


class Needy(Standin):
    """A window takes `needs`."""

    def __init__(self, needs, **options):
        super().__init__(**options)
        self.needs = needs

    def outlook(self, info):
        return replace(super().outlook(info), needs=lambda frames: self.needs)


@pytest.fixture
def refused(tmp_path):
    source = make_video(tmp_path / "in.mp4", numbered(60))

    def call(needs, **options):
        request = Request(str(source), str(tmp_path / "out.mp4"), scenes=False)
        with pytest.raises(InputError) as caught:
            list(dry_run(request, Needy(needs, **options)))
        with pytest.raises(InputError, match=r"out\.mp4: "):
            restore_file(request, Needy(needs, **options))
        assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
        return str(caught.value).removeprefix(f"{request.output}: ")

    return call


def test_memory_of_the_host(refused, monkeypatch):
    monkeypatch.setattr(plans, "free_memory", lambda: 4 * GB)
    message = refused(Needs(1, host=10 * GB), window=49)
    assert message == (
        "windows of 49 frames of 96×64 take 10 GB of the host's memory, 4 GB are free; "
        "--window 19 would fit"
    )
    assert "a result of 63% of its sides would fit" in refused(Needs(1, host=10 * GB), window=4)
    # A device without memory of its own takes the host's.
    assert "take 10 GB of the host's memory" in refused(Needs(1, host=GB, device=9 * GB))


def test_memory_of_a_device(refused):
    message = refused(Needs(1, device=20 * GB, device_limit=16 * GB))
    assert message == (
        "a window takes about 20 GB of a device's memory, which has 16 GB; give a smaller --tile "
        "or --window, --batch 1, or --memory 5.33GB"
    )


def test_space_on_the_disk(refused, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9 * GB, 0, 9 * GB))
    message = refused(Needs(1, state=5 * GB))
    assert message.startswith("the job takes 10 GB of disk or more, 9 GB are free; free some, or")


def test_sizes_in_words():
    for count, words in ((12, "12 bytes"), (999.6, "1 kB"), (4.9e9, "4.9 GB"), (2e15, "2e+03 TB")):
        assert plans.size(count) == words
