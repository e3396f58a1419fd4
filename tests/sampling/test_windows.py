"""Windows cover a scene, continue one another, and noise belongs to the scene."""

import itertools

import jax
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.windows import chunks, frames_of, plan_spans, scene_noise


@pytest.mark.parametrize(("size", "overlap"), [(13, 3), (3, 1), (5, 0), (4, 3), (1, 0)])
def test_every_latent_is_new_once_and_windows_have_one_size(size, overlap):
    for latents in range(1, 40):
        spans = plan_spans(latents, size, overlap)
        new = [range(span.start + span.known, span.end) for span in spans]
        assert list(itertools.chain(*new)) == list(range(latents))
        assert spans[0].start == spans[0].known == 0
        assert all(span.known >= overlap for span in spans[1:])
        if latents > size:
            assert {span.size for span in spans} == {size}
            assert all(span.end - span.start == size for span in spans)


def test_short_scenes_share_few_sizes():
    sizes = {n: plan_spans(n, 13, 3)[0].size for n in range(1, 14)}
    assert sizes == {1: 1, 2: 2, 3: 3, 4: 5, 5: 5} | dict.fromkeys(range(6, 10), 9) | dict.fromkeys(
        range(10, 14), 13
    )
    assert plan_spans(6, 7, 1)[0].size == 7
    assert plan_spans(30, 1000, 3)[0].size == 37
    assert plan_spans(4, 12, 3, whole=3)[0].size == 6


def test_an_overlap_as_long_as_the_window():
    with pytest.raises(InputError, match="3 latent frames cannot overlap by 3"):
        plan_spans(9, 3, 3)


def test_frames_behind_latents():
    assert frames_of(range(0, 3), 4) == range(0, 9)
    assert frames_of(range(3, 5), 4) == range(9, 17)
    assert [list(chunk) for chunk in chunks(range(0, 2), 2)] == [[0], [1, 2]]
    assert [list(chunk) for chunk in chunks(range(4, 6), 2)] == [[0, 1], [2, 3]]


def test_noise_is_the_same_in_whatever_window_and_differs_between_scenes():
    shape = (2, 3, 4)
    long = scene_noise(5, 0, range(0, 40), shape)
    np.testing.assert_array_equal(scene_noise(5, 0, range(11, 35), shape), long[:, 11:35])
    np.testing.assert_array_equal(scene_noise(5, 0, range(16, 17), shape), long[:, 16:17])
    # As the seed's own key draws it for a whole clip.
    drawn = jax.random.normal(jax.random.key(5), (1, 13, *shape))
    np.testing.assert_array_equal(long[:, :13], drawn)
    frames = [long[0, t] for t in range(40)]
    frames += [
        scene_noise(5, first, range(0, 20), shape)[0, t] for first in (1, 7) for t in (0, 17)
    ]
    frames += [scene_noise(6, 0, range(0, 1), shape)[0, 0]]
    assert len({frame.tobytes() for frame in frames}) == len(frames)
