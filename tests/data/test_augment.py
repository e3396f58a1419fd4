import numpy as np

from realisvsr_jax.data.augment import flipped, sharpened


def clip(height: int = 6, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


def draws(frames: np.ndarray, **allowed: bool) -> set[bytes]:
    return {flipped(frames, np.random.default_rng(i), **allowed).tobytes() for i in range(40)}


def test_each_kind_of_flip_is_drawn_and_no_other():
    frames = clip()
    mirrored, upside_down = frames[:, :, ::-1], frames[:, ::-1]
    one = {"horizontal": True, "vertical": False, "turn": False}
    assert draws(frames, **one) == {frames.tobytes(), mirrored.tobytes()}
    one = {"horizontal": False, "vertical": True, "turn": False}
    assert draws(frames, **one) == {frames.tobytes(), upside_down.tobytes()}
    assert len(draws(frames, horizontal=True, vertical=True, turn=True)) == 8


def test_a_transpose_never_changes_the_shape():
    frames = clip(6, 8)
    assert draws(frames, horizontal=False, vertical=False, turn=True) == {frames.tobytes()}


def test_sharpening_steepens_edges_and_leaves_flat_areas():
    frames = np.full((2, 64, 96, 3), 100, np.uint8)
    np.testing.assert_array_equal(sharpened(frames), frames)
    frames[:, :, 48:] = 160
    sharp = sharpened(frames).astype(int)
    assert sharp[0, 32, 47, 0] < 100
    assert sharp[0, 32, 48, 0] > 160
