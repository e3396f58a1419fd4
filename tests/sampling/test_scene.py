"""Scenes window by window: continuation, states, streams through the VAE, batches, devices."""

import dataclasses
import io
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import fast_jit

from realisvsr_jax.errors import InputError
from realisvsr_jax.resize import bicubic
from realisvsr_jax.sampling import scene as scenes
from realisvsr_jax.sampling.plan import plan
from realisvsr_jax.sampling.restore import Restorer
from realisvsr_jax.sampling.scene import Options, SceneRestorer, state_arrays, state_from
from realisvsr_jax.sampling.solvers import SamplerConfig, make_schedule
from realisvsr_jax.sampling.streams import WARM_UP, whole_bytes, whole_plan
from realisvsr_jax.weights.release import load_release

# 8×12 frames become 16×24 pixels and 4×6 latent positions; 2 frames are one latent frame.
SIZE = (8, 12)
PLAIN = Options(scale=2, color="none", prompt="sharp")
EULER = SamplerConfig(solver="euler", steps=2)


@pytest.fixture(scope="module")
def release(tiny_release):
    return load_release(tiny_release)


@pytest.fixture(scope="module")
def model(release):
    """Windows of 3 latent frames that share 1; tiles of 16×16 pixels that share 8."""
    card = dataclasses.replace(release.card, tile=(5, 16, 24), overlap=(2, 0, 8), sampler=EULER)
    return Restorer(dataclasses.replace(release, card=card))


def clip(frames):
    return np.random.default_rng(3).uniform(-1, 1, (frames, *SIZE, 3)).astype(np.float32)


def restored(model, frames, options=PLAIN, *, kept=False, first_frame=0):
    """The clip, and the scene's restorer; with `kept` every state is written and read again."""
    scene, state, parts = SceneRestorer(model, *SIZE, options), None, []
    for window in scene.windows(len(frames)):
        if kept and state is not None:
            file = io.BytesIO()
            np.savez(file, **state_arrays(state))
            file.seek(0)
            state = state_from(np.load(file))
        read = frames[window.reads.start : window.reads.stop]
        given = {"frames_in_scene": len(frames), "first_frame": first_frame}
        part, state = scene.restore(window, read, state, **given)
        assert len(part) == len(window.writes)
        parts.append(part)
    return np.concatenate(parts), scene


def test_windows_by_hand(model, release):
    """One encoded stream, two windows of which the second holds a latent frame, one decoded."""
    frames = clip(8)  # 5 latent frames, the last of which is repeated
    schedule = make_schedule(EULER)
    text = jnp.asarray(release.prompts.lookup("sharp"))[None]

    @fast_jit
    def encode(vae, video):
        padded = jnp.concatenate([video, video[:, -1:]], axis=1)
        return vae.encode(bicubic(padded, 16, 24))

    velocity = fast_jit(lambda network, z, time, c: network(z, time[None], c, text))
    decode = fast_jit(lambda vae, latent: vae.decode(latent))
    condition = encode(release.vae, frames[None])
    noise = jax.random.normal(jax.random.key(7), condition.shape)

    def window(start, known):
        c, e = (x[:, start : start + 3] for x in (condition, noise))
        z = e
        for i, sigma in enumerate(schedule.sigmas[:-1]):
            count = known.shape[1]
            z = z.at[:, :count].set((1 - sigma) * known + sigma * e[:, :count])
            v = velocity(release.model, z, jnp.float32(schedule.timesteps[i]), c)
            z = z + (schedule.sigmas[i + 1] - sigma) * v
        return z.at[:, : known.shape[1]].set(known)

    first = window(0, condition[:, :0])
    second = window(2, first[:, 2:])
    latent = jnp.concatenate([first, second[:, 1:]], axis=1)
    expected = decode(release.vae, latent)[0, :8]
    ours, scene = restored(model, frames, dataclasses.replace(PLAIN, seed=7))
    np.testing.assert_allclose(ours, expected, atol=3e-5)
    assert scene.calls == {"encode": 5, "sample": 2, "decode": 5}
    # Without the continuation the second window would be another one.
    assert np.abs(window(2, condition[:, :0]) - second)[:, 1:].max() > 0.01


def test_states_can_be_kept_and_used_again(model):
    frames = clip(10)
    for options in (PLAIN, dataclasses.replace(PLAIN, carry=0)):
        plain, _ = restored(model, frames, options)
        np.testing.assert_array_equal(restored(model, frames, options, kept=True)[0], plain)
    other, _ = restored(model, frames, PLAIN, first_frame=9)
    assert np.abs(other - restored(model, frames)[0]).max() > 0.01


def test_a_state_or_frames_of_another_window(model):
    scene = SceneRestorer(model, *SIZE, PLAIN)
    windows = scene.windows(9)
    given = {"frames_in_scene": 9, "first_frame": 0}
    with pytest.raises(ValueError, match="window 0 reads 5 frames: 4"):
        scene.restore(windows[0], clip(4), None, **given)
    with pytest.raises(ValueError, match="the state is that of window 0, not of 1"):
        scene.restore(windows[1], clip(4), None, **given)


def test_the_vae_by_tiles_in_bounded_memory_gives_the_same(model):
    config = model.vae_config
    whole = min(whole_bytes(whole_plan(config, (16, 24), decoding=d)) for d in (False, True))
    small = dataclasses.replace(PLAIN, vae_memory=whole - 1)
    plain, _ = restored(model, clip(8))
    tiled, scene = restored(model, clip(8), small)
    assert scene._decoder.tiled is not None
    assert scene._encoder.tiled is not None
    np.testing.assert_allclose(tiled, plain, atol=3e-5)
    with pytest.raises(InputError, match=r"the VAE needs .* in the smallest tiles"):
        SceneRestorer(model, *SIZE, dataclasses.replace(PLAIN, vae_memory=1000))


def test_without_memory_for_caches_the_vae_starts_anew_a_little_before(model):
    """Its warm-up is all that there is before the fourth window, and less before the fifth."""
    frames = clip(22)
    plain, _ = restored(model, frames)
    anew, _ = restored(model, frames, dataclasses.replace(PLAIN, carry=0))
    first = 1 + 2 * WARM_UP
    np.testing.assert_allclose(anew[:first], plain[:first], atol=3e-5)
    assert np.abs(anew - plain)[first:].max() > 1e-3


TILES = dataclasses.replace(PLAIN, tile=(16, 16))


@pytest.mark.parametrize("fuse", ["steps", "end"])
def test_batches_of_tiles_change_nothing_and_parts_are_told_of(model, fuse):
    options = dataclasses.replace(TILES, fuse=fuse)
    frames, ticks = clip(5), []
    scene = SceneRestorer(model, *SIZE, options)
    (window,) = scene.windows(5)
    given = {"frames_in_scene": 5, "first_frame": 0}
    alone, _ = scene.restore(window, frames, None, **given, progress=lambda *n: ticks.append(n))
    total = 3 + 2 * (2 if fuse == "end" else 1) + 3
    assert ticks == [(done, total) for done in range(1, total + 1)]
    together, _ = restored(model, frames, dataclasses.replace(options, batch=3))
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(alone - restored(model, frames)[0]).max() > 1e-3


def test_as_many_tiles_at_once_as_the_compiled_program_has_memory_for(model, monkeypatch):
    frames, found = clip(5), {}
    alone, _ = restored(model, frames, TILES)
    asked = model.sample_bytes

    def sample_bytes(*inputs, **options):
        found[options["batch"]] = asked(*inputs, **options)
        return found[options["batch"]]

    monkeypatch.setattr(model, "sample_bytes", sample_bytes)
    roomy, scene = restored(model, frames, dataclasses.replace(TILES, sampler_memory=10**9))
    assert (list(found), scene._together) == ([2], 2)
    np.testing.assert_allclose(roomy, alone, atol=1e-5)
    monkeypatch.setattr(scenes, "batch_within", lambda *_: 2)  # a formula that asks for too much
    tight, scene = restored(model, frames, dataclasses.replace(TILES, sampler_memory=found[2] - 1))
    assert scene._together == 1
    np.testing.assert_array_equal(tight, alone)


def test_the_formula_of_tiles_at_once(model):
    def batch(memory, devices=1, size=(8, 40)):
        options = dataclasses.replace(TILES, sampler_memory=memory)
        return plan(model.card, *size, 5, options, devices=devices).batch

    one = plan(model.card, 8, 40, 5, TILES).device_bytes["sample"]
    assert [batch(memory) for memory in (1, one, 10**9)] == [1, 1, 9]
    # Nine tiles: the fewest that need no more calls.
    sizes = {batch(memory) for memory in range(one, 2 * one, one // 50)}
    assert sizes >= {2, 3, 5, 9}
    assert sizes <= {1, 2, 3, 5, 9}
    assert batch(10**9, devices=2) == 10


def test_the_plan_is_that_of_the_restorer(model):
    found = plan(model.card, *SIZE, 8, TILES, devices=1)
    scene = SceneRestorer(model, *SIZE, TILES)
    assert list(found.windows) == scene.windows(8)
    assert (found.size, found.latent, found.tiling.count) == (scene.size, (3, 4, 6), 2)
    assert (found.batch, found.calls, found.steps) == (1, 2, 2)
    assert found.tiled == {"encode": False, "decode": False}
    eight = plan(model.card, *SIZE, 8, TILES, devices=8)
    assert (eight.batch, eight.calls) == (2, 1)
    _, state = scene.restore(scene.windows(8)[0], clip(5), None, frames_in_scene=8, first_frame=0)
    kept = sum(array.nbytes for name, array in state_arrays(state).items() if name != "structure")
    assert kept <= found.state_bytes < 1.2 * kept
    assert found.host_bytes > 2 * found.state_bytes
    assert min(found.device_bytes.values()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": (4, 16)}, "smaller than one patch of the network; the sides must be 8 pixels"),
        ({"tile": (0, 16)}, "tile height is 0; give a whole number from 1"),
        ({"window": 0}, "window is 0; give a whole number from 1"),
        ({"batch": -1}, "batch is -1; give a whole number from 0"),
        ({"carry": -1}, "carry is -1; give a whole number from 0"),
        ({"fuse": "middle"}, "fuse is 'middle'; known: steps, end"),
    ],
)
def test_options_of_scenes_out_of_range(model, options, message):
    with pytest.raises(InputError) as error:
        SceneRestorer(model, *SIZE, Options(**options))
    assert message in str(error.value)


def test_eight_devices_give_what_one_does(tiny_release):
    command = [sys.executable, "-m", "tests.sampling.scene_devices", str(tiny_release)]
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    result = subprocess.run(
        command,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["devices"] == 8
    assert found["together"]["batch"] == 4
    assert found["together"]["error"] < 1e-4
    for fuse in ("steps", "end"):
        assert found[fuse]["mesh"] == {"data": 2, "seq_kv": 2, "seq_heads": 2}
        assert found[fuse]["error"] < 1e-4
        assert found[fuse]["ticks"] == [[done, 6] for done in range(1, 7)]
